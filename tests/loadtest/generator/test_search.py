"""Tests of the search for the largest load, with simulated systems whose capacity is known."""

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
    """Run a search on a simulated system and return all of its steps.

    Steps with up to `capacity` calls PASS and larger ones FAIL. Steps with more than `limit` calls are INVALID.
    """
    steps = []
    while (step := search.next()) is not None:
        steps.append(step)
        assert len(steps) < 100
        outcome = RunOutcome.PASS if step.sessions <= capacity else RunOutcome.FAIL
        search.record(CompletedStep(step, RunOutcome.INVALID if step.sessions > limit else outcome, recovered=True))
    return steps


@given(capacity=st.integers(1, 5000), start=st.integers(1, 200))
def test_the_limit_is_found_to_five_percent(capacity: int, start: int) -> None:
    """The reported number of calls has passed three repeats.

    The smallest failing number is at most 5% or one call higher.
    """
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
    """Each step has its own seed, so that repeats do not confirm a limit that depends on one schedule."""
    steps = drive(Search(10, 1000, seed=5), 300)
    assert len({step.seed for step in steps}) == len(steps)
    assert steps[0].seed == 5


def test_a_failed_self_check_ends_the_search() -> None:
    """If a step is INVALID, the search ends as generator-limited with the largest number of calls that passed."""
    search = Search(10, 10_000)
    drive(search, capacity=10_000, limit=100)
    assert search.ending is SearchEnd.GENERATOR_LIMITED
    assert search.holds == 80


def test_the_bound_of_the_search_is_confirmed() -> None:
    """If the largest allowed number of calls passes, the search confirms it and ends as "bound reached"."""
    search = Search(10, 64)
    steps = drive(search, capacity=1000)
    assert (search.ending, search.holds, search.breaks) == (SearchEnd.BOUND_REACHED, 64, None)
    assert [step.sessions for step in steps] == [10, 20, 40, 64, 64, 64, 64]


def test_a_system_that_does_not_recover_has_failed_the_step() -> None:
    """A step fails if the system does not recover after it, even if the step's run passed."""
    search = Search(10, 1000)
    while (step := search.next()) is not None:
        search.record(CompletedStep(step, RunOutcome.PASS, recovered=step.sessions < 100))
    assert search.holds < 100
    assert search.ending is SearchEnd.SYSTEM_LIMITED


def test_a_failed_repeat_continues_the_search_below() -> None:
    """If a confirming repeat fails, the search continues with fewer calls."""
    search = Search(10, 1000)
    runs: dict[int, int] = {}
    while (step := search.next()) is not None:
        runs[step.sessions] = runs.get(step.sessions, 0) + 1
        flaky = 50 < step.sessions <= 100 and runs[step.sessions] > 1
        search.record(CompletedStep(step, RunOutcome.FAIL if flaky or step.sessions > 100 else RunOutcome.PASS))
    assert search.holds <= 50


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(500, 560, True), (500, 600, False), (None, 400, True), (500, None, False)]
)
def test_recovery_compares_the_medians_of_the_small_load(
    before: float | None, after: float | None, expected: bool
) -> None:
    """A system has recovered if a small load's median latency is at most 10% plus 20 ms above that before the step.

    Without a median before the step it has recovered, and without a median after it has not.
    """
    assert recovered(before, after) is expected
