"""Replies begun before their turn was taken, and what they assumed about the conversation.

A draft asks the model what the committed turn would have it asked. If that is no longer so when the turn is taken (the
client changed the instructions, or put an item into the conversation meanwhile), it is no answer to it. One that was
begun with a guess at the caller's words is begun again if the transcript has others.
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
    """Of one revision. `asked`: the prompt that the model was given; None before it was asked anything.

    `reply` and `task` are set as soon as both exist.
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
        """What the caller said, or "" once the turn was taken: then the conversation knows.

        That nothing was said is no reason to ask the model before the turn is taken.
        """
        transcript, transcribed_at = await self.end_of_turn.words()
        if self.turn is None and transcript:
            self._transcribed_at = transcribed_at
            return transcript
        await self._released.wait()
        return ""

    def answers(self, revision: int | None, terms: ReplyTerms, prompt: Callable[[str], Prompt]) -> bool:
        """Whether it answers a turn of this revision; `prompt` says what the model is to be asked by now."""
        if self.revision != revision or self.terms != terms or self.task.done():
            return False
        if self.sent_prompt is None:
            return True
        # Words that were only guessed, and that nobody has confirmed yet, are not answered.
        return self.end_of_turn.transcribed and not self.prompt_differs(prompt)

    def prompt_differs(self, prompt: Callable[[str], Prompt]) -> bool:
        """Whether the model was asked other words than the (known) transcript's, or behind another conversation.

        A guess may have ended with another mark.
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
        """Let it out, as the answer to `turn`."""
        self.turn = turn
        turn.held_reply(self.reply.ready_at, now)
        if self.sent_prompt is not None:
            turn.marks.end(Stage.STT, self._transcribed_at)
        self.reply.release(turn.marks)
        self._released.set()


class Drafts:
    """One session's; there is at most one draft, `speculation` and the session's `policy` say whether there may
    be one.
    """

    def __init__(self, budget: DraftBudget, metrics: Metrics, degradation: SessionDegradation) -> None:
        self._budget = budget
        self._degradation = degradation
        self._metrics = metrics
        self._draft: Draft | None = None
        self._of_this_turn = 0

    @property
    def drafting(self) -> bool:
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
        """Have a draft carried out, unless there may be none now; and once more, with the words of the transcript, if
        it began with others. `prompt` says what the model is to be asked when the caller said so.
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
        """The transcript is there. Whoever was misheard is answered anew: one bet still, which is paid already."""
        if draft is not self._draft or not draft.end_of_turn.transcribed or not draft.prompt_differs(prompt):
            return
        self._metrics.draft("renewed")
        draft.task.cancel()
        self._draft = Draft(draft.revision, draft.end_of_turn, draft.terms)
        carry_out(self._draft)

    def discard(self) -> None:
        """Stop the draft, if there is one: nothing of it was seen, nothing of it remains."""
        draft, self._draft = self._draft, None
        if draft:
            self._metrics.draft("discarded")
            if draft.reply.ready_at is not None:  # it had been synthesized: the gate alone kept it back
                self._metrics.draft("discarded_ready")
            draft.task.cancel()

    def answer(self, revision: int | None, terms: ReplyTerms, prompt: Callable[[str], Prompt]) -> Draft | None:
        """A turn is being answered: its draft, which is then the caller's to `take`, or None, and none is left."""
        self._of_this_turn = 0
        self._budget.answered()
        if self._draft is None or not self._draft.answers(revision, terms, prompt):
            self.discard()
            return None
        draft, self._draft = self._draft, None
        self._budget.kept()
        self._metrics.draft("kept")
        return draft
