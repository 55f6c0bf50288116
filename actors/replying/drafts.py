"""Speculative replies ("drafts"), which begin before the end of turn, and the conditions under which they are used.

A draft sends the language model the prompt that the committed turn would send. If that prompt has changed when the turn
is committed (new instructions, a new item), the draft does not answer the turn and is discarded. A draft that began
with an interim transcript is begun again if the final transcript has other words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.reply import Reply
from actors.replying.requests import CommittedTurn, ReplyTerms
from actors.stages.degradation import SessionDegradation
from actors.stages.ports import Metrics
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.draft_budget import DraftBudget, DraftDeclined
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.turns.local_agreement import same_words

Prompt = tuple[ChatMessage, ...]


class Draft:
    """Speculative reply to one revision (version) of the caller's utterance.

    `reply` and `task` are assigned right after construction, because both need the draft.

    Attributes:
        reply: The reply.
        task: Runs the reply. Cancelling the task stops the engines that work for the reply.
        revision: The revision that the draft answers.
        end_of_turn: The request that transcribes the revision.
        terms: The request, the voice and the speed of the reply.
        turn: The committed turn that the draft answers; None before `release`.
        sent_prompt: The prompt that was sent to the language model; None until then.
    """

    reply: Reply
    task: asyncio.Task[None]

    def __init__(self, revision: int, end_of_turn: EndOfTurnRequest, terms: ReplyTerms) -> None:
        self.revision = revision
        self.end_of_turn = end_of_turn
        self.terms = terms
        self.turn: CommittedTurn | None = None
        self.sent_prompt: Prompt | None = None
        self._transcribed_at = 0.0
        self._released = asyncio.Event()

    async def transcript(self) -> str:
        """Wait for the caller's words and return them; "" if the turn is committed by then.

        After the commit the conversation contains the words. If the transcript is empty, the call waits for `release`
        and returns "", so the language model does not start before the commit.
        """
        transcript, transcribed_at = await self.end_of_turn.words()
        if self.turn is None and transcript:
            self._transcribed_at = transcribed_at
            return transcript
        await self._released.wait()
        return ""

    def answers(self, revision: int | None, terms: ReplyTerms, prompt: Callable[[str], Prompt]) -> bool:
        """Return True if the draft answers a turn of `revision`.

        Args:
            revision: The revision of the committed turn; None matches no draft.
            terms: The terms in effect now.
            prompt: Returns the prompt for the conversation as it is now and these words of the caller.
        """
        if self.revision != revision or self.terms != terms or self.task.done():
            return False
        if self.sent_prompt is None:
            return True
        # The final transcript must confirm the words, because the draft may have begun with an interim transcript.
        return self.end_of_turn.transcribed and not self.prompt_differs(prompt)

    def prompt_differs(self, prompt: Callable[[str], Prompt]) -> bool:
        """Return True if the final transcript gives another prompt than the one that was sent to the language model.

        Call this only if the final transcript is available. The words of the caller are compared without case and
        punctuation, because an interim transcript may differ in them.
        """
        expected = prompt(self.end_of_turn.transcript.result().text)
        if self.sent_prompt is None or self.sent_prompt == expected:
            return False
        if not expected:
            return True
        (*sent_history, sent_last), (*expected_history, expected_last) = self.sent_prompt, expected
        if sent_history != expected_history or sent_last.role != expected_last.role:
            return True
        return not same_words(sent_last.content, expected_last.content)

    def release(self, turn: CommittedTurn, now: float) -> None:
        """Use the draft as the answer to `turn`, and start to send it. `now` is the monotonic time in seconds."""
        self.turn = turn
        turn.held_reply(self.reply.ready_at, now)
        if self.sent_prompt is not None:
            turn.marks.end(Stage.STT, self._transcribed_at)
        self.reply.release(turn.marks)
        self._released.set()


class Drafts:
    """The draft of one session; there is at most one.

    The host's budget of drafts and the session's degradation measures may prevent a draft.
    """

    def __init__(self, budget: DraftBudget, metrics: Metrics, degradation: SessionDegradation) -> None:
        self._budget = budget
        self._degradation = degradation
        self._metrics = metrics
        self._draft: Draft | None = None
        self._of_this_turn = 0

    @property
    def drafting(self) -> bool:
        """True while there is a draft."""
        return self._draft is not None

    def begin(
        self,
        revision: int,
        end_of_turn: EndOfTurnRequest,
        terms: ReplyTerms,
        prompt: Callable[[str], Prompt],
        *,
        carry_out: Callable[[Draft], None],
    ) -> None:
        """Begin a draft, if the budget and the degradation measures allow one.

        The draft is begun again if the final transcript has other words than its prompt.

        Args:
            revision: The revision to answer.
            end_of_turn: The request that transcribes the revision.
            terms: The request, the voice and the speed of the reply.
            prompt: Returns the prompt for the conversation as it is now and these words of the caller.
            carry_out: Called with a new draft; starts its reply and assigns `reply` and `task`.
        """
        declined = self._budget.begin(self._of_this_turn) if self._degradation.speculates else DraftDeclined.DEGRADATION
        if declined:
            self._metrics.draft(f"declined_{declined.value}")
            return
        self._of_this_turn += 1
        self._metrics.draft("begun")
        self._draft = draft = Draft(revision, end_of_turn, terms)
        carry_out(draft)
        end_of_turn.transcript.add_done_callback(lambda _: self._confirm(draft, prompt, carry_out))

    def _confirm(self, draft: Draft, prompt: Callable[[str], Prompt], carry_out: Callable[[Draft], None]) -> None:
        """Begin the draft again if the final transcript has other words than the draft's prompt.

        The budget of drafts is not charged again.

        Args:
            draft: The draft. Nothing happens if it is no longer the session's draft.
            prompt: Returns the prompt for the conversation as it is now and these words of the caller.
            carry_out: Called with the new draft; starts its reply and assigns `reply` and `task`.
        """
        if draft is not self._draft or not draft.end_of_turn.transcribed or not draft.prompt_differs(prompt):
            return
        self._metrics.draft("renewed")
        draft.task.cancel()
        self._draft = Draft(draft.revision, draft.end_of_turn, draft.terms)
        carry_out(self._draft)

    def discard(self) -> None:
        """Cancel the draft, if there is one. No part of it was sent."""
        draft, self._draft = self._draft, None
        if draft:
            self._metrics.draft("discarded")
            if draft.reply.ready_at is not None:  # the first audio was already synthesized, so this discard cost more
                self._metrics.draft("discarded_ready")
            draft.task.cancel()

    def answer(self, revision: int | None, terms: ReplyTerms, prompt: Callable[[str], Prompt]) -> Draft | None:
        """Return the draft if it answers a turn of `revision`. Otherwise discard it and return None.

        The caller must call `release` on the returned draft.

        Args:
            revision: The revision of the committed turn; None matches no draft.
            terms: The request, the voice and the speed in effect now.
            prompt: Returns the prompt for the conversation as it is now and these words of the caller.
        """
        self._of_this_turn = 0
        self._budget.answered()
        if self._draft is None or not self._draft.answers(revision, terms, prompt):
            self.discard()
            return None
        draft, self._draft = self._draft, None
        self._budget.kept()
        self._metrics.draft("kept")
        return draft
