"""Requests to speak a text (`POST /v1/audio/speech`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from rejoinder.core.http_api.parameters import check_names
from rejoinder.core.wire.fields import Fields, Json, refuse

SpeechFormat = Literal["pcm", "wav", "flac", "opus", "mp3"]
MEDIA_TYPES: dict[SpeechFormat, str] = {
    "pcm": "audio/pcm",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
}
"""Media type of each format, for the header Content-Type."""

DEFAULT_FORMAT: SpeechFormat = "mp3"
SLOWEST, FASTEST = 0.25, 4.0
"""Range of `speed`, as OpenAI's."""

HONOURED = frozenset({"input", "voice", "speed", "response_format", "stream_format"})
IGNORED = frozenset({"model", "instructions", "user"})
"""Parameters that change nothing: there is one voice model, and it takes no instructions about its manner."""


@dataclass(frozen=True, slots=True)
class SpeechOrder:
    """A text to speak.

    Attributes:
        text: The written text.
        voice: Name of the voice.
        speed: Speaking rate relative to the voice's own, 0.25 to 4.
        encoding: Format of the audio.
        events: True to send the audio as server-sent events.
    """

    text: str
    voice: str
    speed: float
    encoding: SpeechFormat
    events: bool

    @classmethod
    def parse(cls, body: Fields, most_characters: int) -> SpeechOrder:
        """Return the order in the JSON body of a request. Raise CallerError if a parameter is invalid.

        Args:
            body: The body.
            most_characters: Maximum number of characters of the text.
        """
        check_names(body, HONOURED, IGNORED, {})
        text = body.text("input", limit=most_characters)
        if not text.strip():
            raise refuse("input is empty.", "input", remedy="Send the text to speak.")
        given = body.raw("voice")
        voice = body.child("voice").text("id", limit=128) if isinstance(given, dict) else body.text("voice", "default")
        encoding = body.choice("response_format", tuple(MEDIA_TYPES), DEFAULT_FORMAT)
        return cls(
            text,
            voice,
            body.number("speed", SLOWEST, FASTEST, 1.0),
            encoding=cast(SpeechFormat, encoding),
            events=body.choice("stream_format", ("audio", "sse"), "audio") == "sse",
        )


def done_event(characters: int, seconds: float) -> Json:
    """Return the last event of speech that is sent as events.

    The voice has no tokens: the usage counts characters of the text and tenths of a second of audio.
    """
    spoken, heard = characters, round(seconds * 10)
    usage = {"input_tokens": spoken, "output_tokens": heard, "total_tokens": spoken + heard}
    return {"type": "speech.audio.done", "usage": usage}
