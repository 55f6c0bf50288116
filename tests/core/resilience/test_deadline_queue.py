"""Tests of the deadline queue, which serves the newest request first and drops requests that would be late.

A ticket is a waiting or served request with a deadline. A place serves one ticket at a time.
"""

from __future__ import annotations

import heapq
import random

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.deadline_queue import DeadlineQueue

SERVICE_S = 0.1
TIMEOUT_S = 0.3


def test_the_newest_ticket_goes_first() -> None:
    """When a place becomes free, the ticket that joined last is served."""
    queue: DeadlineQueue[str] = DeadlineQueue(1)
    queue.join("first", 9.0)
    assert queue.calls(0.0) == (["first"], [])
    queue.join("second", 9.0)
    queue.join("third", 9.0)
    assert queue.calls(0.1) == ([], [])
    queue.leave("first", 0.2)
    assert queue.calls(0.2) == (["third"], [])


def test_a_ticket_that_would_be_late_is_dropped() -> None:
    """While another ticket is served, a ticket whose deadline is nearer than the mean service time is dropped."""
    queue: DeadlineQueue[str] = DeadlineQueue(2)
    queue.join("measured", 9.0)
    queue.calls(0.0)
    queue.leave("measured", SERVICE_S)
    queue.join("busy", 9.0)
    queue.calls(1.0)
    queue.join("urgent", 1.0 + SERVICE_S / 2)
    assert queue.calls(1.0) == ([], ["urgent"])


def test_an_estimate_that_is_too_long_is_tested() -> None:
    """If all places are free, a ticket is served even if it has less time left than the mean service time.

    Otherwise one very slow request would make the queue drop all others for ever.
    """
    queue: DeadlineQueue[str] = DeadlineQueue(2)
    queue.join("stalled", 9.0)
    queue.calls(0.0)
    queue.leave("stalled", 60.0)
    assert queue.expected_s == 60.0
    queue.join("next", 60.4)
    assert queue.calls(60.0) == (["next"], [])


def test_withdrawn_work_does_not_change_the_estimate() -> None:
    """A ticket that leaves with learn=False does not change the mean service time."""
    queue: DeadlineQueue[str] = DeadlineQueue(1)
    queue.join("withdrawn", 9.0)
    queue.calls(0.0)
    queue.leave("withdrawn", 0.001, learn=False)
    assert queue.expected_s == 0


@given(st.floats(0.5, 4.0), st.integers(1, 4), st.integers(0, 2**32))
def test_above_capacity_the_places_stay_useful(load: float, places: int, seed: int) -> None:
    """With 0.5 to 4 times the load that the places can serve, at least 70% of the possible requests are served in time.

    The number of possible requests is the smaller of two: all arrivals, and those that the places can serve until the
    last arrival.
    """
    arrivals, served = _simulate(load, places, random.Random(seed))
    fits = min(len(arrivals), arrivals[-1] * places / SERVICE_S)
    assert served >= 0.7 * fits


def _simulate(load: float, places: int, draws: random.Random) -> tuple[list[float], int]:
    """Return the arrival times in seconds and the number of requests that were served before their deadline.

    There are 400 random arrivals (a Poisson process), at `load` times the rate that `places` places can serve.
    Service takes 100 ms with a standard deviation of 10 ms, and the deadline is 300 ms after the arrival.
    """
    queue: DeadlineQueue[int] = DeadlineQueue(places)
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
            queue.join(number, now + TIMEOUT_S)
            heapq.heappush(events, (now + TIMEOUT_S, 2, number))
        elif kind == 1:
            done += now <= arrivals[number] + TIMEOUT_S
            queue.leave(number, now)
        else:
            queue.leave(number, now)
        for ticket in queue.calls(now)[0]:
            service_s = SERVICE_S * max(0.5, draws.gauss(1, 0.1))
            heapq.heappush(events, (now + service_s, 1, ticket))
    return arrivals, done
