"""Messages of Twilio Media Streams (https://www.twilio.com/docs/voice/media-streams/websocket-messages).

Every message is a JSON object in a text frame, whose field `event` names its kind. Audio is mu-law at 8 kHz in base64,
usually 160 bytes (20 ms).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.client import KEYS
from rejoinder.core.wire.fields import Fields, Json, refuse

MAX_BYTES = 65_536
"""Maximum size of a message in bytes. Those of Twilio have about 300."""
MAX_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class StreamConnected:
    """First message: Twilio has connected."""


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """Second message: which call it is.

    Attributes:
        stream: Id of the stream, which all messages to Twilio repeat.
        call: Id of the call (`CallSid`). A call that connects again has a new stream.
        parameters: The parameters of the TwiML verb `<Stream>`.
    """

    stream: str
    call: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallerMedia:
    """The caller's next audio, mu-law at 8 kHz."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class MarkReturned:
    """A mark that comes back: the audio before it was played, or dropped by `clear`."""

    mark: str


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """The caller has pressed a key."""

    digit: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """Last message: the call or its stream has ended."""


StreamMessage = StreamConnected | StreamStarted | CallerMedia | MarkReturned | KeyPressed | StreamStopped


def read_message(text: str | bytes) -> StreamMessage | None:
    """Return a message of Twilio; None for a kind that is not known.

    Raises:
        CallerError: The message is malformed. The error names the field.
    """
    if len(text) > MAX_BYTES:
        raise refuse(f"The message has more than {MAX_BYTES} bytes.", "", code="message_too_large")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise refuse("The message is not JSON.", "", code="invalid_json", remedy="Send one JSON object.") from None
    fields = Fields(document, "")
    match fields.text("event", limit=64):
        case "media":
            return _media(fields.child("media"))
        case "mark":
            return MarkReturned(fields.child("mark").text("name", limit=256))
        case "dtmf":
            return KeyPressed(fields.child("dtmf").choice("digit", KEYS))
        case "connected":
            return StreamConnected()
        case "start":
            return _start(fields.child("start"))
        case "stop":
            return StreamStopped()
        case _:
            return None


def _media(media: Fields) -> CallerMedia | None:
    # With <Connect><Stream> Twilio sends the caller's track only. A stream of both would contain the agent, too.
    if media.raw("track") not in (None, "inbound"):
        return None
    try:
        return CallerMedia(binascii.a2b_base64(media.text("payload", limit=MAX_BYTES), strict_mode=True))
    except ValueError:
        raise refuse("media.payload is not base64.", "media.payload") from None


def _start(start: Fields) -> StreamStarted:
    encoding = start.child("mediaFormat")
    encoding.choice("encoding", ("audio/x-mulaw",), "audio/x-mulaw")
    encoding.number("sampleRate", 8000, 8000, 8000)
    sent = start.child("customParameters")
    if len(sent.keys()) > MAX_PARAMETERS:
        raise refuse(f"There are more than {MAX_PARAMETERS} parameters.", "start.customParameters")
    parameters = {name: sent.text(name, limit=2048) for name in sorted(sent.keys())}
    return StreamStarted(start.text("streamSid", limit=64), start.text("callSid", limit=64), parameters)


def media_message(stream: str, audio: bytes) -> str:
    """Return the message that lets Twilio play mu-law audio."""
    return _message("media", stream, {"media": {"payload": base64.b64encode(audio).decode()}})


def mark_message(stream: str, mark: str) -> str:
    """Return the message with a mark, which Twilio returns when it has played all audio before it."""
    return _message("mark", stream, {"mark": {"name": mark}})


def clear_message(stream: str) -> str:
    """Return the message that lets Twilio drop the audio that it has not played. It then returns all marks."""
    return _message("clear", stream, {})


def _message(event: str, stream: str, body: Json) -> str:
    return json.dumps({"event": event, "streamSid": stream, **body}, separators=(",", ":"))


def first_start(message: StreamMessage | None) -> StreamStarted | None:
    """Return the message that starts a stream; None for the message before it.

    Raises:
        CallerError: The message is another one: the stream does not begin as it must.
    """
    if isinstance(message, StreamStarted):
        return message
    if isinstance(message, StreamConnected):
        return None
    raise CallerError("The stream does not begin with `connected` and `start`.", code="invalid_value")
