"""Tests of the search for the knee (largest number of sessions that passes) of simulated frameworks."""

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
    """Return a search for the knee with up to `most` sessions, whose runs are simulated.

    The outcome of a run is `answer(sessions, number of earlier runs)`.
    """
    made: list[int] = []

    async def run(sessions: int) -> Probe:
        made.append(sessions)
        return probe(sessions, answer(sessions, len(made) - 1))

    return KneeSearch(run, most)


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_knee_is_found_to_five_percent(knee: int, first: int) -> None:
    """The found knee is at most 5% below the true knee, never above it, and has passed in three runs.

    That is so for any number of sessions (`first`) with which the search starts.
    """
    searching = search(lambda sessions, _: ProbeOutcome.PASS if sessions <= knee else ProbeOutcome.FAIL)
    found = asyncio.run(largest(searching, first))
    assert found is not None
    assert knee - max(1, round(0.05 * knee)) <= found <= knee
    assert searching.passes(found) >= REPEATS


def test_a_contender_that_always_fails_has_knee_0() -> None:
    """If every run fails, even with one session, the knee is 0."""
    assert asyncio.run(largest(search(lambda *_: ProbeOutcome.FAIL), 64)) == 0


def test_a_knee_that_does_not_repeat_is_lowered() -> None:
    """If 91 to 100 sessions pass only in their first run, the knee is at most 90, where every run passes."""
    lucky: set[int] = set()

    def answer(sessions: int, _: int) -> ProbeOutcome:
        if sessions <= 90 or (sessions <= 100 and sessions not in lucky):
            lucky.add(sessions)
            return ProbeOutcome.PASS
        return ProbeOutcome.FAIL

    found = asyncio.run(largest(search(answer), 50))
    assert found is not None
    assert 80 <= found <= 90


def test_an_invalid_run_is_repeated() -> None:
    """If every third run is INVALID, the search repeats it and still finds the true knee."""

    def answer(sessions: int, before: int) -> ProbeOutcome:
        if before % 3 == 0:
            return ProbeOutcome.INVALID
        return ProbeOutcome.PASS if sessions <= 40 else ProbeOutcome.FAIL

    assert asyncio.run(largest(search(answer, most=64), 32)) in (39, 40)


def test_only_invalid_runs_give_no_knee() -> None:
    """If every run is INVALID, the search ends after a bounded number of runs without a knee."""
    searching = search(lambda *_: ProbeOutcome.INVALID)
    assert asyncio.run(largest(searching, 8)) is None
    assert len(searching.probes) <= MOST_PROBES


@pytest.mark.parametrize("first", [1, 24, 48])
def test_the_knee_is_at_most_the_largest_tried_size(first: int) -> None:
    """If every run passes, the knee is the largest number of sessions that the search may try."""
    assert asyncio.run(largest(search(lambda *_: ProbeOutcome.PASS, most=48), first)) == 48


def test_an_interrupted_search_continues() -> None:
    """A search that gets the runs of an interrupted one only makes the missing runs and finds the same knee.

    Earlier INVALID runs are ignored.
    """
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
