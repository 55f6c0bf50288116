"""The line for work with a deadline: newest first, nobody in vain, and no collapse above capacity."""

from __future__ import annotations

import heapq
import random

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.deadline_queue import DeadlineQueue

SERVICE_S = 0.1
PATIENCE_S = 0.3


def test_the_newest_goes_first() -> None:
    """Of those who wait, whoever joined last is served when a place is free."""
    line: DeadlineQueue[str] = DeadlineQueue(1)
    line.join("first", 9.0)
    assert line.calls(0.0) == (["first"], [])
    line.join("second", 9.0)
    line.join("third", 9.0)
    assert line.calls(0.1) == ([], [])
    line.leave("first", 0.2)
    assert line.calls(0.2) == (["third"], [])


def test_whoever_would_be_too_late_leaves_at_once() -> None:
    """Serving takes 100 ms: with less time left nobody is served beside others, and it is said at once."""
    line: DeadlineQueue[str] = DeadlineQueue(2)
    line.join("known", 9.0)
    line.calls(0.0)
    line.leave("known", SERVICE_S)
    line.join("busy", 9.0)
    line.calls(1.0)
    line.join("hurried", 1.0 + SERVICE_S / 2)
    assert line.calls(1.0) == ([], ["hurried"])


def test_an_estimate_that_is_too_long_is_tested() -> None:
    """After a stall of a minute nobody seems to be in time; with all places free one is served all the same."""
    line: DeadlineQueue[str] = DeadlineQueue(2)
    line.join("stalled", 9.0)
    line.calls(0.0)
    line.leave("stalled", 60.0)
    assert line.expected_s == 60.0
    line.join("next", 60.4)
    assert line.calls(60.0) == (["next"], [])


def test_withdrawn_work_teaches_nothing() -> None:
    """Work that was withdrawn after a moment does not make serving look short."""
    line: DeadlineQueue[str] = DeadlineQueue(1)
    line.join("withdrawn", 9.0)
    line.calls(0.0)
    line.leave("withdrawn", 0.001, learn=False)
    assert line.expected_s == 0


@given(st.floats(0.5, 4.0), st.integers(1, 4), st.integers(0, 2**32))
def test_above_capacity_the_places_stay_useful(load: float, places: int, seed: int) -> None:
    """At any load up to four times what fits, at least 70% of what can be served is served in time."""
    arrivals, served = _simulate(load, places, random.Random(seed))
    fits = min(len(arrivals), arrivals[-1] * places / SERVICE_S)
    assert served >= 0.7 * fits


def _simulate(load: float, places: int, draws: random.Random) -> tuple[list[float], int]:
    """Poisson arrivals and 100 ms of service with 10% of spread: how many were served within their patience."""
    line: DeadlineQueue[int] = DeadlineQueue(places)
    at, arrivals = 0.0, []
    for _ in range(400):
        at += draws.expovariate(load * places / SERVICE_S)
        arrivals.append(at)
    events = [(at, 0, number) for number, at in enumerate(arrivals)]
    heapq.heapify(events)
    done = 0
    while events:
        now, kind, number = heapq.heappop(events)
        if kind == 0:
            line.join(number, now + PATIENCE_S)
            heapq.heappush(events, (now + PATIENCE_S, 2, number))
        elif kind == 1:
            done += now <= arrivals[number] + PATIENCE_S
            line.leave(number, now)
        else:
            line.leave(number, now)
        for ticket in line.calls(now)[0]:
            service_s = SERVICE_S * max(0.5, draws.gauss(1, 0.1))
            heapq.heappush(events, (now + service_s, 1, ticket))
    return arrivals, done
