"""Client events: from one JSON message to a typed event, or a CallerError that names the field."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Any

from rejoinder.core.audio.pcm import SAMPLE_BYTES
from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Fields, Json, refuse

# Our own events nest six levels deep, a tool's JSON schema some more; far from Python's own limit.
MAX_DEPTH = 64
MAX_EVENT_ID = 512
# OpenAI's limit for one append (openai-realtime.md section 13), counted decoded.
MAX_APPEND_BYTES = 15 * 1024 * 1024
MAX_APPEND_CHARACTERS = MAX_APPEND_BYTES * 4 // 3 + 4

# What stands before and after the audio: either order of the fields, with and without json.dumps' spaces.
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
    """Base of all client events; `event_id` is the client's own, echoed in errors."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class UpdateSession(ClientEvent):
    session: Fields


@dataclass(frozen=True, slots=True)
class AppendAudio(ClientEvent):
    """`audio`: whole samples of the input format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class CommitAudio(ClientEvent):
    pass


@dataclass(frozen=True, slots=True)
class ClearAudio(ClientEvent):
    pass


@dataclass(frozen=True, slots=True)
class CreateItem(ClientEvent):
    item: Fields
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class DeleteItem(ClientEvent):
    item_id: str


@dataclass(frozen=True, slots=True)
class RetrieveItem(ClientEvent):
    item_id: str


@dataclass(frozen=True, slots=True)
class TruncateItem(ClientEvent):
    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class CreateResponse(ClientEvent):
    response: Fields


@dataclass(frozen=True, slots=True)
class CancelResponse(ClientEvent):
    response_id: str | None


@dataclass(eq=False)
class MalformedEvent(CallerError):
    """A client event we refuse; `client_event_id` is the client's own, when it could be read."""

    client_event_id: str | None = None


def parse(message: str | bytes, sample_bytes: int = SAMPLE_BYTES) -> ClientEvent:
    """One WebSocket message to one event; raises MalformedEvent, and nothing else. `sample_bytes`: of the input
    format.
    """
    appended = plain_append(message if isinstance(message, bytes) else message.encode(errors="replace"), sample_bytes)
    if appended is not None:
        return AppendAudio(None, appended)
    document: Any = None
    try:
        document = _document(message)
        return _parse(document, sample_bytes)
    except CallerError as error:
        event_id = document.get("event_id") if isinstance(document, dict) else None
        known = event_id[:MAX_EVENT_ID] if isinstance(event_id, str) else None
        raise MalformedEvent(error.message, error.remedy, error.code, error.param, client_event_id=known) from None


def plain_append(message: bytes, sample_bytes: int = SAMPLE_BYTES) -> bytes | None:
    """The audio of an append in one of the spellings that clients use, fifty times a second; None for all else, faults
    included.

    A spelling fixes every character but the base64, and strict base64 has no quote and no escape: so what is read here
    is what a JSON parser would read.
    """
    for head, tail in _APPEND_SPELLINGS:
        if message.startswith(head) and message.endswith(tail):
            size = len(message) - len(head) - len(tail)
            break
    else:
        return None
    if not 0 <= size <= MAX_APPEND_CHARACTERS:  # below 0 one quote would be both head's and tail's
        return None
    try:
        audio = binascii.a2b_base64(message[len(head) : len(head) + size], strict_mode=True)
    except ValueError:
        return None
    return None if len(audio) % sample_bytes else audio


def _document(message: str | bytes) -> Any:
    """The JSON in a message, safe to hold, to log and to send back: Unicode, finite numbers, and not too deep."""
    try:
        document = json.loads(message, parse_constant=_no_number)
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


def _check_scalar(value: object) -> None:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _not_json("The message holds half a surrogate pair.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _not_json("The message holds a number that is not finite.")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _not_json(message: str) -> CallerError:
    return refuse(message, "", code="invalid_json", remedy="Send one JSON object.")


def _parse(document: Json, sample_bytes: int) -> ClientEvent:
    fields = Fields(document, "")
    event_id = fields.text("event_id", limit=MAX_EVENT_ID) if fields.raw("event_id") is not None else None
    match fields.text("type", limit=128):
        case "session.update":
            return UpdateSession(event_id, _required_child(fields, "session"))
        case "input_audio_buffer.append":
            return AppendAudio(event_id, _audio(fields, sample_bytes))
        case "input_audio_buffer.commit":
            return CommitAudio(event_id)
        case "input_audio_buffer.clear":
            return ClearAudio(event_id)
        case "conversation.item.create":
            return CreateItem(event_id, _required_child(fields, "item"), fields.optional_text("previous_item_id"))
        case "conversation.item.delete":
            return DeleteItem(event_id, fields.text("item_id"))
        case "conversation.item.retrieve":
            return RetrieveItem(event_id, fields.text("item_id"))
        case "conversation.item.truncate":
            fields.whole("content_index", 0, 0, 0)
            return TruncateItem(event_id, fields.text("item_id"), fields.whole("audio_end_ms", 0, 2**31))
        case "response.create":
            wanted = fields.raw("response")
            return CreateResponse(event_id, Fields({} if wanted is None else wanted, "response"))
        case "response.cancel":
            return CancelResponse(event_id, fields.optional_text("response_id"))
        case "output_audio_buffer.clear":
            raise refuse(
                "output_audio_buffer.clear works over WebRTC and SIP only.",
                "type",
                code="unsupported_event",
                remedy="Over WebSocket, drop your own playback buffer and send conversation.item.truncate.",
            )
        case unknown:
            raise refuse(f"Unknown event type {unknown[:80]!r}.", "type", code="unknown_event_type")


def _required_child(fields: Fields, name: str) -> Fields:
    if name not in fields:
        raise refuse(f"{name} is required.", name, code="missing_required_parameter")
    return fields.child(name)


def _audio(fields: Fields, sample_bytes: int) -> bytes:
    encoded = fields.text("audio", limit=MAX_APPEND_CHARACTERS)
    try:
        audio = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("audio is not base64.", "audio", remedy="Encode the samples with standard base64.") from None
    if len(audio) % sample_bytes:
        raise refuse("audio holds half a sample.", "audio", remedy="Send 16-bit samples: an even number of bytes.")
    return audio
