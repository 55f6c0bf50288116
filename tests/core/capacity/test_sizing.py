"""Tests of sizing: the computed replicas, hosts and nodes suffice for the target, and one less does not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rejoinder.core.capacity.erlang import Queue, blocking, blocking_in_reach
from rejoinder.core.capacity.sizing import (
    REACH,
    WAIT_QUANTILE,
    Basis,
    ReplicaUnit,
    SizedComponent,
    StageWork,
    Traffic,
    basis_at,
    hosts,
    messages,
    replicas,
)

HOST = ReplicaUnit("host", slots=100, cores=1, memory_mb=500)
STT = ReplicaUnit("stt", slots=4, cores=1, memory_mb=700)

WORKS = st.builds(StageWork, st.floats(0.5, 4), st.floats(0.05, 3), st.floats(0, 3))


def turns_carried(work: StageWork, slots: int, most_wait_s: float) -> float:
    """Return the largest number of turns per second at which a stage with `slots` slots keeps its waiting time limit.

    The limit: the quantile WAIT_QUANTILE of the waits is at most `most_wait_s` seconds. The result is found by
    bisection. It is the inverse of the function `replicas`, which is under test.
    """
    low, high = 0.0, slots / (work.requests_per_turn * work.hold_s)
    for _ in range(60):
        middle = (low + high) / 2
        queue = work.queue(middle)
        if Queue(queue.arrivals_per_s, queue.service_s, slots, queue.scv).wait_s(WAIT_QUANTILE) <= most_wait_s:
            low = middle
        else:
            high = middle
    return low


@given(WORKS, st.floats(0.1, 80), st.floats(0.01, 2), st.integers(1, 16))
def test_inversion_round_trip(work: StageWork, turns_per_s: float, most_wait_s: float, slots: int) -> None:
    """The replicas that `replicas` returns suffice for the turns per second, and one replica less does not."""
    unit = ReplicaUnit("x", slots, 1, 100)
    needed = replicas(work, unit, turns_per_s, most_wait_s)
    assert turns_carried(work, needed * slots, most_wait_s) >= turns_per_s * (1 - 1e-9)
    if needed > 1:
        assert turns_carried(work, (needed - 1) * slots, most_wait_s) <= turns_per_s * (1 + 1e-9)


@given(WORKS, st.integers(1, 60), st.floats(0.01, 2))
def test_more_slots_carry_more(work: StageWork, slots: int, most_wait_s: float) -> None:
    """More slots or a longer allowed wait never lower the turns per second that a stage can serve.

    The work of these turns never needs more slots than the stage has.
    """
    carried = turns_carried(work, slots, most_wait_s)
    assert carried <= turns_carried(work, slots + 1, most_wait_s)
    assert carried <= turns_carried(work, slots, most_wait_s * 2)
    assert carried * work.requests_per_turn * work.hold_s <= slots


@given(st.floats(1, 4000), st.floats(0.0005, 0.2), st.integers(0, 3))
def test_hosts_admit_enough(offered: float, refused: float, spare: int) -> None:
    """With the computed hosts at most the given share of calls is refused; with one host less, more are refused.

    A caller reaches at most eight hosts, so the hosts are not one pool: they never need fewer places than a pool does.
    """
    sized, admitted = hosts(offered, refused, HOST, spare)
    assert admitted == sized.needed * HOST.slots
    assert blocking_in_reach(offered, sized.needed, HOST.slots, REACH) <= refused
    assert sized.needed == 1 or blocking_in_reach(offered, sized.needed - 1, HOST.slots, REACH) > refused
    assert blocking(offered, admitted) <= refused
    assert sized.replicas == sized.needed + spare


def test_totals_count_the_spare() -> None:
    """The cores, memory and GPUs of a component are the sums over its needed and its spare replicas."""
    sized = SizedComponent(ReplicaUnit("llm", 8, 2, 3000, gpus=0.5), needed=3, spare=1)
    assert (sized.cores, sized.memory_mb, sized.gpus) == (8, 12_000, 2)


def test_extrapolation_is_marked() -> None:
    """A prediction is marked PREDICTED within the range that was calibrated, and EXTRAPOLATED outside of it."""
    marks = [basis_at(value, 10, 30) for value in (9, 10, 30, 31)]
    assert marks == [Basis.EXTRAPOLATED, Basis.PREDICTED, Basis.PREDICTED, Basis.EXTRAPOLATED]


@given(st.floats(0, 1e6), st.floats(0, 1000))
def test_messages_cost_their_headers(size: float, per_s: float) -> None:
    """On the network, a message takes its bytes and 52 bytes of headers for each TCP segment of up to 1,448 bytes."""
    traffic = messages(size, 0, per_s, 0)
    assume(per_s > 0)
    segments = traffic.in_pps / per_s
    assert segments == pytest.approx(round(segments))
    assert (segments - 1) * 1448 < max(size, 1) <= segments * 1448 or size == 0
    assert traffic.in_kbps == pytest.approx((size + segments * 52) * per_s * 8 / 1000)
    assert (traffic.out_kbps, traffic.out_pps) == (0, 0)


def test_traffic_of_many() -> None:
    """`times` multiplies the traffic of one session by the number of sessions; `mbps` and `pps` add both directions."""
    total = Traffic(100, 300, 50, 60).times(1000)
    assert (total.mbps, total.pps) == (400, 110_000)
