"""Client events: `parse` turns one JSON message into a typed event, or a CallerError that names the field."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Fields, Json, refuse

# Maximum depth of nested JSON. Realtime events nest six levels deep, and a tool's JSON schema a few more.
MAX_DEPTH = 64
MAX_EVENT_ID = 512
MAX_EVENT_BYTES = 262_144
"""Default of the maximum size of an event, without its audio."""
# Maximum number of values and keys in a message, estimated from its punctuation. Reading and checking 16,000 empty
# lists takes 3 ms, during which no other call of the host is served. 128 tools have some 5,000 values.
MAX_VALUES = 16_384
# A message up to this many characters cannot have too many values.
_FEW_VALUES = 4096
KEYS = tuple("0123456789*#ABCD")
"""Keys of a telephone."""
# OpenAI's limit for the decoded audio of one input_audio_buffer.append event: 15 MiB.
MAX_APPEND_BYTES = 15 * 1024 * 1024
MAX_APPEND_CHARACTERS = MAX_APPEND_BYTES * 4 // 3 + 4

# Pairs of the JSON text before and after the base64 audio, in the usual spellings of an append message: the fields in
# either order, with and without the spaces that json.dumps writes.
_APPEND_SPELLINGS = tuple(
    (head.encode(), tail.encode())
    for space in ("", " ")
    for head, tail in (
        (f'{{"type":{space}"input_audio_buffer.append",{space}"audio":{space}"', '"}'),
        (f'{{"audio":{space}"', f'",{space}"type":{space}"input_audio_buffer.append"}}'),
    )
)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """Base of all client events. `event_id` is the client's id of the event, which errors repeat. None if not sent."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class UpdateSession(ClientEvent):
    """session.update: change the fields of the session that are in `session`."""

    session: Fields


@dataclass(frozen=True, slots=True)
class AppendAudio(ClientEvent):
    """input_audio_buffer.append: add the bytes `audio`, in the session's input format, to the caller's audio.

    The bytes may end within a sample.
    """

    audio: bytes


@dataclass(frozen=True, slots=True)
class CommitAudio(ClientEvent):
    """input_audio_buffer.commit: end the turn now."""


@dataclass(frozen=True, slots=True)
class ClearAudio(ClientEvent):
    """input_audio_buffer.clear: discard the audio of the current turn."""


@dataclass(frozen=True, slots=True)
class CreateItem(ClientEvent):
    """conversation.item.create: add `item` after the item `previous_item_id`.

    "root" adds it at the beginning, and None at the end. `clip` is the item's audio without a transcript, in the
    session's input format; empty if it has none. The transport replaces it by 16-bit PCM at 16 kHz.
    """

    item: Fields
    previous_item_id: str | None
    clip: bytes = b""


@dataclass(frozen=True, slots=True)
class DeleteItem(ClientEvent):
    """conversation.item.delete: remove the item from the conversation."""

    item_id: str


@dataclass(frozen=True, slots=True)
class RetrieveItem(ClientEvent):
    """conversation.item.retrieve: send the item with this id to the client."""

    item_id: str


@dataclass(frozen=True, slots=True)
class TruncateItem(ClientEvent):
    """conversation.item.truncate: the caller heard only the first `audio_end_ms` milliseconds of an assistant item."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class CreateResponse(ClientEvent):
    """response.create: start a response. `response` contains options for this response only."""

    response: Fields


@dataclass(frozen=True, slots=True)
class CancelResponse(ClientEvent):
    """response.cancel: stop a response; the current one if `response_id` is None."""

    response_id: str | None


@dataclass(frozen=True, slots=True)
class ClearOutput(ClientEvent):
    """output_audio_buffer.clear: stop the reply that is being heard. Only if the server plays the audio (WebRTC)."""


@dataclass(frozen=True, slots=True)
class Ping(ClientEvent):
    """rejoinder.ping: the client asks for a sign of life, because a browser cannot send a ping of the WebSocket."""


@dataclass(frozen=True, slots=True)
class PressKey(ClientEvent):
    """rejoinder.dtmf: the caller has pressed the key `digit` of a telephone: 0 to 9, *, # or A to D."""

    digit: str


@dataclass(eq=False)
class MalformedEvent(CallerError):
    """Error for a client event that is refused.

    Attributes:
        client_event_id: The event's id; None if it was not readable.
        foreign: True if the message cannot be an event of this API: it is not a JSON object, or has no type.
    """

    client_event_id: str | None = None
    foreign: bool = False


def parse(message: str | bytes, max_bytes: int = MAX_EVENT_BYTES) -> ClientEvent:
    """Return the event in one WebSocket message.

    Args:
        message: JSON text or its UTF-8 bytes.
        max_bytes: Maximum size of the message without its audio.

    Raises:
        MalformedEvent: The message is not a valid event. No other error is raised.
    """
    encoded = message if isinstance(message, bytes) else message.encode(errors="replace")
    appended = plain_append(encoded)
    if appended is not None:
        return AppendAudio(None, appended)
    document: Any = None
    try:
        if len(encoded) > max_bytes:
            return _large_append(encoded, max_bytes)
        document = _document(message)
        return _parse(document)
    except CallerError as error:
        event_id = document.get("event_id") if isinstance(document, dict) else None
        client_id = event_id[:MAX_EVENT_ID] if isinstance(event_id, str) else None
        typed = isinstance(document, dict) and isinstance(document.get("type"), str)
        foreign = not typed and error.code not in ("message_too_large", "too_many_values")
        raise MalformedEvent(
            error.message, error.remedy, error.code, error.param, client_event_id=client_id, foreign=foreign
        ) from None


def plain_append(message: bytes) -> bytes | None:
    """Return the audio of an input_audio_buffer.append message without parsing its JSON.

    Return None if the message is invalid or not in one of the usual spellings (_APPEND_SPELLINGS). Such a message needs
    the full parser.

    This saves CPU time, because a client sends fifty such messages a second. A spelling fixes every character except
    the base64 text, which contains no quotes and no escapes. The result is therefore the same as that of a JSON parser.
    """
    for head, tail in _APPEND_SPELLINGS:
        if message.startswith(head) and message.endswith(tail):
            size = len(message) - len(head) - len(tail)
            break
    else:
        return None
    # The size is negative if the message is so short that head and tail overlap.
    if not 0 <= size <= MAX_APPEND_CHARACTERS:
        return None
    try:
        return binascii.a2b_base64(message[len(head) : len(head) + size], strict_mode=True)
    except ValueError:
        return None


# The beginning of the base64 text in an append message that is spelled in an unusual way.
_AUDIO_START = re.compile(rb'"audio"\s*:\s*"')


def _large_append(message: bytes, max_bytes: int) -> AppendAudio | CreateItem:
    """Return the event in a message of more than `max_bytes`, which only one with audio may have.

    It is an append message or an item with a recording. The audio is cut out before the rest is parsed as JSON, so the
    time does not depend on what the message contains.
    Raise CallerError if the rest is still too large, or is another event.
    """
    start = _AUDIO_START.search(message, 0, max_bytes)
    end = message.find(b'"', start.end()) if start else -1
    if start is None or end < 0 or len(message) - (end - start.end()) > max_bytes:
        raise _too_large(max_bytes)
    event = _parse(_document(message[: start.end()] + message[end:]))
    if isinstance(event, CreateItem):
        emptied = [part for part in _recordings(event.item) if part.get("audio") == ""]
        allowed = len(emptied) == 1 and not event.clip
    else:
        allowed = isinstance(event, AppendAudio) and not event.audio
    if not allowed:
        raise _too_large(max_bytes)
    # Some encoders of JSON write a slash as "\/".
    audio = message[start.end() : end].replace(b"\\/", b"/")
    if len(audio) > MAX_APPEND_CHARACTERS:
        raise refuse(f"audio is longer than {MAX_APPEND_CHARACTERS} characters.", "audio", remedy="Send it in parts.")
    if isinstance(event, CreateItem):
        return event if emptied[0].get("transcript") is not None else replace(event, clip=_decoded(audio))
    return AppendAudio(event.event_id, _decoded(audio))


def _too_large(max_bytes: int) -> CallerError:
    return refuse(
        f"The message has more than {max_bytes} bytes without its audio.",
        "",
        code="message_too_large",
        remedy="Send less at once, for example one item in each message.",
    )


def _document(message: str | bytes) -> Any:
    """Parse a message as JSON, and check that its content is safe to store, log and send back.

    Raise CallerError if the message is not JSON, contains half a surrogate pair or a number that is not finite, has
    more than MAX_VALUES values, or is nested deeper than MAX_DEPTH.
    """
    if len(message) > _FEW_VALUES and _values(message) > MAX_VALUES:
        raise refuse(
            f"The message has more than {MAX_VALUES} values.",
            "",
            code="too_many_values",
            remedy="Send less at once, for example one item in each message.",
        )
    try:
        document = json.loads(message, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _not_json("The message is not JSON.") from None
    layer, depth = [document], 0
    while layer:
        if depth > MAX_DEPTH:
            raise _not_json(f"The message is nested deeper than {MAX_DEPTH} levels.")
        inner: list[Any] = []
        for value in layer:
            _check_scalar(value)
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        layer, depth = inner, depth + 1
    return document


def _values(message: str | bytes) -> int:
    """Return an upper bound of the number of values and keys in a message. Punctuation within texts counts too."""
    if isinstance(message, bytes):
        return message.count(b",") + message.count(b":") + message.count(b"[") + message.count(b"{")
    return message.count(",") + message.count(":") + message.count("[") + message.count("{")


def _check_scalar(value: object) -> None:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _not_json("The message contains half a surrogate pair.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _not_json("The message contains a number that is not finite.")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _not_json(message: str) -> CallerError:
    return refuse(message, "", code="invalid_json", remedy="Send one JSON object.")


def _parse(document: Json) -> ClientEvent:
    fields = Fields(document, "")
    event_id = fields.text("event_id", limit=MAX_EVENT_ID) if fields.raw("event_id") is not None else None
    match fields.text("type", limit=128):
        case "session.update":
            return UpdateSession(event_id, _required_child(fields, "session"))
        case "input_audio_buffer.append":
            return AppendAudio(event_id, _audio(fields))
        case "input_audio_buffer.commit":
            return CommitAudio(event_id)
        case "input_audio_buffer.clear":
            return ClearAudio(event_id)
        case "conversation.item.create":
            item = _required_child(fields, "item")
            return CreateItem(event_id, item, fields.optional_text("previous_item_id"), _clip(item))
        case "conversation.item.delete":
            return DeleteItem(event_id, fields.text("item_id"))
        case "conversation.item.retrieve":
            return RetrieveItem(event_id, fields.text("item_id"))
        case "conversation.item.truncate":
            fields.whole("content_index", 0, 0, 0)
            return TruncateItem(event_id, fields.text("item_id"), fields.whole("audio_end_ms", 0, 2**31))
        case "response.create":
            options = fields.raw("response")
            return CreateResponse(event_id, Fields({} if options is None else options, "response"))
        case "response.cancel":
            return CancelResponse(event_id, fields.optional_text("response_id"))
        case "rejoinder.ping":
            return Ping(event_id)
        case "rejoinder.dtmf":
            return PressKey(event_id, fields.choice("digit", KEYS))
        case "output_audio_buffer.clear":
            return ClearOutput(event_id)
        case unknown:
            raise refuse(f"Unknown event type {unknown[:80]!r}.", "type", code="unknown_event_type")


def _required_child(fields: Fields, name: str) -> Fields:
    if name not in fields:
        raise refuse(f"{name} is required.", name, code="missing_required_parameter")
    return fields.child(name)


def _clip(item: Fields) -> bytes:
    """Return the audio of an item's parts that have no transcript, in their order."""
    heard = [part for part in _recordings(item) if part.get("transcript") is None and part.get("audio")]
    return b"".join(_audio(Fields(part, item.at("content"))) for part in heard)


def _recordings(item: Fields) -> list[Json]:
    """Return the content parts of type input_audio of an item."""
    content = item.raw("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == "input_audio"]


def _audio(fields: Fields) -> bytes:
    return _decoded(fields.text("audio", limit=MAX_APPEND_CHARACTERS))


def _decoded(encoded: str | bytes) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("audio is not base64.", "audio", remedy="Encode the samples with standard base64.") from None
