"""Replies begun before their turn was taken, and what they assumed about the conversation.

A draft asks the model what the committed turn would have it asked. If that is no longer so when the turn is taken (the
client changed the instructions, or put an item into the conversation meanwhile), it is no answer to it. One that was
begun with a guess at the caller's words is begun again if the transcript has others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.reply import Reply
from actors.replying.requests import CommittedTurn, ReplyRequest
from actors.stages.degradation import SessionDegradation
from actors.stages.ports import Metrics
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.draft_budget import DraftBudget, DraftDeclined
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.turns.local_agreement import same_words

Prompt = tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class ReplyTerms:
    """All that decides how a turn is answered, beside the conversation itself."""

    order: ReplyRequest
    voice: str
    speed: float


class Draft:
    """Of one revision. `asked`: the prompt that the model was given; None before it was asked anything.

    `reply` and `task` are set as soon as both exist.
    """

    reply: Reply
    task: asyncio.Task[None]

    def __init__(self, revision: int, hearing: EndOfTurnRequest, terms: ReplyTerms) -> None:
        self.revision = revision
        self.hearing = hearing
        self.terms = terms
        self.turn: CommittedTurn | None = None
        self.asked: Prompt | None = None
        self._worded_at = 0.0
        self._taken = asyncio.Event()

    async def said(self) -> str:
        """What the caller said, or "" once the turn was taken: then the conversation knows.

        That nothing was said is no reason to ask the model before the turn is taken.
        """
        text, at = await self.hearing.words()
        if self.turn is None and text:
            self._worded_at = at
            return text
        await self._taken.wait()
        return ""

    def answers(self, revision: int | None, terms: ReplyTerms, prompt: Callable[[str], Prompt]) -> bool:
        """Whether it answers a turn of this revision; `prompt` says what the model is to be asked by now."""
        if self.revision != revision or self.terms != terms or self.task.done():
            return False
        if self.asked is None:
            return True
        # Words that were only guessed, and that nobody has confirmed yet, are not answered.
        return self.hearing.known and not self.misheard(prompt)

    def misheard(self, prompt: Callable[[str], Prompt]) -> bool:
        """Whether the model was asked other words than the (known) transcript's, or behind another conversation.

        A guess may have ended with another mark.
        """
        wanted = prompt(self.hearing.transcript.result().text)
        if self.asked is None or self.asked == wanted:
            return False
        if not wanted:
            return True
        (*asked, last), (*due, newest) = self.asked, wanted
        return asked != due or last.role != newest.role or not same_words(last.content, newest.content)

    def take(self, turn: CommittedTurn, now: float) -> None:
        """Let it out, as the answer to `turn`."""
        self.turn = turn
        turn.held_reply(self.reply.ready_at, now)
        if self.asked is not None:
            turn.marks.end(Stage.STT, self._worded_at)
        self.reply.release(turn.marks)
        self._taken.set()


class Drafts:
    """One session's; there is at most one draft, `speculation` and the session's `policy` say whether there may
    be one.
    """

    def __init__(self, speculation: DraftBudget, metrics: Metrics, policy: SessionDegradation) -> None:
        self._speculation = speculation
        self._policy = policy
        self._metrics = metrics
        self._draft: Draft | None = None
        self._of_this_turn = 0

    @property
    def drafting(self) -> bool:
        return self._draft is not None

    def begin(
        self,
        revision: int,
        hearing: EndOfTurnRequest,
        terms: ReplyTerms,
        prompt: Callable[[str], Prompt],
        *,
        carry_out: Callable[[Draft], None],
    ) -> None:
        """Have a draft carried out, unless there may be none now; and once more, with the words of the transcript, if
        it began with others. `prompt` says what the model is to be asked when the caller said so.
        """
        declined = self._speculation.begin(self._of_this_turn) if self._policy.speculates else DraftDeclined.DEGRADATION
        if declined:
            self._metrics.draft(f"declined_{declined.value}")
            return
        self._of_this_turn += 1
        self._metrics.draft("begun")
        self._draft = draft = Draft(revision, hearing, terms)
        carry_out(draft)
        hearing.transcript.add_done_callback(lambda _: self._confirm(draft, prompt, carry_out))

    def _confirm(self, draft: Draft, prompt: Callable[[str], Prompt], carry_out: Callable[[Draft], None]) -> None:
        """The transcript is there. Whoever was misheard is answered anew: one bet still, which is paid already."""
        if draft is not self._draft or not draft.hearing.known or not draft.misheard(prompt):
            return
        self._metrics.draft("renewed")
        draft.task.cancel()
        self._draft = Draft(draft.revision, draft.hearing, draft.terms)
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
        self._speculation.answered()
        if self._draft is None or not self._draft.answers(revision, terms, prompt):
            self.discard()
            return None
        draft, self._draft = self._draft, None
        self._speculation.kept()
        self._metrics.draft("kept")
        return draft
