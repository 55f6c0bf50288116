"""What a reply is asked for: the client's or the session's request, and the turn that it answers."""

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
    """What a response.create, or the session's configuration, asks a reply to be.

    Attributes:
        spoken: Audio with a transcript; otherwise text.
        instructions: The system message.
        max_tokens: Most tokens to generate.
        metadata: The client's metadata, returned with the response.
        prompt: Replaces the conversation; None uses the conversation.
        out_of_band: The response is not part of the conversation (`conversation: "none"`).
        format: Audio format on the wire.
        text: The words of the reply, if they are known (the greeting). The language model is not asked then.
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
    """A turn of the caller that is part of the conversation.

    Attributes:
        command: The turn machine's command that committed it.
        item: Its item in the conversation; the text follows with the transcript.
        end_of_turn: The request that transcribes it.
        marks: Stage times of the turn and its reply.
        speech_ended_at: When the caller's last speech arrived (monotonic).
    """

    command: CommitTurn
    item: Item
    end_of_turn: EndOfTurnRequest
    marks: Marks
    speech_ended_at: float

    def waited_for_end(self, now: float) -> None:
        """Record that the reply starts now, at the commit: until then it waited for the end-of-turn decision.

        The wait counts from the transcript if the transcript decided, otherwise from the tentative end of speech.
        """
        decided_from = self.end_of_turn.transcribed_at if self.end_of_turn.decided_by_transcript else None
        self.marks.start(Stage.ENDPOINT, decided_from or self.end_of_turn.started_at)
        self.marks.end(Stage.ENDPOINT, now)

    def held_reply(self, ready_at: float | None, now: float) -> None:
        """Record how long a speculative reply was ready before the commit; nothing if it was not ready (None)."""
        if ready_at is not None:
            self.marks.start(Stage.ENDPOINT, ready_at)
            self.marks.end(Stage.ENDPOINT, now)


@dataclass(frozen=True, slots=True)
class ReplyTerms:
    """Everything besides the conversation that decides how a turn is answered. Equal terms give the same reply."""

    request: ReplyRequest
    voice: str
    speed: float
