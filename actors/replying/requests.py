"""What a reply is asked for: the client's or the session's order, and the turn that it answers."""

from __future__ import annotations

from dataclasses import dataclass

from actors.listening.end_of_turn import EndOfTurnRequest
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.turns.commands import CommitTurn
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """What a response.create asks beyond the session's own configuration; `prompt` replaces the conversation.

    `said`: the reply's words, if they are known (a greeting).
    """

    spoken: bool
    instructions: str
    max_tokens: int
    metadata: Json | None = None
    prompt: tuple[ChatMessage, ...] | None = None
    out_of_band: bool = False
    format: AudioFormat = AudioFormat.PCM
    text: str = ""


@dataclass(frozen=True, slots=True)
class CommittedTurn:
    """A committed turn: its item, what is being heard of it, its marks, and when its last speech arrived."""

    command: CommitTurn
    item: Item
    end_of_turn: EndOfTurnRequest
    marks: Marks
    speech_ended_at: float

    def waited_for_end(self, now: float) -> None:
        """A reply that starts with the commit waited for the verdict, or for the words if they decided."""
        decided_from = self.end_of_turn.transcribed_at if self.end_of_turn.decided_by_transcript else None
        self.marks.start(Stage.ENDPOINT, decided_from or self.end_of_turn.started_at)
        self.marks.end(Stage.ENDPOINT, now)

    def held_reply(self, ready_at: float | None, now: float) -> None:
        """A draft waited for it since its audio was ready; if that was not yet so, not at all."""
        if ready_at is not None:
            self.marks.start(Stage.ENDPOINT, ready_at)
            self.marks.end(Stage.ENDPOINT, now)


@dataclass(frozen=True, slots=True)
class ReplyTerms:
    """All that decides how a turn is answered, beside the conversation itself."""

    request: ReplyRequest
    voice: str
    speed: float
