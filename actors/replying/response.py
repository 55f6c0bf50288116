"""One response on the wire and its items in the conversation. It opens once and closes once. Then it sends nothing.

    UNSEEN ----- open ----> OPEN ---- close ----> CLOSED
       |                                            ^
       +------------------- close ------------------+   nothing was sent, so its end is not sent either

The message item is added with the first words or audio. Function calls are added as a whole, at once. A response that
ends with neither gets an empty message item, because clients expect one.

The order of the events is that of OpenAI's Realtime API
(https://platform.openai.com/docs/api-reference/realtime-server-events).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from actors.stages.ports import AudioOutput, LlmUsage
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import WireEncoder
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.server import ResponseEvents, ResponseStatus, deleted, truncated, usage


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

    @property
    def output(self) -> AudioOutput | None:
        """What plays the audio; None if the client does, which gets it in events."""
        ...


def claim_item_id(channel: ResponseChannel, item_id: str) -> None:
    """Delete the client's item with this id, if there is one, because the server is about to add an item with it."""
    if item_id in channel.conversation:
        channel.conversation.delete(item_id)
        channel.emit(deleted(item_id))


class Response:
    """One response: at most one message item, then function calls. It belongs to one reply. Not thread-safe.

    Attributes:
        events: Creates the wire events.
        phase: What the client has seen.
        calls: The function calls that were sent.
    """

    def __init__(self, events: ResponseEvents, channel: ResponseChannel) -> None:
        self.events = events
        self.phase = ResponsePhase.UNSEEN
        self._channel = channel
        self.calls: tuple[Item, ...] = ()
        self._words: list[str] = []
        self._has_message = False
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
        self._channel.emit(self.events.created())

    def open_message(self) -> None:
        """Send the start of the message item, unless it was sent. Opens the response if needed.

        The message item comes before all calls, so it must be opened before `call`, or not at all.
        """
        self.open()
        if self._has_message:
            return
        self._has_message = True
        events, emit = self.events, self._channel.emit
        item = Item(events.item_id, role="assistant", spoken=events.spoken, status="in_progress")
        claim_item_id(self._channel, item.id)
        emit(events.output_item("added", item))
        if events.conversation_id is not None:
            previous = self._channel.conversation.append(item)
            emit({"type": "conversation.item.added", "item": item.wire(), "previous_item_id": previous})
        emit(events.part("added", ""))

    def words(self, text: str) -> None:
        """Send the next words of the text, or of the audio's transcript. Opens the response if needed."""
        if self.ended or not text:
            return
        self.open_message()
        self._words.append(text)
        self._channel.emit(self.events.text_delta(text))

    def audio(self, pcm: bytes) -> None:
        """Send the next audio, given as 16-bit PCM at 24 kHz. Opens the response if needed."""
        if self.ended:
            return
        self.open_message()
        if self._channel.output:
            self._channel.output.play(self.events.response_id, pcm)
        elif audio := self._encode(pcm):
            self._channel.emit(self.events.audio_delta(audio))

    def call(self, calls: Sequence[Item]) -> None:
        """Send function calls. Opens the response if needed. Call this once, after all words of the text are known.

        Each call becomes an item of the conversation. Clients start their tool when they get its
        response.output_item.done. The item of a tool server's call is done when its result is there.
        """
        if self.ended or not calls:
            return
        self.open()
        self.calls = tuple(calls)
        events, emit = self.events, self._channel.emit
        for index, item in enumerate(calls, start=int(self._has_message)):
            begun = replace(item, status="in_progress", call=item.call | {"arguments": ""})
            emit(events.output_item("added", begun, index))
            previous = None
            if events.conversation_id is not None:
                claim_item_id(self._channel, item.id)
                previous = self._channel.conversation.append(item)
                emit({"type": "conversation.item.added", "item": begun.wire(), "previous_item_id": previous})
            for event in events.call_arguments(item, index):
                emit(event)
            if events.conversation_id is not None and item.type != "mcp_call":
                emit({"type": "conversation.item.done", "item": item.wire(), "previous_item_id": previous})
            emit(events.output_item("done", item, index))

    def stop_audio(self) -> int | None:
        """Drop the audio that the caller has not heard, and return the number of its samples (24 kHz).

        None if the client plays the audio: only it knows what was heard.
        """
        output = self._channel.output
        return output.stop(self.events.response_id) if output else None

    def tell_truncation(self, audio_end_ms: int) -> None:
        """Tell the client that it heard only the first `audio_end_ms` of the message, if the server played it."""
        item_id = self.events.item_id
        if self._channel.output and self.events.spoken and self._has_message and item_id in self._channel.conversation:
            self._channel.emit(truncated(item_id, audio_end_ms))

    def close(self, ending: ResponseEnd) -> None:
        """Send the end of the response, unless the client never saw it."""
        seen = self.phase is ResponsePhase.OPEN
        self.phase = ResponsePhase.CLOSED
        if not seen:
            return
        if not self._has_message and not self.calls:
            self.open_message()
        output = [*([self._close_message(ending)] if self._has_message else []), *self.calls]
        tokens = ending.usage or LlmUsage(0, 0)
        counts = usage(tokens.prompt_tokens, tokens.completion_tokens, tokens.cached_tokens)
        done = self.events.done(ending.status, ending.details, output, counts)
        self._channel.emit(done | ({"rejoinder": ending.report} if ending.report else {}))
        if self._channel.output:
            self._channel.output.end(self.events.response_id)

    def _close_message(self, ending: ResponseEnd) -> Item:
        """Send the end of the message item, and return the item."""
        events, emit = self.events, self._channel.emit
        for event in events.content_done("".join(self._words)):
            emit(event)
        item = self.update_item(ending.text, ending.audio_ms, complete=ending.status == "completed")
        if events.conversation_id is not None and item.id in self._channel.conversation:
            previous = self._channel.conversation.predecessor(item.id)
            emit({"type": "conversation.item.done", "item": item.wire(), "previous_item_id": previous})
        emit(events.output_item("done", item))
        return item

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
