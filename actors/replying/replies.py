"""The replies of one session: starts, pauses, cancels and ends them, and knows the current one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.drafts import Draft, Drafts, Prompt
from actors.replying.prompts import Prompts
from actors.replying.recent_replies import RecentReplies
from actors.replying.reply import Reply, ReplyPlan
from actors.replying.requests import CommittedTurn, ReplyRequest, ReplyTerms, SpokenItem
from actors.replying.response import ResponsePhase
from actors.replying.turn_report import report, trace_of
from actors.stages.degradation import SessionDegradation
from actors.stages.retry import StageFailures, contained
from actors.stages.session_context import SessionContext
from rejoinder.core.measuring.waterfall import Marks
from rejoinder.core.reply.answer_cache import CacheScope
from rejoinder.core.survival.snapshot import LastReply
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseStatus

# Maximum number of responses outside the conversation that run at the same time.
MAX_OUT_OF_BAND = 4
# Seconds after the start of a pause in which a truncation of the reply counts as an answer to it. A client that drops
# its audio at input_audio_buffer.speech_started truncates the reply too, and a reply that is resumed must go on.
FLUSH_S = 2.0


class Replies:
    """The replies of one session. Not thread-safe. Their tasks belong to the session's group.

    Attributes:
        current: The conversation's newest reply, running or ended; None at first and after a barge-in.
        recent: The replies to which the client may still refer.
        summaries: Summaries of the turns that leave the prompt.
        degradation: The session's degradation measures.
        last_ended_at: Monotonic time at which the newest reply of the conversation ended; None if none has.
    """

    def __init__(self, context: SessionContext, group: asyncio.TaskGroup, ended: Callable[[Reply], None]) -> None:
        """Create an empty set of replies; `ended` is called with every reply that ends."""
        self.current: Reply | None = None
        self.last_ended_at: float | None = None
        self.recent = RecentReplies()
        self._context = context
        self._services = services = context.services
        self._on_end = ended
        self._group = group
        self._unanswered: CommittedTurn | None = None
        self._prompts = Prompts(context, group)
        self.summaries = self._prompts.summaries
        self._running: dict[Reply, asyncio.Task[None]] = {}
        # True if the client was told of the newest pause.
        self._told = True
        # Monotonic time until which the first truncation counts as an answer to a pause that is over.
        self._flush_until = -math.inf
        self.degradation = SessionDegradation(services)
        self._drafts = Drafts(services.draft_budget, services.metrics, self.degradation)

    def expect(self, turn: CommittedTurn) -> None:
        """Accept a committed turn as the next one to answer. Its transcript may still be under way."""
        self._unanswered = turn
        self._prompts.expect(turn.spoken)

    def expect_transcript(self, spoken: SpokenItem) -> None:
        """Accept an item of the client whose audio is being transcribed. Every later prompt waits for its words."""
        self._prompts.expect(spoken)

    # -- starting and ending ---------------------------------------------------------------------------------------

    def draft(self, revision: int, end_of_turn: EndOfTurnRequest) -> None:
        """Begin the speculative reply to a revision, which `end_of_turn` transcribes. `start` sends or discards it."""
        request = self.default_request()
        prompt = partial(self._prompts.current, request)
        self._drafts.begin(revision, end_of_turn, self._terms(request), prompt, carry_out=self._start_draft)

    def _start_draft(self, draft: Draft) -> None:
        prompt = partial(self._prompts.for_draft, draft)
        asked = draft.end_of_turn
        plan = self._plan(draft.terms, prompt, asked.failures, lambda: draft.turn, end_of_turn=asked)
        draft.reply = Reply(plan, self._context, Marks(), drafted=True)
        draft.task = self._group.create_task(self._run(draft.reply, previous=None))

    def read_ahead(self, transcript: str = "", *, whole: bool = False) -> None:
        """Let the language model prefill the prompt with the caller's words so far, unless a draft is under way.

        Args:
            transcript: The words; "" for a prompt without a new turn of the caller.
            whole: True if the words may be the whole turn; False if more words may follow.
        """
        if not self._drafts.drafting and not self._context.config.transcribes_only:
            self._prompts.prefill.start(self._prompts.current(self.default_request(), transcript), whole=whole)

    @property
    def asked(self) -> str:
        """The assistant's last words in the conversation; "" if it has not spoken yet."""
        messages = self._context.conversation.messages()
        return next(
            (message.content for message in reversed(messages) if message.role == "assistant" and message.content), ""
        )

    async def message_end(self, words: str) -> float | None:
        """Return the language model's probability that the caller's message ends with these words; None if unknown.

        A session without replies does not ask the language model.
        """
        if self._context.config.transcribes_only:
            return None
        return await self._prompts.prefill.message_end(self._prompts.current(self.default_request(), words))

    def discard(self) -> None:
        """Discard the draft, if there is one."""
        self._drafts.discard()

    def start(self, requested: ReplyRequest | None = None, draft: int | None = None) -> None:
        """Start the reply to the turn that was committed last.

        Args:
            requested: The client's request; None if the end of the turn starts the reply. A requested response opens
                at once.
            draft: The revision whose draft answers the turn, if the draft is still valid; None for no draft.
        """
        turn: CommittedTurn | None = None
        request = requested or self.default_request()
        if not request.out_of_band:
            turn, self._unanswered = self._unanswered, None
        if turn and self._release_draft(turn, request, draft):
            return
        failures = turn.end_of_turn.failures if turn else StageFailures(self._services.metrics)
        prompt = partial(self._prompts.for_turn, turn, request, requested=requested is not None)
        asked = turn.end_of_turn if turn else None
        plan = self._plan(self._terms(request), prompt, failures, lambda: turn, end_of_turn=asked)
        reply = Reply(plan, self._context, turn.marks if turn else Marks())
        if turn:
            turn.waited_for_end(self._services.clock())
        previous = None
        if not request.out_of_band:
            previous = self._running.get(self.current) if self.current else None
            self.current = reply
        # A requested response opens at once, unless a lead-in is being spoken: then it opens at the end of that.
        if requested and previous is None:
            reply.response.open()
        self._launch(reply, self._group.create_task(self._run(reply, previous, requested=requested is not None)))

    def _release_draft(self, turn: CommittedTurn, request: ReplyRequest, revision: int | None) -> bool:
        """Use the draft that answers the turn, if there is one and no other reply (an apology) is running.

        Return True if a draft is used. `revision` is the revision that the draft must answer (None for no draft), and
        `request` is the reply request in effect now, with which the draft must agree.
        """
        idle = self.current is None or self.current not in self._running
        terms, prompt = self._terms(request), partial(self._prompts.current, request)
        draft = self._drafts.answer(revision if idle else None, terms, prompt)
        if draft is None:
            return False
        draft.release(turn, self._services.clock())
        self.current = draft.reply
        self._launch(draft.reply, draft.task)
        return True

    def apologise(self, failures: StageFailures) -> None:
        """Start a reply that plays only the apology, if `failures` (the failing stages) last.

        Does nothing while a reply is running, and in a session without replies.
        """
        if self._context.config.transcribes_only:
            return
        if self.current is not None and self.current in self._running:
            return
        plan = self._plan(self._terms(self.default_request()), partial(_until_over, failures), failures, lambda: None)
        plan = replace(plan, answers=False)
        self.current = Reply(plan, self._context, Marks())
        self._launch(self.current, self._group.create_task(self._run(self.current, previous=None)))

    def last_reply(self) -> LastReply | None:
        """Return the conversation's newest reply for a snapshot; None if there is none, or it was interrupted."""
        reply = self.current
        if reply is None or not reply.plan.answers or reply.plan.terms.request.lead_in:
            if self._unanswered is None or not self._context.turn_rules.auto_reply:
                return None
            return LastReply()
        request = reply.plan.terms.request
        known = request.known
        default = self.default_request() == replace(request, known=None)
        # The message item opens with the first words, which may be long after the response.
        opened = reply.audio_ms or reply.plan.events.item_id in self._context.conversation
        return LastReply(
            request=None if default else request.to_json(),
            item_id=reply.plan.events.item_id if opened else None,
            progress=reply.progress(),
            ended=not reply.open,
            earlier=known.heard if known else "",
            earlier_items=known.items if known else (),
        )

    def cut(self, reason: str, interrupted_at: float | None) -> None:
        """Cancel the running replies of the conversation: stop their audio and their engine calls.

        Args:
            reason: The reason in `status_details` on the wire.
            interrupted_at: Monotonic time at which the interrupting speech arrived; None if it is not known.
        """
        late_s = None if interrupted_at is None else self._services.clock() - interrupted_at
        self.current = None
        for reply in self._speaking:
            stop_s = late_s if reply.stop_s is None else reply.stop_s
            if stop_s is not None and reply.response.phase is not ResponsePhase.UNSEEN:
                self._services.metrics.interrupted(stop_s)
            self._stop(reply, reason, stop_s)

    def pause(self, interrupted_at: float | None, *, dropped: bool = True) -> None:
        """Pause the audio of the running replies until `resume` or `cut`.

        Args:
            interrupted_at: Monotonic time at which the interrupting speech arrived; None if it is not known.
            dropped: True if the client is told to drop what it has not played. Otherwise it plays that.
        """
        now = self._services.clock()
        stop_s = 0.0 if interrupted_at is None else now - interrupted_at
        self._told, self._flush_until = dropped, now + FLUSH_S if dropped else -math.inf
        for reply in self._speaking:
            reply.pause(stop_s, dropped=dropped)

    def resume(self) -> None:
        """Continue the paused replies."""
        for reply in self._speaking:
            reply.resume()

    def truncated(self, item_id: str, at_s: float) -> None:
        """Stop the reply with this item, because the client stopped playing it `at_s` seconds into its audio.

        A client also truncates a reply when speech of the caller pauses it. Such a reply stays, and resumes from there.
        """
        self.recent.flushed(item_id, at_s)
        reply = self.current
        if reply is None or reply not in self._running or reply.plan.events.item_id != item_id:
            return
        answers_pause = (reply.stop_s is not None and self._told) or self._services.clock() < self._flush_until
        self._flush_until = -math.inf
        if not answers_pause:
            self._stop(reply, "client_cancelled")

    @property
    def _speaking(self) -> list[Reply]:
        """The running replies that are part of the conversation (not out of band)."""
        return [reply for reply in self._running if reply.plan.events.conversation_id is not None]

    @property
    def audible(self) -> bool:
        """True while a reply of the conversation is being heard."""
        return self.current is not None and self.current.audible

    def cancel(self, response_id: str | None) -> bool:
        """Cancel a reply because the client sent response.cancel, and close its response.

        Args:
            response_id: Id of the response; None for the current one.

        Returns:
            False if there is no such response, or it has ended.
        """
        for reply in list(self._running):
            named = reply is self.current if response_id is None else reply.plan.events.response_id == response_id
            if reply.open and named:
                reply.response.open()
                self._stop(reply, "client_cancelled")
                return True
        return False

    @property
    def out_of_band_count(self) -> int:
        """Number of open responses outside the conversation."""
        return sum(1 for reply in self._running if reply.open and reply.plan.events.conversation_id is None)

    def _stop(self, reply: Reply, reason: str, stop_s: float | None = None) -> None:
        reply.cut(reason, stop_s)
        self._running[reply].cancel()

    def _launch(self, reply: Reply, task: asyncio.Task[None]) -> None:
        self._running[reply] = task
        # A callback, because a task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _: self._ended(reply))
        self.recent.add(reply)

    async def _run(self, reply: Reply, previous: asyncio.Task[None] | None, *, requested: bool = False) -> None:
        with contained("reply", self._services.metrics, what=f"a reply of {self._context.id}") as body:
            if previous:
                await asyncio.wait({previous})
                reply.fillers.disable_filler()
                if requested:
                    reply.response.open()
            await reply.run()
        if body.broke:
            reply.abandon()

    def _ended(self, reply: Reply) -> None:
        del self._running[reply]
        if reply.plan.events.conversation_id is not None and reply.first_output_at is not None:
            self.last_ended_at = self._services.clock()
        self.summaries.prepare(self._context.conversation.messages())
        self._on_end(reply)

    # -- what a reply answers --------------------------------------------------------------------------------------

    def default_request(self) -> ReplyRequest:
        """Return the reply request of the session's configuration. A response.create may change single fields."""
        config = self._context.config
        settings = self._services.settings.conversation
        return ReplyRequest(
            spoken=config.output_modality == "audio",
            instructions=config.instructions or settings.instructions,
            max_tokens=config.token_limit(settings.max_reply_tokens),
            format=config.output_format,
            tools=self._context.offer(config),
        )

    def _terms(self, request: ReplyRequest) -> ReplyTerms:
        return ReplyTerms(request, request.voice or self._context.config.voice, self._context.config.speed)

    def _plan(
        self,
        terms: ReplyTerms,
        prompt: Callable[[], Awaitable[Prompt | None]],
        failures: StageFailures,
        answered_turn: Callable[[], CommittedTurn | None],
        *,
        end_of_turn: EndOfTurnRequest | None = None,
    ) -> ReplyPlan:
        """Return the plan of a reply with new wire ids.

        Args:
            terms: The request, the voice and the speed.
            prompt: Waits for the prompt and returns it; None if there is nothing to answer.
            failures: The stages that currently fail for the turn.
            answered_turn: Returns the turn that the reply answers. A function, because a draft gets its turn only after
                it has begun.
            end_of_turn: The request that transcribes the turn; None if the reply answers no turn.
        """
        request, stamp = terms.request, self._context.stamp
        events = server.ResponseEvents(
            response_id=stamp("resp"),
            item_id=stamp("item"),
            conversation_id=None if request.out_of_band else f"conv_{self._context.id}",
            spoken=request.spoken,
            metadata=request.metadata,
            voice=terms.voice,
            format=request.format,
        )

        def report_end(reply: Reply, status: ResponseStatus) -> Json:
            turn = answered_turn()
            if self._services.tracer and turn:
                self._services.tracer.turn(trace_of(self._context, turn, reply, status))
            return report(self._services, turn, reply, status)

        return ReplyPlan(
            events,
            terms=terms,
            prompt=prompt,
            report=report_end,
            failures=failures,
            degradation=self.degradation,
            cache_scope=CacheScope(self._context.tenant, request.tools.state),
            answered_turn=answered_turn,
            notice=lambda: self._prompts.language_notice(end_of_turn) if end_of_turn else "",
        )


async def _until_over(failures: StageFailures) -> None:
    """Wait until no stage fails any more, and return None, which means that there is nothing to answer.

    A reply that only apologises uses this function instead of a prompt: it ends when the failures end.
    """
    await failures.wait_until_over()
