"""The search for the knee, against contenders whose knee is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frameworks.knee import MOST_PROBES, REPEATS, KneeSearch, largest
from benchmarks.frameworks.timing import Probe, ProbeOutcome


def probe(sessions: int, outcome: ProbeOutcome) -> Probe:
    return Probe(
        sessions,
        outcome=outcome,
        cause="",
        turns=10,
        missed=0,
        stray=0,
        p50_ms=1.0,
        p95_ms=2.0,
        p99_ms=3.0,
        late_p99_ms=0.5,
        foreign_share=0.0,
        cpu=0.5,
        memory_mb=100.0,
    )


def search(answer: Callable[[int, int], ProbeOutcome], most: int = 400) -> KneeSearch:
    """`answer` gets the sessions and how many runs there were before."""
    made: list[int] = []

    async def run(sessions: int) -> Probe:
        made.append(sessions)
        return probe(sessions, answer(sessions, len(made) - 1))

    return KneeSearch(run, most)


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_knee_is_found_to_five_percent(knee: int, first: int) -> None:
    """From any start, within 5% below the truth and never above it, and three runs confirm it."""
    looking = search(lambda sessions, _: ProbeOutcome.PASS if sessions <= knee else ProbeOutcome.FAIL)
    found = asyncio.run(largest(looking, first))
    assert found is not None
    assert knee - max(1, round(0.05 * knee)) <= found <= knee
    assert looking.passes(found) >= REPEATS


def test_what_holds_nobody_holds_none() -> None:
    """One session fails: the knee is 0."""
    assert asyncio.run(largest(search(lambda *_: ProbeOutcome.FAIL), 64)) == 0


def test_a_knee_that_does_not_repeat_is_lowered() -> None:
    """A size that passed by luck once and then fails gives way to one that passes three times."""
    lucky: set[int] = set()

    def answer(sessions: int, _: int) -> ProbeOutcome:
        if sessions <= 90 or (sessions <= 100 and sessions not in lucky):
            lucky.add(sessions)
            return ProbeOutcome.PASS
        return ProbeOutcome.FAIL

    found = asyncio.run(largest(search(answer), 50))
    assert found is not None
    assert 80 <= found <= 90


def test_a_spoiled_run_is_repeated() -> None:
    """Every third run is INVALID for the harness's own fault: the knee is the same."""

    def answer(sessions: int, before: int) -> ProbeOutcome:
        if before % 3 == 0:
            return ProbeOutcome.INVALID
        return ProbeOutcome.PASS if sessions <= 40 else ProbeOutcome.FAIL

    assert asyncio.run(largest(search(answer, most=64), 32)) in (39, 40)


def test_a_harness_that_never_measures_claims_nothing() -> None:
    """Only INVALID runs: no knee, and an end after a few."""
    looking = search(lambda *_: ProbeOutcome.INVALID)
    assert asyncio.run(largest(looking, 8)) is None
    assert len(looking.probes) <= MOST_PROBES


@pytest.mark.parametrize("first", [1, 24, 48])
def test_the_most_that_may_be_tried_is_an_answer(first: int) -> None:
    """A contender that never fails holds at least what was tried."""
    assert asyncio.run(largest(search(lambda *_: ProbeOutcome.PASS, most=48), first)) == 48


def test_a_search_that_was_broken_off_goes_on() -> None:
    """Earlier runs are used up before new ones are made, and spoiled ones are no answer."""
    made: list[int] = []

    async def run(sessions: int) -> Probe:
        made.append(sessions)
        return probe(sessions, ProbeOutcome.PASS if sessions <= 57 else ProbeOutcome.FAIL)

    whole = KneeSearch(run, 400)
    assert asyncio.run(largest(whole, 24)) == 57
    before, made = len(made), []
    earlier = [probe(24, ProbeOutcome.INVALID), *whole.probes[:-2]]
    assert asyncio.run(largest(KneeSearch(run, 400, earlier=earlier), 24)) == 57
    assert len(made) == 2 < before
