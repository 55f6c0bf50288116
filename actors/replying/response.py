"""One response on the wire and its item in the conversation. It opens once and closes once. Then it sends nothing.

    UNSEEN ----- open ----> OPEN ---- close ----> CLOSED
       |                                            ^
       +------------------- close ------------------+   nothing was sent, so its end is not sent either

The order of the events is that of OpenAI's Realtime API
(https://platform.openai.com/docs/api-reference/realtime-server-events).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from actors.stages.ports import LlmUsage
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import WireEncoder
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.server import ResponseEvents, ResponseStatus, deleted, usage


class ResponsePhase(Enum):
    """What the client has seen of the response: nothing, its start, or its end."""

    UNSEEN = "unseen"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ResponseEnd:
    """How a response ends.

    Attributes:
        status: Status on the wire.
        details: `status_details` on the wire.
        text: The text that the conversation keeps.
        audio_ms: Length of the audio that was sent.
        usage: Token counts of the language model; None if they are not known.
        report: The `rejoinder` field of response.done, for Rejoinder's clients; None for no field.
    """

    status: ResponseStatus
    details: Json | None
    text: str
    audio_ms: int
    usage: LlmUsage | None = None
    report: Json | None = None


class ResponseChannel(Protocol):
    """What a response needs from its session. `SessionContext` implements it."""

    @property
    def conversation(self) -> Conversation:
        """The items of the conversation."""
        ...

    @property
    def emit(self) -> Callable[[Json], None]:
        """Function that sends a server event."""
        ...


def claim_item_id(channel: ResponseChannel, item_id: str) -> None:
    """Delete the client's item with this id, if there is one, because the server is about to add an item with it."""
    if item_id in channel.conversation:
        channel.conversation.delete(item_id)
        channel.emit(deleted(item_id))


class Response:
    """One response with one message item. It belongs to one reply. Not thread-safe."""

    def __init__(self, events: ResponseEvents, channel: ResponseChannel) -> None:
        self.events = events
        self.phase = ResponsePhase.UNSEEN
        self._channel = channel
        self._words: list[str] = []
        self._encode = WireEncoder(events.format)

    @property
    def ended(self) -> bool:
        """True once the response is closed."""
        return self.phase is ResponsePhase.CLOSED

    def open(self) -> None:
        """Send the start of the response, unless it is open or closed."""
        if self.phase is not ResponsePhase.UNSEEN:
            return
        self.phase = ResponsePhase.OPEN
        events, emit = self.events, self._channel.emit
        item = Item(events.item_id, role="assistant", spoken=events.spoken, status="in_progress")
        claim_item_id(self._channel, item.id)
        emit(events.created())
        emit(events.output_item("added", item))
        if events.conversation_id is not None:
            previous = self._channel.conversation.append(item)
            emit({"type": "conversation.item.added", "item": item.wire(), "previous_item_id": previous})
        emit(events.part("added", ""))

    def words(self, text: str) -> None:
        """Send the next words of the text, or of the audio's transcript. Opens the response if needed."""
        if self.ended or not text:
            return
        self.open()
        self._words.append(text)
        self._channel.emit(self.events.text_delta(text))

    def audio(self, pcm: bytes) -> None:
        """Send the next audio, given as 16-bit PCM at 24 kHz. Opens the response if needed."""
        if self.ended:
            return
        self.open()
        if audio := self._encode(pcm):
            self._channel.emit(self.events.audio_delta(audio))

    def close(self, ending: ResponseEnd) -> None:
        """Send the end of the response, unless the client never saw it."""
        seen = self.phase is ResponsePhase.OPEN
        self.phase = ResponsePhase.CLOSED
        if not seen:
            return
        events, emit = self.events, self._channel.emit
        for event in events.content_done("".join(self._words)):
            emit(event)
        item = self.update_item(ending.text, ending.audio_ms, complete=ending.status == "completed")
        if events.conversation_id is not None and item.id in self._channel.conversation:
            previous = self._channel.conversation.predecessor(item.id)
            emit({"type": "conversation.item.done", "item": item.wire(), "previous_item_id": previous})
        emit(events.output_item("done", item))
        tokens = ending.usage or LlmUsage(0, 0)
        counts = usage(tokens.prompt_tokens, tokens.completion_tokens, tokens.cached_tokens)
        done = events.done(ending.status, ending.details, item, counts)
        emit(done | ({"rejoinder": ending.report} if ending.report else {}))

    def update_item(self, text: str, audio_ms: int, *, complete: bool) -> Item:
        """Replace the response's item in the conversation, and return the new item. Also allowed after the end.

        Args:
            text: The text that the conversation keeps.
            audio_ms: Length of the audio that was sent, in ms.
            complete: True for the status "completed", False for "incomplete".
        """
        item = Item(
            self.events.item_id,
            role="assistant",
            spoken=self.events.spoken,
            text=text,
            audio_ms=audio_ms,
            status="completed" if complete else "incomplete",
        )
        self._channel.conversation.update(item)
        return item
