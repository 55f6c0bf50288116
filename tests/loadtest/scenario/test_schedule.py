"""Frozen schedules: the same seed gives the same load, and each arrival pattern has its stated shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.scenario.scenario import Arrivals, CallerBehavior, Scenario
from loadtest.scenario.schedule import FRAME_SLOTS, plan
from rejoinder.core.errors import ConfigError

BASE = Scenario("ws://127.0.0.1:1/v1", sessions=100, for_s=60)
OPEN = replace(BASE, arrivals=Arrivals.POISSON, for_s=2000, warm_up_s=0, rate_per_s=2.0, session_s=10)


def times(scenario: Scenario) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([call.at_s for call in plan(scenario).calls])


def test_the_seed_determines_the_schedule() -> None:
    """The same seed gives the same calls and hash. Another seed or another behavior gives another hash."""
    first = plan(OPEN)
    assert first == plan(OPEN)
    assert first.sha256 != plan(replace(OPEN, seed=2)).sha256
    assert first.sha256 != plan(replace(OPEN, behavior=CallerBehavior(barge_in=0.1))).sha256


def test_a_ramp_opens_all_calls_and_holds_them() -> None:
    """All calls start within the ramp and last until the end of the measured time.

    Their slots (the ms within 20 ms at which a caller's frames are due) cover all 20 ms.
    """
    frozen = plan(BASE)
    assert len(frozen.calls) == 100
    assert max(call.at_s for call in frozen.calls) < BASE.ramp_s
    assert {call.ends_s for call in frozen.calls} == {frozen.measure_to_s}
    assert {call.slot for call in frozen.calls} == set(range(FRAME_SLOTS))
    assert frozen.measure_to_s - frozen.measure_from_s == 60


def test_poisson_arrivals_have_the_rate_and_are_memoryless() -> None:
    """At 2 calls per second, the mean gap between Poisson arrivals is within 5% of 0.5 s.

    Its coefficient of variation is within 5% of 1.
    """
    gaps = np.diff(times(OPEN))
    assert gaps.mean() == pytest.approx(0.5, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)


def test_bursts_have_the_same_rate_and_twice_the_variation() -> None:
    """`bursts` arrivals have Poisson's mean gap within 10%, and a coefficient of variation of 2 within 15%."""
    gaps = np.diff(times(replace(OPEN, arrivals=Arrivals.BURSTS)))
    assert gaps.mean() == pytest.approx(0.5, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(2, rel=0.15)


def test_a_spike_is_five_times_the_rate() -> None:
    """The rate in the middle fifth of the run is five times the rate outside it."""
    at = times(replace(OPEN, arrivals=Arrivals.SPIKE)) / 2000
    inside = ((at >= 0.4) & (at < 0.6)).sum() / 0.2
    outside = ((at < 0.4) | (at >= 0.6)).sum() / 0.8
    assert inside / outside == pytest.approx(5, rel=0.1)


def test_a_diurnal_run_peaks_in_the_middle() -> None:
    """In the middle fifth of a diurnal run, over four times as many calls arrive as in its first and last tenth."""
    at = times(replace(OPEN, arrivals=Arrivals.DIURNAL)) / 2000
    noon = ((at > 0.4) & (at < 0.6)).sum()
    night = ((at < 0.1) | (at > 0.9)).sum()
    assert noon > 4 * night


def test_the_mean_call_length_is_session_s() -> None:
    """The mean call length is within 5% of `session_s`."""
    lengths = [call.ends_s - call.at_s for call in plan(OPEN).calls]
    assert np.mean(lengths) == pytest.approx(10, rel=0.05)


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    """The calls of a trace file have the times and lengths in the file, in order of arrival."""
    trace = tmp_path / "trace.csv"
    trace.write_text("3.5,10\n1,2\n\n")
    calls = plan(replace(OPEN, arrivals=Arrivals.TRACE, trace=str(trace))).calls
    assert [(call.at_s, call.ends_s) for call in calls] == [(1, 3), (3.5, 13.5)]


@pytest.mark.parametrize("text", ["one,two", "-1,3", "5,nan", ""])
def test_a_bad_trace_is_refused(tmp_path: Path, text: str) -> None:
    """A malformed or empty trace raises ConfigError instead of starting an empty run."""
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(ConfigError):
        plan(replace(OPEN, arrivals=Arrivals.TRACE, trace=str(trace)))


def test_turns_do_not_depend_on_earlier_turns() -> None:
    """A turn's clip, think time and interruption depend only on the call's seed and the turn's number.

    Over 400 turns, all clips occur, and interruptions and think times have the requested share and median.
    """
    call = plan(BASE).calls[3]
    behavior = CallerBehavior(barge_in=0.5)
    assert call.turn(7, behavior, 5) == call.turn(7, behavior, 5)
    turns = [call.turn(number, behavior, 5) for number in range(400)]
    assert {turn.clip for turn in turns} == set(range(5))
    assert 0.4 < np.mean([turn.barge_in_s is not None for turn in turns]) < 0.6
    assert np.median([turn.think_s for turn in turns]) == pytest.approx(behavior.think_s, rel=0.15)


def test_regions_and_shares_are_drawn_by_weight() -> None:
    """Calls are spread over the regions in proportion to their weights.

    The shares of calls with listeners and with early hang-ups are those of the scenario.
    """
    behavior = CallerBehavior(muted=0.2, hang_up=0.3)
    calls = plan(replace(OPEN, regions=("local=2", "us-asia+relay"), behavior=behavior)).calls
    assert np.mean([call.region == "local" for call in calls]) == pytest.approx(2 / 3, abs=0.03)
    assert np.mean([call.listener for call in calls]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([call.hangs_up for call in calls]) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("region", ["mars", "local+tunnel", "local=0", "local=x"])
def test_a_bad_region_is_refused(region: str) -> None:
    """An unknown route or a weight that is not positive raises ConfigError."""
    with pytest.raises(ConfigError, match="--set regions"):
        plan(replace(BASE, regions=(region,)))
