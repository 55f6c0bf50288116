"""Helpers that send client events to a session in tests, and read the server's events."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.actors.stage_play import Caller, Play

# Types of the events of a committed turn, in order.
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
# Types of the last events of a spoken response (completed or cancelled), in order.
RESPONSE_ENDS = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def server_vad(**fields: object) -> dict[str, object]:
    """Return the `session` field of a session.update that configures server_vad."""
    return detection({"type": "server_vad"} | fields)


def detection(value: object) -> dict[str, object]:
    """Return the `session` field of a session.update with this value of turn_detection."""
    return {"type": "realtime", "audio": {"input": {"turn_detection": value}}}


def message(text: str, role: str = "user", **fields: object) -> dict[str, object]:
    """Return a message item with this text, as a client sends it. `fields` are further fields, such as `id`."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]} | fields


async def refused(caller: Caller, **event: Any) -> dict[str, Any]:
    """Send an event that the session must refuse. Check that the error names the event's id, and return the error."""
    errors = len(caller.of("error"))
    event_id = await caller.ask(**event)
    error: dict[str, Any] = (await caller.until("error", errors + 1))["error"]
    assert error["event_id"] == event_id
    assert error["type"] == "invalid_request_error"
    return error


async def settled(caller: Caller) -> None:
    """Wait until the session has handled every event sent so far."""
    await asyncio.sleep(0.001)


def prompts(play: Play) -> list[list[tuple[str, str]]]:
    """Return the prompt of each request to the language model as (role, text) messages, without the instructions."""
    return [[(message.role, message.content) for message in request.messages[1:]] for _, request in play.llm.requests]


def ids(caller: Caller) -> list[str]:
    """Return the ids of the conversation's items, in order."""
    return [item.id for item in caller.session.conversation]
