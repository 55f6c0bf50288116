"""Data about a reply: the request that it fulfils, the turn of the caller that it answers, and its terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from actors.listening.end_of_turn import EndOfTurnRequest
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import NO_TOOLS, FunctionTool, ToolOffer
from rejoinder.core.survival.resumption import KnownAnswer
from rejoinder.core.turns.commands import CommitTurn
from rejoinder.core.turns.local_agreement import NOTHING_STREAMED, StreamedText
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """Properties of one reply, as the session's configuration or a response.create requests them.

    Attributes:
        spoken: True for audio with a transcript; False for text.
        instructions: The system message of the prompt.
        max_tokens: Maximum number of tokens to generate.
        metadata: The client's metadata, returned with the response; None if there is none.
        prompt: Messages that replace the conversation in the prompt; None to use the conversation.
        out_of_band: True if the response is not part of the conversation (`conversation: "none"`).
        format: Audio format on the wire.
        text: The words of the reply, if they are known before (the greeting). Then the language model is not called.
        known: Beginning of the answer, if it was cut off and goes on; None otherwise.
        tools: The tools that the language model may call.
        lead_in: True for a phrase that is said while a tool runs. The client's next response.create waits for its end.
        voice: Name of the voice; "" for that of the session.
    """

    spoken: bool
    instructions: str
    max_tokens: int
    metadata: Json | None = None
    prompt: tuple[ChatMessage, ...] | None = None
    out_of_band: bool = False
    format: AudioFormat = AudioFormat.PCM
    text: str = ""
    known: KnownAnswer | None = None
    tools: ToolOffer = NO_TOOLS
    lead_in: bool = False
    voice: str = ""

    def to_json(self) -> Json:
        """Return the request as JSON values, without `known`, for a snapshot of the session."""
        values: Json = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "known"}
        prompt = self.prompt and [message.plain() for message in self.prompt]
        return values | {"format": self.format.value, "prompt": prompt, "tools": asdict(self.tools)}

    @classmethod
    def from_json(cls, values: Json) -> ReplyRequest:
        """Return the request that `to_json` has encoded."""
        prompt, offer = values["prompt"], values["tools"]
        messages = None if prompt is None else tuple(ChatMessage.from_plain(message) for message in prompt)
        tools = ToolOffer(**(offer | {"tools": tuple(FunctionTool(**tool) for tool in offer["tools"])}))
        return cls(**(values | {"format": AudioFormat(values["format"]), "prompt": messages, "tools": tools}))


@dataclass(frozen=True, slots=True)
class SpokenItem:
    """An item of the conversation whose words are being transcribed.

    Attributes:
        item: The item. Its text is added when the transcript is available.
        end_of_turn: The request that transcribes it.
        streamed: The words that the client has got before the transcript.
    """

    item: Item
    end_of_turn: EndOfTurnRequest
    streamed: StreamedText = NOTHING_STREAMED


@dataclass(frozen=True, slots=True)
class CommittedTurn:
    """A turn of the caller that is part of the conversation.

    Attributes:
        command: The command of the turn machine that committed the turn.
        item: The turn's item in the conversation. Its text is added when the transcript is available.
        end_of_turn: The request that transcribes the turn.
        marks: Stage times of the turn and its reply.
        speech_ended_at: When the caller's last speech arrived (monotonic).
        streamed: The words of the turn that the client has got before its transcript.
    """

    command: CommitTurn
    item: Item
    end_of_turn: EndOfTurnRequest
    marks: Marks
    speech_ended_at: float
    streamed: StreamedText = NOTHING_STREAMED

    @property
    def spoken(self) -> SpokenItem:
        """The turn's item and its transcription."""
        return SpokenItem(self.item, self.end_of_turn, self.streamed)

    def waited_for_end(self, now: float) -> None:
        """Record the wait for the end-of-turn decision as Stage.ENDPOINT. It ends at `now`, when the reply starts.

        It begins with the transcript if the verdict waited for the words, otherwise with the tentative end of speech.
        `now` is in monotonic seconds.
        """
        verdict = self.end_of_turn.verdict
        decided_from = self.end_of_turn.transcribed_at if verdict is not None and verdict.has_words else None
        self.marks.start(Stage.ENDPOINT, decided_from or self.end_of_turn.started_at)
        self.marks.end(Stage.ENDPOINT, now)

    def held_reply(self, ready_at: float | None, now: float) -> None:
        """Record as Stage.ENDPOINT how long a speculative reply was ready before the commit.

        Args:
            ready_at: Monotonic time at which its first audio was ready; None if it is not ready. Then nothing is
                recorded.
            now: Monotonic time of the commit.
        """
        if ready_at is not None:
            self.marks.start(Stage.ENDPOINT, ready_at)
            self.marks.end(Stage.ENDPOINT, now)


@dataclass(frozen=True, slots=True)
class ReplyTerms:
    """Everything that decides how a turn is answered, except the conversation: request, voice and speed.

    Two replies to the same conversation with equal terms are interchangeable.
    """

    request: ReplyRequest
    voice: str
    speed: float
