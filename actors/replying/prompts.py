"""Prompts for the language model: the conversation so far. A prompt waits until every turn is transcribed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.drafts import Draft, Prompt
from actors.replying.openings import opening_of
from actors.replying.prefill import Prefill
from actors.replying.requests import CommittedTurn, ReplyRequest, SpokenItem
from actors.replying.summaries import Summaries
from actors.stages.ports import Transcript
from actors.stages.session_context import SessionContext
from rejoinder.core.errors import BackendError
from rejoinder.core.http_api.transcription import RecordingPart, TimedText, cues
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply import prompt_window
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.satisfaction import repeats
from rejoinder.core.reply.tools.calls import ToolOffer
from rejoinder.core.wire import server
from rejoinder.core.wire.session import SEGMENTS, WORDS


class Prompts:
    """Builder of the prompts of one session. It also adds the transcript of each turn to the conversation.

    Its tasks belong to the session's group.
    """

    def __init__(self, context: SessionContext, group: asyncio.TaskGroup) -> None:
        self._context = context
        self._services = services = context.services
        self._group = group
        self._pending: set[asyncio.Task[None]] = set()
        self.summaries = Summaries(services, group)
        self.prefill = Prefill(services, group, context.id, self._offer)

    def expect(self, spoken: SpokenItem) -> None:
        """Add the transcript of an item to the conversation once it is available.

        It is also sent to the client, if the client configured transcription. Every prompt waits for it.
        """
        task = self._group.create_task(self._transcribed(spoken))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def for_turn(self, turn: CommittedTurn | None, request: ReplyRequest, *, requested: bool) -> Prompt | None:
        """Wait until every committed turn is transcribed and return the prompt; None if there is nothing to answer.

        Cancelling the wait leaves the transcription running.

        Args:
            turn: The turn to answer; None if the client requested a reply without a new turn.
            request: The request that the reply fulfils.
            requested: Whether the client requested the reply. Then a turn without words is answered if the request has
                instructions of its own, for example to greet the caller.

        Raises:
            BackendError: The turn could not be transcribed.
        """
        if request.prompt is not None:
            return prompt_window.window(request.instructions, request.prompt, len(request.prompt) or 1)
        if self._pending:
            await asyncio.wait(self._pending)
        if turn:
            transcript = await asyncio.shield(turn.end_of_turn.transcript)
            turn.marks.end(Stage.STT, turn.end_of_turn.transcribed_at or self._services.clock())
            told = requested and request.instructions != self._instructions
            if not (transcript.text or told or self._ends_with_caller()):
                return None  # nobody spoke, so there is nobody to answer
        return self.current(request)

    async def for_draft(self, draft: Draft) -> Prompt | None:
        """Wait for the caller's words and return the prompt for a draft; None if there is nothing to answer.

        Before the commit, the prompt is the one that the turn will have if the conversation does not change. After the
        commit it is the turn's prompt, as `for_turn` returns it. Cancelling the wait leaves the transcription running.
        """
        transcript = await draft.transcript()
        if self._pending:
            await asyncio.wait(self._pending)
        if draft.turn:
            return await self.for_turn(draft.turn, draft.terms.request, requested=False)
        draft.sent_prompt = self.current(draft.terms.request, transcript)
        openings = () if draft.terms.request.tools.active else self._services.settings.conversation.openings
        if not opening_of(draft.reply.plan.events, draft.sent_prompt, openings):
            # The language model works on this prompt from here on, so the wait is a part of its time.
            draft.reply.marks.start(Stage.LLM_FIRST_TOKEN, self._services.clock())
        await self.prefill.wait_for_end(draft.sent_prompt)
        return draft.sent_prompt

    def current(self, request: ReplyRequest, transcript: str = "") -> Prompt:
        """Return the prompt: the instructions of `request`, and the conversation as it is now.

        If `transcript` is not empty, it is added as the newest turn of the caller.
        """
        newest = [ChatMessage("user", transcript)] if transcript else []
        turns = self._context.conversation.messages(without=request.known.items if request.known else ()) + newest
        return self.summaries.window.prompt(request.instructions, turns, self.summaries.newest)

    def language_notice(self, end_of_turn: EndOfTurnRequest) -> str:
        """Return what to say if the transcript of `end_of_turn` is in a language that is not served; "" otherwise."""
        foreign = end_of_turn.transcribed and end_of_turn.transcript.result().language
        return self._services.settings.other_language_notice if foreign else ""

    def _offer(self) -> ToolOffer:
        """Return the tools of a reply that the session's configuration requests."""
        return self._context.offer(self._context.config)

    @property
    def _instructions(self) -> str:
        """The instructions of the session."""
        return self._context.config.instructions or self._services.settings.conversation.instructions

    def _ends_with_caller(self) -> bool:
        """Return True if the last message of the conversation is from the caller.

        A noise after the caller's turn may have cancelled the reply before its start. Then the noise has no words, but
        the turn before it must still be answered.
        """
        messages = self._context.conversation.messages()
        return bool(messages) and messages[-1].role == "user"

    async def _transcribed(self, spoken: SpokenItem) -> None:
        asked_for = self._context.config.sends_transcripts
        try:
            transcript = await asyncio.shield(spoken.end_of_turn.transcript)
        except BackendError as fault:
            self._services.metrics.error("backend", "stt")
            if asked_for:
                self._context.emit(server.transcription_failed(spoken.item.id, str(fault)))
            return
        self._use(spoken, transcript, "heard")
        if repeats(self._turn_before(spoken.item.id), transcript.text):
            self._services.metrics.repeated_turn()
        if spoken.end_of_turn.correction:
            self._group.create_task(
                self._correct(spoken, transcript, spoken.end_of_turn.correction, asked_for=asked_for)
            )
        elif asked_for:
            self._announce(spoken, transcript)

    async def _correct(
        self, spoken: SpokenItem, first: Transcript, correction: asyncio.Future[Transcript], *, asked_for: bool
    ) -> None:
        """Replace an item's transcript by the second recognizer's, although the first is being answered already.

        Args:
            spoken: The item.
            first: The first transcript, which the reply answers.
            correction: Future of the second transcript. If it fails or has no words, the first transcript stays.
            asked_for: Whether the client gets the transcript. It gets one transcript of each item: the better one.
        """
        better = first
        with suppress(BackendError):
            second = await asyncio.shield(correction)
            better = second if second.text else first
        if better is not first:
            self._use(spoken, better, "corrected")
        if asked_for:
            self._announce(spoken, better)

    def _use(self, spoken: SpokenItem, transcript: Transcript, kind: str) -> None:
        self._context.conversation.update(replace(spoken.item, text=transcript.text))
        self._context.changed()
        self._services.journal.write(kind, {"item": spoken.item.id, "text": transcript.text})

    def _turn_before(self, item_id: str) -> str:
        """Return the words of the caller's last turn with words before this one; "" if there is none."""
        words = ""
        for item in self._context.conversation:
            if item.id == item_id:
                break
            if item.role == "user" and item.text:
                words = item.text
        return words

    def _announce(self, spoken: SpokenItem, transcript: Transcript) -> None:
        seconds = spoken.end_of_turn.seconds
        if rest := spoken.streamed.rest(transcript.text):
            self._context.emit(server.transcription_delta(spoken.item.id, rest))
        include = self._context.config.include
        words = [(word.word, word.start_s, word.end_s) for word in transcript.words]
        if SEGMENTS in include:
            timed = RecordingPart(transcript.text, 0.0, seconds, tuple(TimedText(*word) for word in words))
            for cue in cues([timed]):
                segment_id = self._context.stamp("seg")
                self._context.emit(
                    server.transcription_segment(
                        spoken.item.id, segment_id, cue.text, start_s=cue.start_s, end_s=cue.end_s
                    )
                )
        self._context.emit(
            server.transcription_completed(
                spoken.item.id,
                transcript.text,
                seconds,
                language=transcript.language,
                words=words if WORDS in include else (),
            )
        )
