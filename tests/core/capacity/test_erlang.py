"""Erlang's formulas: against their direct form, their published values, and their own logic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.capacity.erlang import Queue, blocking, slots_for_blocking, slots_for_wait, waiting

LOADS = st.floats(0.01, 60)
SLOTS = st.integers(1, 80)


def direct_blocking(offered: float, slots: int) -> float:
    """a^c/c! over the sum of a^n/n!, in exact rational arithmetic."""
    load = Fraction(offered)
    terms = [load**n / math.factorial(n) for n in range(slots + 1)]
    return float(terms[-1] / sum(terms))


@given(LOADS, SLOTS)
def test_the_recursion_is_the_direct_formula(offered: float, slots: int) -> None:
    """Erlang B by recursion equals the formula with factorials."""
    assert blocking(offered, slots) == pytest.approx(direct_blocking(offered, slots), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("offered", "slots", "blocked", "waits"),
    [(80, 100, 0.0040, 0.020), (90, 100, 0.027, 0.217), (95, 100, 0.049, 0.507)],
)
def test_published_values(offered: float, slots: int, blocked: float, waits: float) -> None:
    """The tabulated values of both formulas come out to their printed precision."""
    assert blocking(offered, slots) == pytest.approx(blocked, rel=0.03)
    assert waiting(offered, slots) == pytest.approx(waits, rel=0.03)


def test_a_published_sizing() -> None:
    """800 Erlangs at 0.5% refused need 842 slots, and 841 are too few."""
    assert slots_for_blocking(800, 0.005) == 842
    assert blocking(800, 841) > 0.005


@given(LOADS, st.floats(1e-6, 1))
def test_slots_for_blocking_are_the_fewest(offered: float, most: float) -> None:
    """The slots found keep the target, and one less does not."""
    slots = slots_for_blocking(offered, most)
    assert blocking(offered, slots) <= most
    assert slots == 0 or blocking(offered, slots - 1) > most


@given(LOADS, SLOTS)
def test_more_slots_help_and_more_load_hurts(offered: float, slots: int) -> None:
    """Blocking and waiting fall with slots, rise with load, and waiting is the likelier of the two."""
    assert blocking(offered, slots + 1) <= blocking(offered, slots)
    assert waiting(offered, slots + 1) <= waiting(offered, slots)
    assert blocking(offered * 1.1, slots) >= blocking(offered, slots)
    assert blocking(offered, slots) <= waiting(offered, slots) <= 1


def test_one_server_is_the_textbook_queue() -> None:
    """M/M/1 at load r: r wait, the mean wait is r/(1-r) services, and the wait's tail is r exp(-(1-r) t)."""
    queue = Queue(arrivals_per_s=0.8, service_s=1.0, slots=1)
    assert waiting(0.8, 1) == pytest.approx(0.8)
    assert queue.mean_wait_s == pytest.approx(4.0)
    assert queue.wait_s(0.95) == pytest.approx(math.log(0.8 / 0.05) / 0.2)


def test_fixed_service_halves_the_wait() -> None:
    """M/D/1 waits half of M/M/1 (Pollaczek-Khinchine)."""
    random, fixed = (Queue(0.8, 1.0, 1, scv) for scv in (1.0, 0.0))
    assert fixed.mean_wait_s == pytest.approx(random.mean_wait_s / 2)


@given(st.floats(0.1, 50), st.floats(0.01, 2), st.floats(0, 4), st.floats(0, 3))
def test_slots_for_a_wait_are_the_fewest(arrivals: float, service_s: float, scv: float, most_s: float) -> None:
    """The slots found keep the wait's quantile, and one less does not (or has no steady state)."""
    slots = slots_for_wait(Queue(arrivals, service_s, 1, scv), 0.95, most_s)
    assert Queue(arrivals, service_s, slots, scv).wait_s(0.95) <= most_s
    assert slots == 1 or Queue(arrivals, service_s, slots - 1, scv).wait_s(0.95) > most_s


def test_a_full_queue_waits_for_ever() -> None:
    """At or beyond utilisation 1 every wait is infinite, and all requests wait."""
    queue = Queue(arrivals_per_s=4, service_s=0.5, slots=2)
    assert queue.mean_wait_s == queue.wait_s(0.5) == math.inf
    assert waiting(2, 2) == 1


@pytest.mark.parametrize("offered", [-1, math.nan, math.inf])
def test_nonsense_is_refused(offered: float) -> None:
    """Loads that are no load, targets that are no share and negative slots raise ValueError."""
    with pytest.raises(ValueError, match="offered load"):
        blocking(offered, 3)
    with pytest.raises(ValueError, match="slots"):
        blocking(1, -1)
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share"):
            slots_for_blocking(1, share)
    with pytest.raises(ValueError, match="quantile"):
        Queue(1, 0.1, 1).wait_s(1)
    with pytest.raises(ValueError, match="no time"):
        slots_for_wait(Queue(1, 0.1, 1), 0.95, -0.1)
