"""Server events as dicts, in the shapes that openai-python's types and its peers' validators accept.

Audio in `delta` stays raw bytes here; the transport encodes it. `event_id` is stamped by `IdStamp` when an event
leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item

ResponseStatus = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]


class IdStamp:
    """Numbers the ids of one session, so that the core needs no randomness: `key` makes them unique."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._counts: dict[str, int] = {}

    def __call__(self, kind: str) -> str:
        """A fresh id such as item_k3J9_0001."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._key}_{count:04d}"


def session_event(kind: Literal["created", "updated"], session: Json) -> Json:
    return {"type": f"session.{kind}", "session": session}


def error(fault: CallerError, client_event_id: str | None) -> Json:
    """The error envelope; the session stays open."""
    body: Json = {"type": "invalid_request_error", "code": fault.code, "message": str(fault)}
    if fault.param:
        body["param"] = fault.param
    if client_event_id is not None:
        body["event_id"] = client_event_id
    return {"type": "error", "error": body}


def server_error(code: str, message: str, client_event_id: str | None = None) -> Json:
    """The envelope of an error that is ours."""
    body: Json = {"type": "server_error", "code": code, "message": message}
    if client_event_id is not None:
        body["event_id"] = client_event_id
    return {"type": "error", "error": body}


def speech_started(item_id: str, audio_start_ms: int) -> Json:
    return {"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": audio_start_ms}


def speech_stopped(item_id: str, audio_end_ms: int) -> Json:
    return {"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": audio_end_ms}


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Json:
    return {
        "type": "input_audio_buffer.timeout_triggered",
        "item_id": item_id,
        "audio_start_ms": audio_start_ms,
        "audio_end_ms": audio_end_ms,
    }


def committed(item_id: str, previous_id: str | None) -> Json:
    return {"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous_id}


def cleared() -> Json:
    return {"type": "input_audio_buffer.cleared"}


def item_event(kind: Literal["added", "done"], item: Item, previous_id: str | None) -> Json:
    return {
        "type": f"conversation.item.{kind}",
        "item": item.wire(reveal=not (item.spoken and item.role == "user")),
        "previous_item_id": previous_id,
    }


def retrieved(item: Item) -> Json:
    return {"type": "conversation.item.retrieved", "item": item.wire()}


def deleted(item_id: str) -> Json:
    return {"type": "conversation.item.deleted", "item_id": item_id}


def truncated(item_id: str, audio_end_ms: int) -> Json:
    return {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def transcription_completed(item_id: str, transcript: str, seconds: float) -> Json:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": transcript,
        "usage": {"type": "duration", "seconds": round(seconds, 3)},
    }


def transcription_failed(item_id: str, message: str) -> Json:
    return {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": item_id,
        "content_index": 0,
        "error": {"type": "server_error", "code": "transcription_failed", "message": message},
    }


@dataclass(frozen=True, slots=True)
class ResponseEvents:
    """The events of one response with one message item, audio (`spoken`) or text."""

    response_id: str
    item_id: str
    conversation_id: str | None
    spoken: bool
    metadata: Json | None = None
    voice: str = "default"
    format: AudioFormat = AudioFormat.PCM

    def created(self) -> Json:
        return {"type": "response.created", "response": self._response("in_progress", None)}

    def output_item(self, kind: Literal["added", "done"], item: Item) -> Json:
        return {
            "type": f"response.output_item.{kind}",
            "response_id": self.response_id,
            "output_index": 0,
            "item": item.wire(),
        }

    def part(self, kind: Literal["added", "done"], text: str) -> Json:
        part = {"type": "audio", "transcript": text} if self.spoken else {"type": "text", "text": text}
        return self._located(f"response.content_part.{kind}") | {"part": part}

    def text_delta(self, delta: str) -> Json:
        kind = "response.output_audio_transcript.delta" if self.spoken else "response.output_text.delta"
        return self._located(kind) | {"delta": delta}

    def audio_delta(self, audio: bytes) -> Json:
        """`audio` is in the response's format."""
        return self._located("response.output_audio.delta") | {"delta": audio}

    def content_done(self, text: str) -> list[Json]:
        """The `.done` events of the content, then of its part."""
        if self.spoken:
            done = [
                self._located("response.output_audio.done"),
                self._located("response.output_audio_transcript.done") | {"transcript": text},
            ]
        else:
            done = [self._located("response.output_text.done") | {"text": text}]
        return [*done, self.part("done", text)]

    def done(self, status: ResponseStatus, details: Json | None, item: Item | None, usage: Json | None) -> Json:
        response = self._response(status, details)
        response["output"] = [item.wire()] if item else []
        response["usage"] = usage
        return {"type": "response.done", "response": response}

    def _response(self, status: ResponseStatus, details: Json | None) -> Json:
        response: Json = {
            "id": self.response_id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [],
            "output_modalities": ["audio" if self.spoken else "text"],
            "metadata": self.metadata,
            "usage": None,
        }
        if self.conversation_id is not None:
            response["conversation_id"] = self.conversation_id
        if self.spoken:
            response["audio"] = {"output": {"format": self.format.wire(), "voice": self.voice}}
        return response

    def _located(self, kind: str) -> Json:
        return {
            "type": kind,
            "response_id": self.response_id,
            "item_id": self.item_id,
            "output_index": 0,
            "content_index": 0,
        }


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Json:
    """Response usage: the language model's tokens."""
    return {
        "total_tokens": prompt_tokens + completion_tokens,
        "input_tokens": prompt_tokens,
        "output_tokens": completion_tokens,
        "input_token_details": {"text_tokens": prompt_tokens, "audio_tokens": 0, "cached_tokens": cached_tokens},
        "output_token_details": {"text_tokens": completion_tokens, "audio_tokens": 0},
    }
