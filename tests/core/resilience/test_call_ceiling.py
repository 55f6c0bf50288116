"""Tests of the ceiling of calls that is learned from the latencies of turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.call_ceiling import (
    ENOUGH_TURNS,
    OLDEST_S,
    PROBE_S,
    SLOWER_THAN_TIER,
    TAIL,
    CallCeiling,
    MeasuredTurn,
)

LIMIT_S = 0.6


def heard(ceiling: CallCeiling, seconds: list[float], calls: int, start: float) -> float:
    """Record a turn every 0.1 s and judge after each. Return the time after the last one."""
    now = start
    for latency_s in seconds:
        now += 0.1
        ceiling.note(MeasuredTurn(now, latency_s, calls))
        ceiling.judge(calls, now, beyond=False)
    return now


def started(number: int) -> CallCeiling:
    """Return a ceiling at `number` calls."""
    ceiling = CallCeiling(LIMIT_S, 1.25)
    ceiling.start(number)
    return ceiling


def test_enough_turns_in_time_raise_the_ceiling_by_a_step() -> None:
    """With 8 calls, ENOUGH_TURNS turns in time raise the ceiling to 10; one turn fewer does not."""
    ceiling = started(8)
    now = heard(ceiling, [0.3] * (ENOUGH_TURNS - 1), 8, 0.0)
    assert ceiling.number == 8
    heard(ceiling, [0.3], 8, now)
    assert ceiling.number == 10


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_few_calls_grow_by_one(calls: int) -> None:
    """If calls that take a turn every 10 s are answered in time, there is a place for one more after 50 s at most."""
    ceiling = started(calls)
    now = 0.0
    while now < 50.0:
        assert ceiling.number == calls
        now += 10.0 / calls
        ceiling.note(MeasuredTurn(now, 0.3, calls))
        ceiling.judge(calls, now, beyond=False)
        if ceiling.number > calls:
            break
    assert ceiling.number == calls + 1


def test_late_turns_lower_the_ceiling_until_the_pause_is_over() -> None:
    """Late turns with 10 calls lower the ceiling to 9. Turns in time raise it to 10 again only after PROBE_S."""
    ceiling = started(10)
    now = heard(ceiling, [0.7] * 10, 10, 0.0)
    assert ceiling.number == 9
    now = heard(ceiling, [0.3] * 200, 9, now)
    assert ceiling.number == 9
    heard(ceiling, [0.3] * 200, 9, now + PROBE_S)
    assert ceiling.number > 9


def test_a_slow_tail_lowers_the_ceiling() -> None:
    """If two of ten turns exceed TAIL times the limit, the ceiling falls although the median is in time."""
    ceiling = started(10)
    heard(ceiling, [0.3, 0.3, 0.3, 0.3, TAIL * LIMIT_S + 0.1] * 2, 10, 0.0)
    assert ceiling.number == 9


def test_each_failure_doubles_the_pause() -> None:
    """After the second failure at 10 calls, PROBE_S is too short to try 10 calls again."""
    ceiling = started(10)
    now = heard(ceiling, [0.7] * 10, 10, 0.0)
    now = heard(ceiling, [0.3] * 50, 9, now + PROBE_S)
    assert ceiling.number >= 10
    now = heard(ceiling, [0.7] * 100, 10, now)
    heard(ceiling, [0.3] * 50, 9, now + PROBE_S)
    assert ceiling.number == 9


def test_turns_of_another_load_are_not_used() -> None:
    """Late turns with 20 calls say nothing about 5 calls, and turns older than OLDEST_S say nothing at all."""
    ceiling = started(20)
    now = heard(ceiling, [0.5] * 10, 20, 0.0)
    assert ceiling.median_s(20, now) == 0.5
    assert ceiling.median_s(5, now) is None
    assert ceiling.median_s(20, now + OLDEST_S + 1) is None


def test_a_system_that_is_slower_than_the_tier_gets_a_limit_of_its_own() -> None:
    """If turns take 1 s even without load, the limit is SLOWER_THAN_TIER times this, so calls are still admitted."""
    ceiling = started(1)
    now = 0.0
    for _ in range(ENOUGH_TURNS):
        now += 0.1
        ceiling.note(MeasuredTurn(now, 1.0, 1))
    ceiling.judge(1, now, beyond=False)
    assert ceiling.limit_s == SLOWER_THAN_TIER * 1.0
    heard(ceiling, [1.1] * ENOUGH_TURNS, 1, now)
    assert ceiling.number == 2


@given(st.lists(st.lists(st.floats(0.05, 2), min_size=1, max_size=40), max_size=6), st.integers(1, 50))
def test_the_ceiling_never_exceeds_a_step_above_what_was_measured(runs: list[list[float]], calls: int) -> None:
    """Whatever the latencies are, the ceiling is at least 1 and at most one step above the calls that were measured."""
    ceiling = started(calls)
    now = 0.0
    for latencies in runs:
        now = heard(ceiling, latencies, calls, now)
        assert 1 <= ceiling.number <= max(calls + 1, int(1.25 * calls))
