"""A simulated caller against a scripted server, with a clock that the test advances."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest

from loadtest.callers.resume_state import Position
from loadtest.callers.simulated_caller import SharedCallerSettings, SimulatedCaller
from loadtest.callers.turn_outcomes import TurnOutcomes
from loadtest.results.histograms import MergedHistograms, TurnHistograms
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.scenario.clips import make_clip
from loadtest.scenario.network import ROUTES, NetworkPath
from loadtest.scenario.scenario import CallerBehavior
from loadtest.scenario.schedule import Call
from loadtest.scenario.utterances import FRAME_S, encode
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16
from rejoinder.core.wire.formats import AudioFormat

LOUD = 0.3 * np.sign(np.sin(np.arange(WIRE_RATE) * 0.05))
# The clip: 0.5 s of speech between two times 0.1 s of faint room noise, which is not speech.
ROOM = np.full(WIRE_RATE // 10, 0.001)
CLIP = make_clip("clip", float_to_pcm16(np.concatenate([ROOM, LOUD[: WIRE_RATE // 2], ROOM])))
SPEECH = encode([CLIP], AudioFormat.PCM)
TENTH = base64.b64encode(float_to_pcm16(LOUD[: WIRE_RATE // 10])).decode()
BEHAVIOR = CallerBehavior(think_s=0.5, think_sigma=0.0, answer_timeout_s=2.0)

CALL = Call(0, at_s=0.0, ends_s=60.0, region="local", slot=0, seed=1)


@dataclass
class Harness:
    """A simulated caller in a call whose time the test advances, and everything that the caller has sent.

    Attributes:
        events: Events that the caller sent in addition to audio.
        now: Deadline in seconds of the next frame.
        frames: Number of frames sent.
        speech_at: Deadline of each frame that was not silence.
    """

    behavior: CallerBehavior = BEHAVIOR
    route: str = "local"
    call: Call = CALL
    histograms: TurnHistograms = field(default_factory=TurnHistograms)
    events: list[dict[str, Any]] = field(default_factory=list)
    now: float = 0.0
    frames: int = 0
    speech_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        outcomes = TurnOutcomes(self.histograms, 0.0, 50.0, self.behavior.answer_timeout_s)
        shared = SharedCallerSettings(
            SPEECH, behavior=self.behavior, outcomes=outcomes, playout_buffer_s=0.06, last_turn_at=50.0
        )
        path = NetworkPath(ROUTES[self.route], Random(1))
        self.caller = SimulatedCaller(
            self.call, path=path, shared=shared, send=lambda raw: self.events.append(json.loads(raw)), began_at=0.0
        )

    def until(self, at: float) -> Harness:
        """Send all frames before the deadline `at`."""
        while self.now < at - 1e-9:
            for message in self.caller.leaving(self.now):
                self.frames += 1
                if message != SPEECH.silence:
                    self.speech_at.append(self.now)
            self.now += FRAME_S
        return self

    def until_spoken(self) -> Harness:
        """Send frames until the caller has spoken one more utterance."""
        first = len(self.speech_at)
        while len(self.speech_at) == first:
            assert self.now < 60, "the caller never speaks"
            self.until(self.now + FRAME_S)
        return self.until(self.speech_at[first] + len(SPEECH.utterances[0].messages) * FRAME_S + FRAME_S)

    def hear(self, **event: Any) -> Harness:
        """Deliver the server event with these fields at the current time of the harness."""
        self.caller.take(json.dumps(event).encode(), self.now)
        return self

    def stopped(self, end_s: float | None = None) -> Harness:
        """Deliver `speech_stopped` for speech that ended at `end_s` seconds of the caller's audio, by default now."""
        end_ms = (self.frames * FRAME_S if end_s is None else end_s) * 1000
        return self.hear(type="input_audio_buffer.speech_stopped", item_id="i", audio_end_ms=end_ms)

    def reply(self, key: str = "r", tenths: int = 5, done: str | None = "completed", **extra: Any) -> Harness:
        """Deliver the reply with the id `key`: `tenths` x 100 ms of audio, then `response.done` with the status `done`.

        If `done` is None, `response.done` is left out. `extra` are further fields of `response.done`.
        """
        self.hear(type="response.created", response={"id": key})
        for _ in range(tenths):
            self.hear(type="response.output_audio.delta", response_id=key, item_id=f"item-{key}", delta=TENTH)
        return self.done(key, done, **extra) if done else self

    def done(self, key: str = "r", status: str = "completed", **extra: Any) -> Harness:
        return self.hear(type="response.done", response={"id": key, "status": status}, **extra)

    def recorded_ms(self, name: str) -> list[float]:
        """Return the values in ms, rounded to the histogram's precision, that the histogram `name` has recorded.

        Values that an earlier call has returned are left out.
        """
        merged = MergedHistograms()
        merged.add(0, self.histograms.flush())
        return [item.value_iterated_to / 1000 for item in merged.seconds[name].get_recorded_iterator()]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_latency_runs_from_the_scheduled_last_sample_of_speech(harness: Harness) -> None:
    """A reply 300 ms after the frame with the last sample of speech counts as 300 ms.

    Silence at the clip's end adds nothing.
    """
    harness.until_spoken()
    last_speech = harness.speech_at[0] + 0.58
    harness.until(last_speech + 0.3).stopped().reply().until(harness.now + 1)
    assert harness.recorded_ms(VOICE_TO_VOICE) == [pytest.approx(300, abs=21)]
    assert harness.histograms.counts["answered"] == 1


def test_the_next_turn_starts_a_think_time_after_the_reply(harness: Harness) -> None:
    """After 0.5 s of reply and 0.5 s of think time the caller speaks again."""
    harness.until_spoken().stopped()
    replied_at = harness.reply().now
    first = len(harness.speech_at)
    harness.until(replied_at + 2)
    # The first 100 ms of audio fill the playout buffer of 60 ms, so playback starts at once.
    assert harness.speech_at[first] == pytest.approx(replied_at + 0.5 + 0.5, abs=2.5 * FRAME_S)


def test_an_unanswered_turn_counts_with_the_timeout(harness: Harness) -> None:
    """A turn without an answer has the timeout as its latency, and the caller speaks again."""
    harness.until_spoken().until(harness.now + 4)
    assert harness.histograms.counts["unanswered"] == 1
    assert harness.recorded_ms(VOICE_TO_VOICE) == [pytest.approx(2000, rel=0.01)]
    assert len(harness.speech_at) > len(SPEECH.utterances[0].messages)


def test_a_silent_reply_is_not_an_answer(harness: Harness) -> None:
    """A reply that ends without an audible sample leaves the turn unanswered."""
    harness.until_spoken().stopped().reply(tenths=0).until(harness.now + 0.1)
    assert harness.histograms.counts["unanswered"] == 1


def test_an_incomplete_reply_has_failed(harness: Harness) -> None:
    """A turn fails if its reply is audible but `response.done` does not arrive before the timeout."""
    harness.until_spoken().stopped().reply(done=None).until(harness.now + 4)
    assert harness.histograms.counts["failed"] == 1


def test_an_answer_to_half_a_turn_is_premature(harness: Harness) -> None:
    """If the server takes a pause for the end of the turn, its early reply is counted. The final reply is measured."""
    harness.until(0.9)
    harness.until_spoken()
    begin = harness.speech_at[0]
    harness.stopped(begin + 0.1).reply("early").stopped().reply("real").until(harness.now + 0.8)
    assert harness.histograms.counts["premature"] == 1
    assert harness.histograms.counts["answered"] == 1


def test_a_barge_in_stops_playback_and_reports_how_much_was_played() -> None:
    """On `speech_started` the client stops playback and truncates the reply at the played position.

    The stop time is measured from the interruption's first sample of speech.
    """
    harness = Harness(replace(BEHAVIOR, barge_in=1.0))
    harness.until_spoken().stopped().reply(tenths=50, done=None)
    began, first = harness.now, len(harness.speech_at)
    harness.until(began + 2)
    interrupted_at = harness.speech_at[first]
    assert began + 0.3 <= interrupted_at <= began + 1.6
    harness = Harness(replace(BEHAVIOR, barge_in=1.0))
    harness.until_spoken().stopped().reply(tenths=50, done=None)
    harness.until(interrupted_at + 0.3).hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=0)
    harness.done(status="cancelled").until(harness.now + 0.1)
    (event,) = harness.events
    assert event["type"] == "conversation.item.truncate"
    assert event["audio_end_ms"] == pytest.approx((harness.now - 0.1 - began) * 1000, abs=3 * FRAME_S * 1000)
    assert harness.histograms.counts["interrupted"] == 1
    assert harness.recorded_ms("stop") == [pytest.approx(200, abs=45)]


@pytest.mark.parametrize(("after_s", "late"), [(0.3, 0), (0.6, 1)])
def test_an_interruption_must_stop_the_reply_in_time(after_s: float, late: int) -> None:
    """200 ms after the interruption's first sample of speech are in time, and 500 ms are too late."""
    harness = Harness(replace(BEHAVIOR, barge_in=1.0))
    harness.until_spoken().stopped().reply(tenths=50, done=None)
    first = len(harness.speech_at)
    while len(harness.speech_at) == first:
        harness.until(harness.now + FRAME_S)
    harness.until(harness.speech_at[first] + after_s)
    harness.hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=0)
    harness.done(status="cancelled")
    counts = harness.histograms.counts
    assert (counts["interruptions"], counts["late_yields"], counts["false_interruptions"]) == (1, late, 0)


def test_a_reply_that_is_played_to_its_end_did_not_yield() -> None:
    """An agent that talks on over its caller has not yielded, although no event says so."""
    harness = Harness(replace(BEHAVIOR, barge_in=1.0))
    harness.until_spoken().stopped().reply(tenths=40, done=None).until_spoken()
    harness.until(harness.now + 1).done()
    counts = harness.histograms.counts
    assert (counts["interruptions"], counts["late_yields"], counts["answered"]) == (1, 1, 1)


@pytest.mark.parametrize(("start_s", "false"), [(-0.5, 0), (0.5, 1)])
def test_a_reply_that_stops_although_nobody_speaks_is_counted(start_s: float, false: int) -> None:
    """Only the caller's utterance counts as speech, however late the server finds it. What it finds later does not."""
    harness = Harness().until_spoken().stopped()
    ended_ms = round(harness.frames * FRAME_S * 1000)
    harness.reply(tenths=50, done=None).until(harness.now + 1)
    start_ms = ended_ms + round(start_s * 1000)
    harness.hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=start_ms)
    harness.until(harness.now + 0.2)
    counts = harness.histograms.counts
    assert (counts["false_interruptions"], counts["interruptions"]) == (false, 0)


def test_a_caller_remembers_what_went_wrong() -> None:
    """An unanswered turn and a reply that stops for nothing are faults of the call, by how often they occurred."""
    harness = Harness().until_spoken()
    harness.until(harness.now + 3).until_spoken().stopped()
    ended_ms = round(harness.frames * FRAME_S * 1000)
    harness.reply(tenths=50, done=None).until(harness.now + 1)
    harness.hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=ended_ms + 500)
    assert harness.caller.faults == {"a turn had no answer": 1, "a reply stopped for nothing": 1}


def test_responses_are_counted_with_their_errors() -> None:
    """A response that failed is counted, whoever asked for it."""
    harness = Harness().until_spoken().stopped().reply("a", done="failed").reply("b", done="completed")
    assert (harness.histograms.counts["responses"], harness.histograms.counts["responses_failed"]) == (2, 1)


def test_client_events_have_the_upstream_delay() -> None:
    """The truncation after a barge-in reaches the server one round trip after the server sent `speech_started`."""
    harness = Harness(replace(BEHAVIOR, barge_in=1.0), route="us-asia")
    harness.until_spoken().stopped().reply(tenths=50, done=None).until(harness.now + 1)
    harness.hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=0)
    started, rtt_s = harness.now, harness.caller.path.up_s + harness.caller.path.down_s
    harness.until(started + rtt_s - 2 * FRAME_S)
    assert not harness.events
    harness.until(started + rtt_s + 0.1)
    assert [event["type"] for event in harness.events] == ["conversation.item.truncate"]


def test_muted_clients_send_nothing_between_turns() -> None:
    """A muted client sends nothing from the first audible sample of an answer until its next utterance.

    While it waits for the answer it sends silence.
    """
    harness = Harness(replace(BEHAVIOR, muted_between_turns=True))
    harness.until(0.2)
    assert harness.frames == 0
    harness.until_spoken()
    before = harness.frames
    harness.until(harness.now + 0.2)
    assert harness.frames == before + 10
    harness.stopped().reply(tenths=30)
    before = harness.frames
    harness.until(harness.now + 1)
    assert harness.frames == before


def test_a_listener_never_speaks() -> None:
    """A call with `listener` has no turns and sends silence."""
    harness = Harness(call=replace(CALL, listener=True)).until(20)
    assert not harness.speech_at
    assert harness.frames == 1000


def test_the_route_adds_its_round_trip_to_the_latency() -> None:
    """With the same server, a distant caller's latency is longer by exactly the call's round-trip time."""
    near, far = Harness(), Harness(route="same-region")
    far.caller.path._jitter_s = far.caller.path._loss = 0.0
    for harness in (near, far):
        harness.until_spoken()
        harness.until(harness.speech_at[0] + 0.58 + 0.3).stopped().reply().until(harness.now + 1)
    (close,), (distant,) = near.recorded_ms(VOICE_TO_VOICE), far.recorded_ms(VOICE_TO_VOICE)
    assert distant - close == pytest.approx(far.caller.path.rtt_s * 1000, abs=2)


def test_jitter_keeps_the_order_and_loses_nothing() -> None:
    """On a route with jitter, frames are sent in order, and at most 30 of 1500 are not yet sent after 30 s."""
    harness = Harness(route="us-asia").until(30)
    assert harness.frames >= 30 / FRAME_S - 30
    assert harness.speech_at == sorted(harness.speech_at)


def test_jitter_far_below_a_frame_delays_nothing() -> None:
    """A delay far below the frame length of 20 ms has no effect: each frame is sent at its own deadline."""
    calm, unsteady = Harness(), Harness(route="same-region")
    unsteady.caller.path._loss = 0.0
    unsteady.caller.path.up_s = 0.0
    for harness in (calm, unsteady):
        harness.until_spoken()
        assert harness.caller.take_frames_due() == harness.frames
    assert unsteady.speech_at[0] == calm.speech_at[0]


def test_the_open_turn_of_a_dropped_call_is_unanswered(harness: Harness) -> None:
    """If the server drops the call while the caller waits for an answer, the turn counts as unanswered."""
    harness.until_spoken()
    harness.caller.hang_up(harness.now, dropped=True)
    assert harness.histograms.counts["unanswered"] == 1
    assert harness.caller.over


@pytest.mark.parametrize(("dropped", "outcome"), [(True, "failed"), (False, "interrupted")])
def test_a_reply_cut_by_the_end_of_the_run_has_not_failed(dropped: bool, outcome: str) -> None:
    """A turn whose reply plays at the end of the run counts as interrupted, or as failed if the server hung up."""
    harness = Harness().until_spoken().stopped().reply(tenths=50, done=None)
    harness.until(harness.now + 1).caller.hang_up(harness.now, dropped=dropped)
    assert harness.histograms.counts[outcome] == harness.histograms.counts["turns"] == 1


def test_a_late_answer_does_not_answer_the_next_turn(harness: Harness) -> None:
    """A reply that arrives after the timeout, while the caller speaks again, does not count for the next turn."""
    harness.until_spoken()
    late_end = harness.frames * FRAME_S
    first = len(harness.speech_at)
    while len(harness.speech_at) < first + 3:
        harness.until(harness.now + FRAME_S)
    harness.stopped(late_end).reply("late", tenths=1)
    harness.until_spoken().until(harness.now + 4)
    assert harness.histograms.counts["unanswered"] == 2
    assert harness.histograms.counts["premature"] == 0
    assert harness.recorded_ms(VOICE_TO_VOICE) == [pytest.approx(2000, rel=0.01)]


def test_a_response_cancelled_before_audio_is_not_the_answer(harness: Harness) -> None:
    """If the server cancels a response before any audio, the turn waits for the next response."""
    harness.until_spoken().stopped().reply("first", tenths=0, done="cancelled").until(harness.now + 0.2)
    harness.stopped().reply("second").until(harness.now + 1)
    assert harness.histograms.counts["answered"] == harness.histograms.counts["turns"] == 1


@pytest.mark.parametrize(("answered", "count"), [(True, "interrupted"), (False, "abandoned")])
def test_a_hang_up_counts_as_interrupted_or_abandoned(answered: bool, count: str) -> None:
    """Hanging up during an answer keeps the turn's latency. Before an answer the turn only counts as abandoned."""
    first = Harness().until_spoken().speech_at[0]
    harness = Harness(call=replace(CALL, ends_s=first + 1.5, hangs_up=True)).until_spoken().stopped()
    if answered:
        harness.reply(tenths=50, done=None)
    harness.until(first + 2)
    assert harness.caller.over
    assert harness.histograms.counts[count] == 1
    assert harness.histograms.counts["turns"] == int(answered)


def test_the_call_ends_at_its_time_but_not_within_a_turn() -> None:
    """At the end of its time a call continues until its last utterance has been answered."""
    first = Harness().until_spoken().speech_at[0]
    harness = Harness(call=replace(CALL, ends_s=first + 0.1)).until_spoken()
    over = [harness.caller.over]
    harness.stopped().reply(tenths=1).until(harness.now + 0.5)
    assert [*over, harness.caller.over] == [False, True]
    assert harness.histograms.counts["answered"] == 1


def test_stages_sum_to_the_whole() -> None:
    """The server's stages, corrected by the client's measurements, sum to the turn's latency within 5 ms.

    A reply that the server reports as hedged is counted.
    """
    harness = Harness()
    harness.until_spoken()
    begin = harness.speech_at[0]
    report = {
        "stages_ms": {"silence": 100, "endpoint": 50, "stt": 20, "llm_first_token": 60, "first_segment": 5}
        | {"tts_first_audio": 30, "delivery": 1},
        "unattributed_ms": 0.5,
        "speech_end_ms": (begin + 0.6) * 1000,
        "hedged": True,
    }
    harness.until(begin + 0.58 + 0.3).stopped().reply(rejoinder=report).until(harness.now + 1)
    merged = MergedHistograms()
    merged.add(0, harness.histograms.flush())
    means = {name: series.get_mean_value() / 1000 for name, series in merged.seconds.items()}
    parts = sum(means[name] for name in (*report["stages_ms"], "unattributed"))  # type: ignore[misc]
    assert parts == pytest.approx(means[VOICE_TO_VOICE], abs=5)
    assert harness.histograms.counts["hedged"] == 1


# -- connections that are lost ------------------------------------------------------------------------------------


def resume(harness: Harness, kind: str | None, lost_at: float) -> list[bytes]:
    """Continue the call on another connection. Return the frames that the caller sends again."""
    sent: list[bytes] = []
    event = {"audio_after_item_id": None, "response": kind and {"kind": kind, "continues_item_id": "i"}}
    harness.caller.reconnect(sent.append, event, lost_at=lost_at, now=harness.now)
    return sent


def test_a_reply_continues_on_another_connection() -> None:
    """A reply whose connection was lost in the middle and that goes on elsewhere counts as one answered reply."""
    harness = Harness().until_spoken().stopped()
    harness.hear(type="response.created", response={"id": "r"})
    for _ in range(3):
        harness.hear(type="response.output_audio.delta", response_id="r", item_id="i", delta=TENTH)
    assert harness.caller.position() == Position("i", 300)
    lost_at = harness.now
    resume(harness.until(lost_at + 0.5), "continued", lost_at)
    harness.hear(type="response.created", response={"id": "r2"})
    harness.hear(type="response.output_audio.delta", response_id="r2", item_id="i2", delta=TENTH)
    assert harness.caller.position() == Position("i2", 100)
    harness.hear(type="response.done", response={"id": "r2", "status": "completed"}).until(harness.now + 1)
    counts = harness.histograms.counts
    assert (counts["answered"], counts["resumed"], counts["unreported"]) == (1, 1, 0)
    recorded = MergedHistograms()
    recorded.add(0, harness.histograms.flush())
    assert recorded.seconds["resume"].get_max_value() / 1000 == pytest.approx(500, abs=21)
    # The caller had 300 ms of audio to play in the half second without a connection.
    assert recorded.seconds["resume_gap"].get_max_value() / 1000 == pytest.approx(200, abs=21)


def test_speech_goes_on_while_there_is_no_connection() -> None:
    """What the caller says meanwhile is kept and sent again, and positions of the new connection fit the turn."""
    harness = Harness().until_spoken()
    start = round(harness.speech_at[0] / FRAME_S)
    harness.hear(type="input_audio_buffer.speech_started", item_id="a", audio_start_ms=start * 20)
    lost_at = harness.now
    while harness.now < lost_at + 0.2:
        harness.caller.hold(harness.now)
        harness.now += FRAME_S
    frames = resume(harness, None, lost_at)
    spoken = [number for number, message in enumerate(frames) if message != SPEECH.silence]
    assert len(spoken) == len(SPEECH.utterances[0].messages)
    end_ms = (spoken[0] * FRAME_S + SPEECH.utterances[0].speech_end_s) * 1000
    harness.hear(type="input_audio_buffer.speech_stopped", item_id="a", audio_end_ms=end_ms)
    harness.hear(type="response.created", response={"id": "r"})
    harness.hear(type="response.output_audio.delta", response_id="r", item_id="i", delta=TENTH)
    harness.hear(type="response.done", response={"id": "r", "status": "completed"}).until(harness.now + 1)
    assert harness.histograms.counts["answered"] == 1
    assert harness.histograms.counts["premature"] == 0


def test_a_caller_moves_when_the_server_asks() -> None:
    """A host that is about to stop asks its callers to connect again."""
    harness = Harness().until(1.0)
    assert not harness.caller.moving
    harness.hear(type="rejoinder.session.move", reason="draining")
    assert harness.caller.moving


def test_an_answer_counts_though_its_end_of_speech_was_lost() -> None:
    """The connection broke before `speech_stopped` arrived. The answer on the next connection belongs to the turn."""
    harness = Harness().until_spoken()
    resume(harness, "answered", harness.now)
    harness.reply().until(harness.now + 1)
    assert harness.histograms.counts["answered"] == 1
