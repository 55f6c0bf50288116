"""Server events as dicts, in the shapes that the validators of openai-python and other clients accept.

A function is named after the event that it returns. In audio events, `delta` is raw bytes, which the transport encodes.
The session adds `event_id` when it sends an event. Positions in milliseconds count from the start of the session's
input audio, unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item

ResponseStatus = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]


class IdStamp:
    """Generator of ids in one session, from counters. The session's `key` makes the ids unique among all sessions."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._counts: dict[str, int] = {}

    def __call__(self, kind: str) -> str:
        """Return a new id of this kind, for example item_k3J9_0001."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._key}_{count:04d}"


def session_event(kind: Literal["created", "updated"], session: Json) -> Json:
    """Return session.created or session.updated, which send the whole configuration of the session to the client."""
    return {"type": f"session.{kind}", "session": session}


def resume_offer(token: str, expires_at: int) -> Json:
    """Return the part of session.created with which the client can resume the session after its connection broke.

    Args:
        token: The resume token.
        expires_at: Unix time in seconds at which it expires.
    """
    return {"rejoinder": {"resume_token": token, "resume_expires_at": expires_at}}


def resumed(
    items: Sequence[Item], audio_after: str | None, kind: str | None, continues: str | None, *, heard: str | None
) -> Json:
    """Return rejoinder.session.resumed, which tells the client what the host knows of the conversation.

    Args:
        items: The items of the conversation.
        audio_after: Id of the last item that came from the caller's audio. The client sends the audio after it again.
        kind: "continued" if an answer goes on, "answered" if a question is answered, None if nothing is said.
        continues: Id of the item whose answer goes on; None if none does.
        heard: The words of this answer that the caller has heard, as the conversation has them; None if none goes on.
    """
    return {
        "type": "rejoinder.session.resumed",
        "items": len(items),
        "last_item_id": items[-1].id if items else None,
        "audio_after_item_id": audio_after,
        "response": {"kind": kind, "continues_item_id": continues} if kind else None,
        "heard_transcript": heard,
    }


def move(reason: str) -> Json:
    """Return rejoinder.session.move, which asks the client to connect again with its resume token."""
    return {"type": "rejoinder.session.move", "reason": reason}


def pong() -> Json:
    """Return rejoinder.pong, the answer to rejoinder.ping: the session is alive."""
    return {"type": "rejoinder.pong"}


def error(fault: CallerError, client_event_id: str | None) -> Json:
    """Return an error event for invalid input of the client; the session stays open.

    Args:
        fault: What is wrong with the input.
        client_event_id: `event_id` of the client's invalid event; None if it had none.
    """
    body: Json = {"type": "invalid_request_error", "code": fault.code, "message": str(fault)}
    if fault.param:
        body["param"] = fault.param
    if client_event_id is not None:
        body["event_id"] = client_event_id
    return {"type": "error", "error": body}


def server_error(code: str, message: str, client_event_id: str | None = None) -> Json:
    """Return an error event for a failure of the server. It does not close the session by itself.

    Args:
        code: Short name of the failure, `code` of the OpenAI Realtime error.
        message: Text for the client's developer.
        client_event_id: `event_id` of the client's event that failed; None if there was none.
    """
    body: Json = {"type": "server_error", "code": code, "message": message}
    if client_event_id is not None:
        body["event_id"] = client_event_id
    return {"type": "error", "error": body}


def speech_started(item_id: str, audio_start_ms: int) -> Json:
    """Return input_audio_buffer.speech_started: the caller has started to speak.

    `item_id` is the id of the item that the turn will become.
    """
    return {"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": audio_start_ms}


def speech_stopped(item_id: str, audio_end_ms: int) -> Json:
    """Return input_audio_buffer.speech_stopped: the caller has stopped speaking.

    `item_id` is the id of the item that the turn will become.
    """
    return {"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": audio_end_ms}


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Json:
    """Return input_audio_buffer.timeout_triggered: the caller was silent for the idle timeout.

    Args:
        item_id: Id of the item that the silence becomes.
        audio_start_ms: Start of the silence, in milliseconds of input audio.
        audio_end_ms: End of the silence, in milliseconds of input audio.
    """
    return {
        "type": "input_audio_buffer.timeout_triggered",
        "item_id": item_id,
        "audio_start_ms": audio_start_ms,
        "audio_end_ms": audio_end_ms,
    }


def committed(item_id: str, previous_id: str | None) -> Json:
    """Return input_audio_buffer.committed: the turn has ended and becomes the item `item_id`.

    `previous_id` is the id of the item before this item; None if it is the first.
    """
    return {"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous_id}


def cleared() -> Json:
    """Return input_audio_buffer.cleared: the audio that was not committed is discarded."""
    return {"type": "input_audio_buffer.cleared"}


def dtmf_received(key: str, received_at: int) -> Json:
    """Return input_audio_buffer.dtmf_event_received: the caller has pressed a key of the telephone.

    `received_at` is the Unix time in seconds.
    """
    return {"type": "input_audio_buffer.dtmf_event_received", "event": key, "received_at": received_at}


def item_event(
    kind: Literal["added", "done"], item: Item, previous_id: str | None, *, from_client: bool = False
) -> Json:
    """Return conversation.item.added or conversation.item.done.

    Args:
        kind: Which of the two.
        item: The item. A turn of the caller is sent without its transcript, which follows in an event of its own.
        previous_id: Id of the item before this item; None if it is the first.
        from_client: True for an item that the client has made: a transcript that it gave is sent back.
    """
    return {
        "type": f"conversation.item.{kind}",
        "item": item.wire(reveal=from_client or not (item.spoken and item.role == "user")),
        "previous_item_id": previous_id,
    }


def retrieved(item: Item) -> Json:
    """Return conversation.item.retrieved, the answer to conversation.item.retrieve, with the whole item."""
    return {"type": "conversation.item.retrieved", "item": item.wire()}


def deleted(item_id: str) -> Json:
    """Return conversation.item.deleted: the client's request to delete the item was carried out."""
    return {"type": "conversation.item.deleted", "item_id": item_id}


def truncated(item_id: str, audio_end_ms: int) -> Json:
    """Return conversation.item.truncated: an assistant item was reduced to the part that the caller heard.

    `audio_end_ms` is the length of this part, in milliseconds from the start of the item's audio.
    """
    return {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def output_audio_buffer(change: Literal["started", "stopped", "cleared"], response_id: str) -> Json:
    """Return the event that tells that the server began to play a response's audio, played all of it, or dropped it.

    Only where the server plays the audio in real time (WebRTC).
    """
    return {"type": f"output_audio_buffer.{change}", "response_id": response_id}


def transcription_delta(item_id: str, delta: str) -> Json:
    """Return the event that sends the next words of a turn before its final transcript.

    `delta` begins with a space unless it is the first of the turn. The words are not taken back.
    """
    return {
        "type": "conversation.item.input_audio_transcription.delta",
        "item_id": item_id,
        "content_index": 0,
        "delta": delta,
    }


def transcription_segment(item_id: str, segment_id: str, text: str, *, start_s: float, end_s: float) -> Json:
    """Return the event with one sentence of a turn, and when it was spoken.

    Args:
        item_id: Id of the turn's item.
        segment_id: Id of the segment.
        text: The words.
        start_s: Seconds from the start of the turn's audio to the start of the words.
        end_s: Seconds from there to their end.
    """
    return {
        "type": "conversation.item.input_audio_transcription.segment",
        "item_id": item_id,
        "content_index": 0,
        "id": segment_id,
        "text": text,
        "speaker": "caller",
        "start": round(start_s, 3),
        "end": round(end_s, 3),
    }


def transcription_completed(
    item_id: str, transcript: str, seconds: float, *, language: str = "", words: Sequence[tuple[str, float, float]] = ()
) -> Json:
    """Return the event that sends the final transcript of a turn.

    Args:
        item_id: Id of the turn's item.
        transcript: The words.
        seconds: Length of the turn's audio.
        language: Code of the language of the words if it is not the configured one; "" otherwise.
        words: Each word with the seconds from the start of the turn's audio to its start and its end, for the field
            `rejoinder.words`. Empty to leave the field out.
    """
    event: Json = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": transcript,
        "usage": {"type": "duration", "seconds": round(seconds, 3)},
    }
    timed = [{"word": word, "start": round(start_s, 3), "end": round(end_s, 3)} for word, start_s, end_s in words]
    more = ({"language": language} if language else {}) | ({"words": timed} if timed else {})
    return event | ({"rejoinder": more} if more else {})


def transcription_failed(item_id: str, message: str) -> Json:
    """Return the event that reports that a turn could not be transcribed. `message` says why."""
    return {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": item_id,
        "content_index": 0,
        "error": {"type": "server_error", "code": "transcription_failed", "message": message},
    }


def mcp_list_tools(kind: Literal["in_progress", "completed", "failed"], item_id: str) -> Json:
    """Return the event about the list of an MCP server's tools, which becomes the item `item_id`."""
    return {"type": f"mcp_list_tools.{kind}", "item_id": item_id}


def mcp_call(kind: Literal["in_progress", "completed", "failed"], item: Item, output_index: int = 0) -> Json:
    """Return the event about a call of a tool server. `output_index` is its position in the output of its response."""
    return {"type": f"response.mcp_call.{kind}", "item_id": item.id, "output_index": output_index}


@dataclass(frozen=True, slots=True)
class ResponseEvents:
    """Builder of the server events of one response. Its output is at most one message item, then calls.

    Attributes:
        response_id: Id of the response.
        item_id: Id of the message item.
        conversation_id: Id of the conversation; None for a response outside the conversation.
        spoken: True if the response is audio with a transcript, False if it is text.
        metadata: The client's metadata, repeated in the events.
        voice: Name of the voice, repeated in the events.
        format: Format of the audio.
    """

    response_id: str
    item_id: str
    conversation_id: str | None
    spoken: bool
    metadata: Json | None = None
    voice: str = "default"
    format: AudioFormat = AudioFormat.PCM

    def created(self) -> Json:
        """Return response.created: the response has started."""
        return {"type": "response.created", "response": self._response("in_progress", None)}

    def output_item(self, kind: Literal["added", "done"], item: Item, output_index: int = 0) -> Json:
        """Return response.output_item.added or response.output_item.done, with an item of the response.

        `output_index` is the item's position in the output: 0 for the message item.
        """
        return {
            "type": f"response.output_item.{kind}",
            "response_id": self.response_id,
            "output_index": output_index,
            "item": item.wire(),
        }

    def call_arguments(self, item: Item, output_index: int) -> list[Json]:
        """Return the events that send the arguments of a call: one delta with all of them, and done.

        A call of a tool server has events of its own, and then begins.
        """
        base = {
            "response_id": self.response_id,
            "item_id": item.id,
            "output_index": output_index,
        }
        arguments, name = item.call["arguments"], item.call["name"]
        if item.type == "mcp_call":
            return [
                {"type": "response.mcp_call_arguments.delta", **base, "delta": arguments},
                {"type": "response.mcp_call_arguments.done", **base, "arguments": arguments},
                mcp_call("in_progress", item, output_index),
            ]
        base["call_id"] = item.call["call_id"]
        return [
            {"type": "response.function_call_arguments.delta", **base, "delta": arguments},
            {"type": "response.function_call_arguments.done", **base, "arguments": arguments, "name": name},
        ]

    def part(self, kind: Literal["added", "done"], text: str) -> Json:
        """Return response.content_part.added or response.content_part.done.

        `text` is the text or transcript so far, which is "" for added.
        """
        part = {"type": "audio", "transcript": text} if self.spoken else {"type": "text", "text": text}
        return self._located(f"response.content_part.{kind}") | {"part": part}

    def text_delta(self, delta: str) -> Json:
        """Return the event with the next piece of text, or of the transcript if the response is spoken."""
        kind = "response.output_audio_transcript.delta" if self.spoken else "response.output_text.delta"
        return self._located(kind) | {"delta": delta}

    def audio_delta(self, audio: bytes) -> Json:
        """Return the event with the next piece of audio, in the format of the response."""
        return self._located("response.output_audio.delta") | {"delta": audio}

    def content_done(self, text: str) -> list[Json]:
        """Return the events that end the content, in the order to send them.

        These are the done events of the audio and its transcript, or of the text, and then of the content part. `text`
        is the whole text or transcript.
        """
        if self.spoken:
            done = [
                self._located("response.output_audio.done"),
                self._located("response.output_audio_transcript.done") | {"transcript": text},
            ]
        else:
            done = [self._located("response.output_text.done") | {"text": text}]
        return [*done, self.part("done", text)]

    def done(self, status: ResponseStatus, details: Json | None, output: Sequence[Item], usage: Json | None) -> Json:
        """Return response.done: the response has ended.

        Args:
            status: Final status.
            details: `status_details`, for example the reason of a cancellation.
            output: The items of the response, in the order of their positions.
            usage: Numbers of tokens, as the function `usage` returns them; None if they are not known.
        """
        response = self._response(status, details)
        response["output"] = [item.wire() for item in output]
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
    """Return the `usage` object of response.done, with the numbers of language model tokens.

    Audio is not counted in tokens. `cached_tokens` is the part of `prompt_tokens` that was in the engine's KV cache.
    """
    return {
        "total_tokens": prompt_tokens + completion_tokens,
        "input_tokens": prompt_tokens,
        "output_tokens": completion_tokens,
        "input_token_details": {"text_tokens": prompt_tokens, "audio_tokens": 0, "cached_tokens": cached_tokens},
        "output_token_details": {"text_tokens": completion_tokens, "audio_tokens": 0},
    }
