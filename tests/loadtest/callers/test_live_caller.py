"""Tests of the live caller: what a client plays, prints and reports when events of the server arrive."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent, ResponseDoneEvent
from pydantic import TypeAdapter

from loadtest.callers.live_caller import Command, Fault, Heard, LiveCaller, Play, ReplyText, StopPlayback, TurnOver
from loadtest.callers.scripted_caller import Truncate
from tests.loadtest.callers.scene import tone

STAGES = {"silence": 80.0, "endpoint": 100.0, "stt": 50.0, "llm_first_token": 60.0}


_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def event(kind: str, **fields: Any) -> Any:
    """Return a server event of the type `kind`."""
    return _EVENT.validate_python({"type": kind, "event_id": "event"} | fields)


def speech_started() -> Any:
    return event("input_audio_buffer.speech_started", item_id="user-2", audio_start_ms=0)


def of(response: str) -> dict[str, Any]:
    """Return the fields of an event that belongs to the response with the id `response`."""
    return {"response_id": response, "item_id": f"item-{response}", "output_index": 0, "content_index": 0}


def audio(response: str, pcm: bytes) -> Any:
    return event("response.output_audio.delta", delta=base64.b64encode(pcm).decode(), **of(response))


def text(response: str, delta: str) -> Any:
    return event("response.output_audio_transcript.delta", delta=delta, **of(response))


def done(response: str, status: str = "completed", **report: Any) -> Any:
    """Return `response.done` of a response with this status and these fields of the `rejoinder` report."""
    return event("response.done", response={"id": response, "status": status}, rejoinder=report)


def the_turn(commands: list[Command]) -> TurnOver:
    (turn,) = commands
    assert isinstance(turn, TurnOver)
    return turn


def test_a_spoken_turn_is_measured_from_the_end_of_speech() -> None:
    """The latency runs from the capture of the last speech frame to the first audible sample, card latency included.

    Frames are captured every 20 ms from 100.02 s, so the speech that ends at 1,000 ms of the stream was captured at
    101.0 s. The reply's first sample reaches the sound card at 101.4 s and is audible 30 ms later.
    """
    caller = LiveCaller(output_latency_s=0.03)
    for frame in range(70):
        caller.captured(100.02 + 0.02 * frame)
    transcript = event(
        "conversation.item.input_audio_transcription.completed",
        item_id="user-1",
        content_index=0,
        transcript=" Hello there. ",
        usage={"type": "duration", "seconds": 1.0},
    )
    assert caller.take(transcript, 101.2) == [Heard("Hello there.")]
    assert caller.take(text("a", "Hi, "), 101.3) == [ReplyText("Hi, ")]
    caller.take(text("a", "how are you?"), 101.3)
    pcm = tone(0.5)
    assert caller.take(audio("a", pcm), 101.4) == [Play(pcm)]
    report: dict[str, Any] = {"item_id": "user-1", "speech_end_ms": 1000.0, "unattributed_ms": 0.0, "stages_ms": STAGES}
    turn = the_turn(caller.take(done("a", **report), 101.5))
    assert (turn.record.heard, turn.record.answered) == ("Hello there.", "Hi, how are you?")
    assert turn.record.outcome == "answered"
    assert turn.record.voice_to_voice_ms == pytest.approx(430, abs=2)
    assert turn.record.stages_ms is not None
    assert sum(turn.record.stages_ms.values()) == pytest.approx(turn.record.voice_to_voice_ms, abs=0.2)
    assert turn.first_audio_ms is None


def test_speech_over_a_reply_stops_it_and_reports_what_was_played() -> None:
    """If the server detects speech 300 ms into a reply, playback stops and the client reports 300 ms."""
    caller = LiveCaller()
    caller.take(audio("a", tone(2.0)), 10.0)
    assert caller.playing(10.3)
    assert caller.take(speech_started(), 10.3) == [StopPlayback(), Truncate("item-a", 300)]
    assert not caller.playing(10.3)
    assert caller.take(speech_started(), 10.4) == []


def test_a_resumed_reply_plays_on() -> None:
    """Audio that arrives after an interruption is played, because the server sends it only after a false alarm."""
    caller = LiveCaller()
    caller.take(audio("a", tone(2.0)), 10.0)
    caller.take(speech_started(), 10.3)
    rest = tone(1.0)
    assert caller.take(audio("a", rest), 11.0) == [Play(rest)]
    assert caller.playing(11.9)
    turn = the_turn(caller.take(done("a"), 11.0))
    assert turn.record.outcome == "answered"


def test_a_typed_turn_is_measured_from_its_message() -> None:
    """A typed message interrupts the reply that plays. Its own first audio is measured from the message."""
    caller = LiveCaller()
    caller.take(audio("a", tone(2.0)), 10.0)
    assert caller.typed(10.5) == [StopPlayback(), Truncate("item-a", 500)]
    caller.take(audio("b", tone(0.2)), 10.9)
    turn = the_turn(caller.take(done("b"), 11.0))
    assert turn.first_audio_ms == pytest.approx(400, abs=2)
    assert turn.record.voice_to_voice_ms is None


def test_a_second_reply_plays_behind_the_first() -> None:
    """The first sample of a reply that arrives while another one plays is audible only when that one has ended."""
    caller = LiveCaller()
    assert caller.typed(9.0) == []
    caller.take(audio("a", tone(1.0)), 10.0)
    caller.take(audio("b", tone(1.0)), 10.2)
    turn = the_turn(caller.take(done("b"), 10.3))
    assert turn.first_audio_ms == pytest.approx(2000, abs=2)
    assert caller.playing(11.9)


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (done("a"), "answered"),
        (done("a", "cancelled", interrupted=True), "interrupted"),
        (done("a", "failed"), "failed"),
        (done("other"), "unanswered"),
    ],
)
def test_the_outcome_is_that_of_the_response(event: ResponseDoneEvent, outcome: str) -> None:
    """The outcome follows the status of the response. A response without audio leaves its turn unanswered."""
    caller = LiveCaller()
    caller.take(audio("a", tone(0.5)), 10.0)
    assert the_turn(caller.take(event, 10.1)).record.outcome == outcome


def test_an_error_and_a_malformed_report_are_shown() -> None:
    """An error event and an invalid `rejoinder` field of `response.done` are faults, not exceptions."""
    caller = LiveCaller()
    error = event("error", error={"type": "server_error", "message": "too busy"})
    assert caller.take(error, 1.0) == [Fault("too busy")]
    (fault,) = caller.take(done("a", stages_ms="none"), 1.0)
    assert isinstance(fault, Fault)
    assert "rejoinder" in fault.text


def test_speech_that_ended_over_a_minute_ago_is_not_measured() -> None:
    """Capture times are kept for one minute. Speech that ended earlier has no latency, rather than a wrong one."""
    caller = LiveCaller()
    for frame in range(3100):
        caller.captured(0.02 * frame)
    caller.take(audio("a", tone(0.5)), 62.0)
    report: dict[str, Any] = {"item_id": "user-1", "speech_end_ms": 1000.0, "unattributed_ms": 0.0, "stages_ms": STAGES}
    assert the_turn(caller.take(done("a", **report), 62.5)).record.voice_to_voice_ms is None
