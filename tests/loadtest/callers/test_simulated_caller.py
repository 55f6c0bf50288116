"""A simulated caller against a scripted server, on a clock that the test moves."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest

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
# 0.1 s of a quiet room, 0.5 s of speech, 0.1 s of the room.
ROOM = np.full(WIRE_RATE // 10, 0.001)
CLIP = make_clip("clip", float_to_pcm16(np.concatenate([ROOM, LOUD[: WIRE_RATE // 2], ROOM])))
SPEECH = encode([CLIP], AudioFormat.PCM)
TENTH = base64.b64encode(float_to_pcm16(LOUD[: WIRE_RATE // 10])).decode()
MANNER = CallerBehavior(think_s=0.5, think_sigma=0.0, answer_timeout_s=2.0)

CALL = Call(0, at_s=0.0, ends_s=60.0, region="local", slot=0, seed=1)


@dataclass
class Stage:
    """One caller at its deadlines from 0 on, and everything it sent."""

    behavior: CallerBehavior = MANNER
    route: str = "local"
    call: Call = CALL
    tally: TurnHistograms = field(default_factory=TurnHistograms)
    told: list[dict[str, Any]] = field(default_factory=list)
    now: float = 0.0
    frames: int = 0
    spoken: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        outcomes = TurnOutcomes(self.tally, 0.0, 50.0, self.behavior.answer_timeout_s)
        habits = SharedCallerSettings(
            SPEECH, behavior=self.behavior, outcomes=outcomes, playout_buffer_s=0.06, last_turn_at=50.0
        )
        path = NetworkPath(ROUTES[self.route], Random(1))
        self.caller = SimulatedCaller(
            self.call, path=path, habits=habits, send=lambda raw: self.told.append(json.loads(raw)), began_at=0.0
        )

    def until(self, at: float) -> Stage:
        while self.now < at - 1e-9:
            for message in self.caller.leaving(self.now):
                self.frames += 1
                if message != SPEECH.silence:
                    self.spoken.append(self.now)
            self.now += FRAME_S
        return self

    def until_spoken(self) -> Stage:
        """Until the utterance under way has left whole."""
        begun = len(self.spoken)
        while len(self.spoken) == begun:
            assert self.now < 60, "the caller never speaks"
            self.until(self.now + FRAME_S)
        return self.until(self.spoken[begun] + len(SPEECH.utterances[0].messages) * FRAME_S + FRAME_S)

    def hear(self, **event: Any) -> Stage:
        self.caller.take(json.dumps(event).encode(), self.now)
        return self

    def stopped(self, end_s: float | None = None) -> Stage:
        end_ms = (self.frames * FRAME_S if end_s is None else end_s) * 1000
        return self.hear(type="input_audio_buffer.speech_stopped", item_id="i", audio_end_ms=end_ms)

    def reply(self, key: str = "r", tenths: int = 5, done: str | None = "completed", **extra: Any) -> Stage:
        self.hear(type="response.created", response={"id": key})
        for _ in range(tenths):
            self.hear(type="response.output_audio.delta", response_id=key, item_id=f"item-{key}", delta=TENTH)
        return self.done(key, done, **extra) if done else self

    def done(self, key: str = "r", status: str = "completed", **extra: Any) -> Stage:
        return self.hear(type="response.done", response={"id": key, "status": status}, **extra)

    def took(self, name: str) -> list[float]:
        """Milliseconds, to the histogram's precision."""
        merged = MergedHistograms()
        merged.add(0, self.tally.flush())
        return [item.value_iterated_to / 1000 for item in merged.seconds[name].get_recorded_iterator()]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_latency_runs_from_the_scheduled_last_sample_of_speech(stage: Stage) -> None:
    """The reply 300 ms after the frame with the last sample of speech: 300 ms, however long the clip's own tail is."""
    stage.until_spoken()
    last_speech = stage.spoken[0] + 0.58
    stage.until(last_speech + 0.3).stopped().reply().until(stage.now + 1)
    assert stage.took(VOICE_TO_VOICE) == [pytest.approx(300, abs=21)]
    assert stage.tally.counts["answered"] == 1


def test_the_next_turn_begins_a_think_time_after_the_reply_was_heard(stage: Stage) -> None:
    """Half a second of reply and half a second of thought."""
    stage.until_spoken().stopped()
    heard = stage.reply().now
    first = len(stage.spoken)
    stage.until(heard + 2)
    # The playout buffer of 60 ms holds already when 100 ms have come.
    assert stage.spoken[first] == pytest.approx(heard + 0.5 + 0.5, abs=2.5 * FRAME_S)


def test_a_turn_that_is_not_answered_counts_at_the_time_out(stage: Stage) -> None:
    """And the caller speaks again."""
    stage.until_spoken().until(stage.now + 4)
    assert stage.tally.counts["unanswered"] == 1
    assert stage.took(VOICE_TO_VOICE) == [pytest.approx(2000, rel=0.01)]
    assert len(stage.spoken) > len(SPEECH.utterances[0].messages)


def test_an_answer_without_sound_is_no_answer(stage: Stage) -> None:
    """A response that ends without an audible sample leaves the turn unanswered."""
    stage.until_spoken().stopped().reply(tenths=0).until(stage.now + 0.1)
    assert stage.tally.counts["unanswered"] == 1


def test_an_answer_that_never_ends_has_failed(stage: Stage) -> None:
    """Audible, but without response.done until the time-out."""
    stage.until_spoken().stopped().reply(done=None).until(stage.now + 4)
    assert stage.tally.counts["failed"] == 1


def test_an_answer_to_half_a_turn_is_premature(stage: Stage) -> None:
    """The server took a pause for the end: its answer is counted, not measured; the real one is."""
    stage.until(0.9)
    stage.until_spoken()
    begin = stage.spoken[0]
    stage.stopped(begin + 0.1).reply("early").stopped().reply("real").until(stage.now + 0.8)
    assert stage.tally.counts["premature"] == 1
    assert stage.tally.counts["answered"] == 1


def test_a_barge_in_silences_the_reply_and_says_how_much_was_heard() -> None:
    """Speech over a reply: on speech_started the client flushes, truncates at the heard position, and the stop is
    measured from the interruption's first sample of speech.
    """
    stage = Stage(replace(MANNER, barge_in=1.0))
    stage.until_spoken().stopped().reply(tenths=50, done=None)
    began, first = stage.now, len(stage.spoken)
    stage.until(began + 2)
    cut_in = stage.spoken[first]
    assert began + 0.3 <= cut_in <= began + 1.6
    stage = Stage(replace(MANNER, barge_in=1.0))
    stage.until_spoken().stopped().reply(tenths=50, done=None)
    stage.until(cut_in + 0.3).hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=0)
    stage.done(status="cancelled").until(stage.now + 0.1)
    (told,) = stage.told
    assert told["type"] == "conversation.item.truncate"
    assert told["audio_end_ms"] == pytest.approx((stage.now - 0.1 - began) * 1000, abs=3 * FRAME_S * 1000)
    assert stage.tally.counts["interrupted"] == 1
    assert stage.took("stop") == [pytest.approx(200, abs=45)]


def test_what_a_client_tells_the_server_takes_the_way_up_too() -> None:
    """On a route of some 200 ms the truncation reaches the edge a round trip after the server's speech_started."""
    stage = Stage(replace(MANNER, barge_in=1.0), route="us-asia")
    stage.until_spoken().stopped().reply(tenths=50, done=None).until(stage.now + 1)
    stage.hear(type="input_audio_buffer.speech_started", item_id="j", audio_start_ms=0)
    started, rtt_s = stage.now, stage.caller.path.up_s + stage.caller.path.down_s
    stage.until(started + rtt_s - 2 * FRAME_S)
    assert not stage.told
    stage.until(started + rtt_s + 0.1)
    assert [event["type"] for event in stage.told] == ["conversation.item.truncate"]


def test_muted_clients_send_nothing_between_turns() -> None:
    """From the answer's first sound until they speak again; while they wait for it they send silence."""
    stage = Stage(replace(MANNER, muted_between_turns=True))
    stage.until(0.2)
    assert stage.frames == 0
    stage.until_spoken()
    before = stage.frames
    stage.until(stage.now + 0.2)
    assert stage.frames == before + 10
    stage.stopped().reply(tenths=30)
    before = stage.frames
    stage.until(stage.now + 1)
    assert stage.frames == before


def test_a_listener_never_speaks() -> None:
    """A muted listener holds a call and has no turns."""
    stage = Stage(call=replace(CALL, listener=True)).until(20)
    assert not stage.spoken
    assert stage.frames == 1000


def test_a_distant_caller_waits_longer_by_the_route() -> None:
    """The same server, 20 to 40 ms of round trip away: the latency grows by exactly that call's round trip."""
    near, far = Stage(), Stage(route="same-region")
    far.caller.path._jitter_s = far.caller.path._loss = 0.0
    for stage in (near, far):
        stage.until_spoken()
        stage.until(stage.spoken[0] + 0.58 + 0.3).stopped().reply().until(stage.now + 1)
    (close,), (distant,) = near.took(VOICE_TO_VOICE), far.took(VOICE_TO_VOICE)
    assert distant - close == pytest.approx(far.caller.path.rtt_s * 1000, abs=2)


def test_jitter_keeps_the_order_and_loses_nothing() -> None:
    """Frames on an unsteady route leave late, in order, and all of them."""
    stage = Stage(route="us-asia").until(30)
    assert stage.frames >= 30 / FRAME_S - 30
    begun = [at for at, after in zip(stage.spoken, stage.spoken[1:], strict=False) if after < at]
    assert not begun


def test_jitter_far_below_a_frame_delays_nothing() -> None:
    """Held back to the nearest deadline: a millisecond late is on time, and what is scheduled has left."""
    calm, unsteady = Stage(), Stage(route="same-region")
    unsteady.caller.path._loss = 0.0
    unsteady.caller.path.up_s = 0.0
    for stage in (calm, unsteady):
        stage.until_spoken()
        assert stage.caller.take_scheduled() == stage.frames
    assert unsteady.spoken[0] == calm.spoken[0]


def test_a_lost_call_s_turn_was_never_answered(stage: Stage) -> None:
    """The server drops the call while the caller waits: unanswered, not forgotten."""
    stage.until_spoken()
    stage.caller.hang_up(stage.now, dropped=True)
    assert stage.tally.counts["unanswered"] == 1
    assert stage.caller.over


@pytest.mark.parametrize(("dropped", "outcome"), [(True, "failed"), (False, "interrupted")])
def test_a_reply_that_the_end_of_the_run_cuts_is_not_the_server_s_fault(dropped: bool, outcome: str) -> None:
    """A long answer that sounds when the drain is over was given; one that the server's own hang-up cut has failed."""
    stage = Stage().until_spoken().stopped().reply(tenths=50, done=None)
    stage.until(stage.now + 1).caller.hang_up(stage.now, dropped=dropped)
    assert stage.tally.counts[outcome] == stage.tally.counts["turns"] == 1


def test_an_answer_too_late_is_no_answer_to_the_next_turn(stage: Stage) -> None:
    """Given up at the time-out, and answered while the caller speaks again: the next turn is not made fast by it."""
    stage.until_spoken()
    late_end = stage.frames * FRAME_S
    first = len(stage.spoken)
    while len(stage.spoken) < first + 3:
        stage.until(stage.now + FRAME_S)
    stage.stopped(late_end).reply("late", tenths=1)
    stage.until_spoken().until(stage.now + 4)
    assert stage.tally.counts["unanswered"] == 2
    assert stage.tally.counts["premature"] == 0
    assert stage.took(VOICE_TO_VOICE) == [pytest.approx(2000, rel=0.01)]


def test_a_response_cancelled_unheard_waits_for_the_next_one(stage: Stage) -> None:
    """The server took the last word for a new utterance: only what it then answers is the turn's answer."""
    stage.until_spoken().stopped().reply("first", tenths=0, done="cancelled").until(stage.now + 0.2)
    stage.stopped().reply("second").until(stage.now + 1)
    assert stage.tally.counts["answered"] == stage.tally.counts["turns"] == 1


@pytest.mark.parametrize(("answered", "count"), [(True, "interrupted"), (False, "abandoned")])
def test_a_caller_who_hangs_up_has_been_answered_or_not(answered: bool, count: str) -> None:
    """Nothing that was measured is lost, and what is not known is told, not guessed."""
    begins = Stage().until_spoken().spoken[0]
    stage = Stage(call=replace(CALL, ends_s=begins + 1.5, hangs_up=True)).until_spoken().stopped()
    if answered:
        stage.reply(tenths=50, done=None)
    stage.until(begins + 2)
    assert stage.caller.over
    assert stage.tally.counts[count] == 1
    assert stage.tally.counts["turns"] == int(answered)


def test_the_call_ends_at_its_time_but_not_within_a_turn() -> None:
    """A caller waits for the answer to what it said last."""
    begins = Stage().until_spoken().spoken[0]
    stage = Stage(call=replace(CALL, ends_s=begins + 0.1)).until_spoken()
    over = [stage.caller.over]
    stage.stopped().reply(tenths=1).until(stage.now + 0.5)
    assert [*over, stage.caller.over] == [False, True]
    assert stage.tally.counts["answered"] == 1


def test_stages_sum_to_the_whole() -> None:
    """The server's division and what the client adds are the turn, within 5 ms."""
    stage = Stage()
    stage.until_spoken()
    begin = stage.spoken[0]
    report = {
        "stages_ms": {"silence": 100, "endpoint": 50, "stt": 20, "llm_first_token": 60, "first_segment": 5}
        | {"tts_first_audio": 30, "delivery": 1},
        "unattributed_ms": 0.5,
        "speech_end_ms": (begin + 0.6) * 1000,
        "hedged": True,
    }
    stage.until(begin + 0.58 + 0.3).stopped().reply(rejoinder=report).until(stage.now + 1)
    merged = MergedHistograms()
    merged.add(0, stage.tally.flush())
    means = {name: taken.get_mean_value() / 1000 for name, taken in merged.seconds.items()}
    parts = sum(means[name] for name in (*report["stages_ms"], "unattributed"))  # type: ignore[misc]
    assert parts == pytest.approx(means[VOICE_TO_VOICE], abs=5)
    assert stage.tally.counts["hedged"] == 1
