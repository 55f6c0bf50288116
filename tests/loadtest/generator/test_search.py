"""The saturation search against systems of known capacity, without running anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.search import (
    PRECISION,
    REPEATS,
    CompletedStep,
    Search,
    SearchEnd,
    SearchStep,
    StepKind,
    recovered,
)
from loadtest.results.result import RunOutcome


def drive(search: Search, capacity: int, limit: int = 10**9) -> list[SearchStep]:
    """Hold every step against a system that passes up to `capacity`, with a generator fit up to `limit` calls."""
    steps = []
    while (step := search.next()) is not None:
        steps.append(step)
        assert len(steps) < 100
        outcome = RunOutcome.PASS if step.sessions <= capacity else RunOutcome.FAIL
        search.take(CompletedStep(step, RunOutcome.INVALID if step.sessions > limit else outcome, recovered=True))
    return steps


@given(capacity=st.integers(1, 5000), start=st.integers(1, 200))
def test_the_frontier_is_found_to_five_percent(capacity: int, start: int) -> None:
    """What is reported passed three times beyond the search, and the smallest failure is within 5% (or one call)."""
    search = Search(start, 20_000)
    steps = drive(search, capacity)
    if search.ending is SearchEnd.NOTHING_PASSES:
        assert start // 16 >= capacity or capacity < 1
        return
    assert search.ending is SearchEnd.SYSTEM_LIMITED
    assert search.holds <= capacity < (search.breaks or 0)
    assert (search.breaks or 0) - search.holds <= max(1, PRECISION * (search.breaks or 0))
    assert [step.kind for step in steps[-REPEATS:]] == [StepKind.CONFIRM] * REPEATS
    assert {step.sessions for step in steps[-REPEATS:]} == {search.holds}


def test_every_step_has_a_seed_of_its_own() -> None:
    """A frontier that hangs on one schedule would not be confirmed."""
    steps = drive(Search(10, 1000, seed=5), 300)
    assert len({step.seed for step in steps}) == len(steps)
    assert steps[0].seed == 5


def test_an_unfit_generator_ends_the_search_as_its_own_limit() -> None:
    """What the system holds beyond is not claimed."""
    search = Search(10, 10_000)
    drive(search, capacity=10_000, limit=100)
    assert search.ending is SearchEnd.GENERATOR_LIMITED
    assert search.holds == 80


def test_the_bound_of_the_search_is_confirmed_too() -> None:
    """A system that holds all that was asked is reported with the bound, not as limited."""
    search = Search(10, 64)
    steps = drive(search, capacity=1000)
    assert (search.ending, search.holds, search.breaks) == (SearchEnd.BOUND_REACHED, 64, None)
    assert [step.sessions for step in steps] == [10, 20, 40, 64, 64, 64, 64]


def test_a_system_that_does_not_come_back_has_failed_the_step() -> None:
    """Passing a load and staying slow after it is a failure of that load."""
    search = Search(10, 1000)
    while (step := search.next()) is not None:
        search.take(CompletedStep(step, RunOutcome.PASS, recovered=step.sessions < 100))
    assert search.holds < 100
    assert search.ending is SearchEnd.SYSTEM_LIMITED


def test_a_failed_repeat_goes_on_below() -> None:
    """A load that passes once and then fails is not what the system holds."""
    search = Search(10, 1000)
    seen: dict[int, int] = {}
    while (step := search.next()) is not None:
        seen[step.sessions] = seen.get(step.sessions, 0) + 1
        flaky = 50 < step.sessions <= 100 and seen[step.sessions] > 1
        search.take(CompletedStep(step, RunOutcome.FAIL if flaky or step.sessions > 100 else RunOutcome.PASS))
    assert search.holds <= 50


@pytest.mark.parametrize(
    ("before", "after", "back"), [(500, 560, True), (500, 600, False), (None, 400, True), (500, None, False)]
)
def test_recovery_is_the_small_load_s_own_median(before: float | None, after: float | None, back: bool) -> None:
    """Within 10% and 20 ms of what it was; no answer at all is no recovery."""
    assert recovered(before, after) is back
