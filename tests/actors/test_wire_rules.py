"""Tests that the rules of `wire_rules`, which check every test conversation, find illegal conversations."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest

from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual
from tests.actors.wire_rules import Wire

Json = dict[str, Any]


@cache
def conversation() -> tuple[Json, ...]:
    """Return the server events of a conversation with a barge-in, until the second response has ended."""

    async def play() -> tuple[Json, ...]:
        async with Play().call() as caller:
            await caller.speak(0.5)
            await caller.listen("response.output_audio.delta")
            await caller.speak(0.5)
            await caller.listen("response.done", 2)
            return tuple(event for _, event in caller.events)

    return run_virtual(play())


def check(events: list[Json]) -> None:
    wire = Wire()
    for event in events:
        wire.take(event)
    wire.finish()


def first(kind: str) -> int:
    return next(at for at, event in enumerate(conversation()) if event["type"] == kind)


STRUCTURE = sorted({event["type"] for event in conversation()} - {"response.output_audio.delta"})


def test_the_real_conversation_is_legal() -> None:
    """The recorded conversation breaks no rule, so the other tests find only the error that they add."""
    check(list(conversation()))


@pytest.mark.parametrize("kind", [kind for kind in STRUCTURE if kind != "input_audio_buffer.speech_started"])
def test_a_missing_event_is_found(kind: str) -> None:
    """If any one event is missing, the conversation is illegal.

    Audio deltas and speech_started are excepted, because a conversation is legal without one of them.
    """
    events = list(conversation())
    del events[first(kind)]
    with pytest.raises((AssertionError, ValueError)):
        check(events)


@pytest.mark.parametrize("kind", STRUCTURE)
def test_a_repeated_event_is_found(kind: str) -> None:
    """If an event is repeated with a new event id, the conversation is illegal.

    A copy of session.created or speech_started keeps its id in this test, because the rules allow these events again.
    """
    events = list(conversation())
    again = copy.deepcopy(events[first(kind)]) | {"event_id": "fresh"}
    if kind in ("session.created", "input_audio_buffer.speech_started"):
        again["event_id"] = events[first(kind)]["event_id"]
    events.insert(first(kind) + 1, again)
    with pytest.raises(AssertionError):
        check(events)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("session.created", lambda event: event.pop("event_id")),
        ("session.created", lambda event: event["session"].update(instructions=None)),
        ("session.created", lambda event: event["session"].update(output_modalities="audio")),
        ("input_audio_buffer.speech_stopped", lambda event: event.update(item_id="other")),
        ("input_audio_buffer.speech_stopped", lambda event: event.update(audio_end_ms=1.5)),
        ("input_audio_buffer.committed", lambda event: event.update(previous_item_id="other")),
        ("conversation.item.added", lambda event: event["item"].update(status=None)),
        ("response.created", lambda event: event["response"].update(conversation_id=None)),
        ("response.output_item.added", lambda event: event["item"].update(status="completed")),
        ("response.output_audio.delta", lambda event: event.update(item_id="other")),
        ("response.output_audio.delta", lambda event: event.update(delta=b"\0")),
        ("response.output_audio_transcript.done", lambda event: event.update(transcript="other")),
        ("response.done", lambda event: event["response"].update(metadata={"a": "b"})),
        ("response.done", lambda event: event["response"].update(usage=None)),
    ],
)
def test_a_spoiled_event_is_found(kind: str, spoil: Any) -> None:
    """An event with a field of a wrong type or value, a forbidden null or a wrong id is illegal."""
    events = copy.deepcopy(list(conversation()))
    spoil(events[first(kind)])
    with pytest.raises((AssertionError, ValueError, KeyError)):
        check(events)


def test_a_delta_after_the_end_is_found() -> None:
    """A conversation with an audio delta of a response after its response.done is illegal."""
    events = list(conversation())
    events.insert(first("response.done") + 1, events[first("response.output_audio.delta")] | {"event_id": "fresh"})
    with pytest.raises(AssertionError):
        check(events)
