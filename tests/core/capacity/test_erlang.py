"""Tests of the Erlang formulas for queues: against the direct formula, published values, and each other."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.capacity.erlang import (
    Queue,
    blocking,
    blocking_in_reach,
    slots_for_blocking,
    slots_for_wait,
    waiting,
)

LOADS = st.floats(0.01, 60)
SLOTS = st.integers(1, 80)


def direct_blocking(offered: float, slots: int) -> float:
    """Return Erlang B, the share of requests that find all slots busy, by its formula with factorials.

    That is a^c/c! over the sum of a^n/n! for n from 0 to c, with a = `offered` load in Erlangs and c = `slots`.
    """
    load = Fraction(offered)
    terms = [load**n / math.factorial(n) for n in range(slots + 1)]
    return float(terms[-1] / sum(terms))


@given(LOADS, SLOTS)
def test_the_recursion_is_the_direct_formula(offered: float, slots: int) -> None:
    """`blocking`, which computes Erlang B by recursion, equals the formula with factorials."""
    assert blocking(offered, slots) == pytest.approx(direct_blocking(offered, slots), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("offered", "slots", "blocked", "waits"),
    [(80, 100, 0.0040, 0.020), (90, 100, 0.027, 0.217), (95, 100, 0.049, 0.507)],
)
def test_published_values(offered: float, slots: int, blocked: float, waits: float) -> None:
    """`blocking` (Erlang B) and `waiting` (Erlang C) are within 3% of published tables."""
    assert blocking(offered, slots) == pytest.approx(blocked, rel=0.03)
    assert waiting(offered, slots) == pytest.approx(waits, rel=0.03)


def test_a_published_sizing() -> None:
    """For 800 Erlangs of which at most 0.5% are refused, 842 slots are needed, as published; 841 are too few."""
    assert slots_for_blocking(800, 0.005) == 842
    assert blocking(800, 841) > 0.005


@given(LOADS, st.floats(1e-6, 1))
def test_slots_for_blocking_are_the_fewest(offered: float, most: float) -> None:
    """With the returned number of slots the blocked share is at most `most`; with one slot less it is higher."""
    slots = slots_for_blocking(offered, most)
    assert blocking(offered, slots) <= most
    assert slots == 0 or blocking(offered, slots - 1) > most


@given(LOADS, SLOTS)
def test_more_slots_help_and_more_load_hurts(offered: float, slots: int) -> None:
    """More slots never raise the shares that are blocked or wait, and more load never lowers the blocked share.

    The share that waits is at least the share that is blocked.
    """
    assert blocking(offered, slots + 1) <= blocking(offered, slots)
    assert waiting(offered, slots + 1) <= waiting(offered, slots)
    assert blocking(offered * 1.1, slots) >= blocking(offered, slots)
    assert blocking(offered, slots) <= waiting(offered, slots) <= 1


def test_one_server_is_the_textbook_queue() -> None:
    """One slot with random arrivals and service times (M/M/1) has the textbook values.

    At load r, the share r of requests waits, the mean wait is r/(1-r) service times, and the share that waits longer
    than t service times is r exp(-(1-r) t).
    """
    queue = Queue(arrivals_per_s=0.8, service_s=1.0, slots=1)
    assert waiting(0.8, 1) == pytest.approx(0.8)
    assert queue.mean_wait_s == pytest.approx(4.0)
    assert queue.wait_s(0.95) == pytest.approx(math.log(0.8 / 0.05) / 0.2)


def test_fixed_service_halves_the_wait() -> None:
    """With fixed service times (M/D/1) the mean wait is half of that with exponential ones (M/M/1)."""
    random, fixed = (Queue(0.8, 1.0, 1, scv) for scv in (1.0, 0.0))
    assert fixed.mean_wait_s == pytest.approx(random.mean_wait_s / 2)


@given(st.floats(0.1, 50), st.floats(0.01, 2), st.floats(0, 4), st.floats(0, 3))
def test_slots_for_a_wait_are_the_fewest(arrivals: float, service_s: float, scv: float, most_s: float) -> None:
    """With the returned number of slots the p95 of the wait is at most `most_s`; with one slot less it is longer."""
    slots = slots_for_wait(Queue(arrivals, service_s, 1, scv), 0.95, most_s)
    assert Queue(arrivals, service_s, slots, scv).wait_s(0.95) <= most_s
    assert slots == 1 or Queue(arrivals, service_s, slots - 1, scv).wait_s(0.95) > most_s


def test_a_saturated_queue_waits_forever() -> None:
    """At a utilization of 1 or above, every wait is infinite, and all requests wait."""
    queue = Queue(arrivals_per_s=4, service_s=0.5, slots=2)
    assert queue.mean_wait_s == queue.wait_s(0.5) == math.inf
    assert waiting(2, 2) == 1


@pytest.mark.parametrize("offered", [-1, math.nan, math.inf])
def test_invalid_inputs_are_rejected(offered: float) -> None:
    """An invalid load, share, quantile, wait or number of slots raises ValueError."""
    with pytest.raises(ValueError, match="offered load"):
        blocking(offered, 3)
    with pytest.raises(ValueError, match="slots"):
        blocking(1, -1)
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share"):
            slots_for_blocking(1, share)
    with pytest.raises(ValueError, match="quantile"):
        Queue(1, 0.1, 1).wait_s(1)
    with pytest.raises(ValueError, match="leaves no time"):
        slots_for_wait(Queue(1, 0.1, 1), 0.95, -0.1)


@given(st.floats(0.1, 40), st.integers(1, 30), st.integers(1, 10), st.integers(1, 12))
def test_separate_hosts_refuse_at_least_as_many_as_one_pool(load: float, hosts: int, places: int, reach: int) -> None:
    """Callers who reach only some hosts are refused at least as often as with one pool of all places.

    With as many attempts as hosts there is no difference, and more attempts never refuse more.
    """
    offered = load * hosts / 4
    found = blocking_in_reach(offered, hosts, places, reach)
    pool = blocking(offered, hosts * places)
    assert found >= pool - 1e-12
    assert blocking_in_reach(offered, hosts, places, hosts) == pytest.approx(pool)
    assert blocking_in_reach(offered, hosts, places, reach + 1) <= found + 1e-12


def test_a_simulated_round_robin_refuses_no_more_than_the_bound() -> None:
    """24 hosts of 5 places, of which a caller reaches 8 in turn, refuse between Erlang B of one pool and of the bound.

    20,000 calls of exponential length are offered at 108 Erlangs. The entry begins with the next host each time.
    """
    hosts, places, reach, offered, calls = 24, 5, 8, 108.0, 20_000
    draw = random.Random(3)
    ends: list[list[float]] = [[] for _ in range(hosts)]
    now, refused = 0.0, 0
    for call in range(calls):
        now += draw.expovariate(offered)
        for attempt in range(reach):
            host = (call + attempt) % hosts
            ends[host] = [end for end in ends[host] if end > now]
            if len(ends[host]) < places:
                ends[host].append(now + draw.expovariate(1.0))
                break
        else:
            refused += 1
    noise = 3 * math.sqrt(refused) / calls
    pool, bound = blocking(offered, hosts * places), blocking_in_reach(offered, hosts, places, reach)
    assert pool - noise <= refused / calls <= bound + noise
    assert bound > 1.5 * pool


@pytest.mark.parametrize(("hosts", "places", "reach"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_no_hosts_are_refused(hosts: int, places: int, reach: int) -> None:
    """Fewer than one host, place or attempt raises ValueError."""
    with pytest.raises(ValueError, match="at least 1"):
        blocking_in_reach(1.0, hosts, places, reach)
