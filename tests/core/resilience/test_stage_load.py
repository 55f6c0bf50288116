"""Tests of the load of a stage replica: what a report says after requests of several hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.stage_load import (
    CALLS_LAG_S,
    HOST_TTL_S,
    MAX_HOSTS,
    MAX_RECORDS,
    REUSE_S,
    WINDOW_S,
    LoadMeter,
    Work,
)


def served(meter: LoadMeter, arrived: float, queue_s: float, service_s: float, **other: bool) -> None:
    """Record a request that arrived, waited `queue_s` seconds and was served for `service_s` seconds."""
    work = Work(arrived, **other)
    meter.begin(work)
    work.queue_s = queue_s
    work.first_at = arrived + queue_s + service_s / 2
    meter.end(work, arrived + queue_s + service_s)


def test_a_report_has_the_share_of_the_slots_and_the_waits() -> None:
    """Four requests of 2 s in 10 s use 0.4 of two slots. A quarter of that time is not essential."""
    meter = LoadMeter("r1", 2)
    for arrived in (1.0, 3.0, 5.0):
        served(meter, arrived, 0.1, 2.0)
    served(meter, 7.0, 0.0, 2.0, essential=False)
    report = meter.report(10.0)
    assert (report.replica, report.slots) == ("r1", 2)
    assert report.utilisation == pytest.approx(0.3)
    assert report.load == pytest.approx(0.4)
    assert report.queue_s == pytest.approx(0.1)
    assert report.first_s == pytest.approx(1.0)
    assert report.service_s == pytest.approx(2.0)


def test_work_that_still_runs_counts() -> None:
    """A request that has run for 5 s of the window uses half of one slot. Its wait counts as soon as it is known."""
    meter = LoadMeter("r1", 1)
    work = Work(4.0)
    meter.begin(work)
    work.queue_s = 1.0
    report = meter.report(10.0)
    assert report.utilisation == pytest.approx(0.5)
    assert report.queue_s == pytest.approx(1.0)


def test_a_batch_counts_once() -> None:
    """Two requests that share a slot for 4 s, each with half of the time, use 0.4 of the slot in 10 s, not 0.8."""
    meter = LoadMeter("r1", 1)
    for _ in range(2):
        work = Work(2.0, queue_s=0.0, busy_s=2.0)
        meter.begin(work)
        meter.end(work, 6.0)
    assert meter.report(10.0).utilisation == pytest.approx(0.4)


def test_tokens_per_second_is_the_rate_after_the_first_token() -> None:
    """An answer of 21 tokens that ends 2 s after its first token is written at 10 tokens per second."""
    meter = LoadMeter("r1", 1)
    work = Work(0.0, queue_s=0.0, first_at=1.0, tokens=21)
    meter.begin(work)
    meter.end(work, 3.0)
    assert meter.report(4.0).tokens_per_s == pytest.approx(10.0)


def test_a_stage_without_known_slots_has_no_utilisation() -> None:
    """With 0 slots (a remote server) the shares are 0, while the waits and latencies are reported."""
    meter = LoadMeter("r1", 0)
    served(meter, 1.0, 0.2, 2.0)
    report = meter.report(4.0)
    assert (report.utilisation, report.load) == (0.0, 0.0)
    assert report.first_s > 0


def test_hosts_and_calls_are_counted() -> None:
    """A report counts the hosts and the calls of the other hosts. A host that is silent for HOST_TTL_S is forgotten."""
    meter = LoadMeter("r1", 1)
    meter.asked("a", 3, 0.0)
    meter.asked("b", 4, 1.0)
    meter.asked("a", 5, 2.0)
    assert (meter.report(2.0, "a").hosts, meter.report(2.0, "a").other_calls) == (2, 4)
    assert meter.report(2.0, "b").other_calls == 5
    meter.asked("b", 4, 3.0 + HOST_TTL_S)
    assert (meter.report(3.0 + HOST_TTL_S, "b").hosts, meter.report(3.0 + HOST_TTL_S, "b").other_calls) == (1, 0)


def test_the_calls_before_lag_behind() -> None:
    """`calls_before` is the mean number of calls over a window that ended CALLS_LAG_S ago."""
    meter = LoadMeter("r1", 1)
    meter.asked("a", 8, 100.0)
    assert meter.report(100.0 + CALLS_LAG_S).calls_before == 0
    assert meter.report(100.0 + CALLS_LAG_S + WINDOW_S / 2).calls_before == pytest.approx(4)
    assert meter.report(100.0 + CALLS_LAG_S + WINDOW_S).calls_before == pytest.approx(8)


def test_frequent_reports_reuse_a_measurement() -> None:
    """Two reports within REUSE_S have the same load, the next one has the new load. The hosts are always counted."""
    meter = LoadMeter("r1", 1)
    served(meter, 0.0, 0.0, 1.0)
    meter.asked("a", 1, 1.0)
    first = meter.report(2.0, "a")
    served(meter, 1.0, 0.0, 1.0)
    meter.asked("b", 7, 2.0)
    soon = meter.report(2.0 + REUSE_S / 2, "a")
    assert (soon.utilisation, soon.hosts, soon.other_calls) == (first.utilisation, 2, 7)
    assert meter.report(2.0 + REUSE_S, "a").utilisation > first.utilisation


def test_the_memory_is_bounded() -> None:
    """The meter remembers at most MAX_HOSTS hosts and MAX_RECORDS requests. Its shares then cover a shorter time."""
    meter = LoadMeter("r1", 1)
    for number in range(MAX_HOSTS + 10):
        meter.asked(f"h{number}", 1, 1.0)
    assert meter.report(1.0).hosts == MAX_HOSTS
    step_s = WINDOW_S / (2 * MAX_RECORDS)
    for number in range(2 * MAX_RECORDS):
        served(meter, number * step_s, 0.0, step_s / 2)
    assert meter.report(WINDOW_S).utilisation == pytest.approx(0.5, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 5), st.floats(0.01, 5)), max_size=30), st.floats(0, 60))
def test_utilisation_is_a_share_of_the_time_in_service(requests: list[tuple[float, float, float]], now: float) -> None:
    """The utilisation is at least 0, and at most the time in service of all requests divided by the window."""
    meter = LoadMeter("r1", 1)
    for arrived, queue_s, service_s in sorted(requests):
        if arrived + queue_s + service_s <= now:
            served(meter, arrived, queue_s, service_s)
    most = sum(service_s for _, _, service_s in requests) / WINDOW_S
    assert 0 <= meter.report(now).utilisation <= most + 1e-6
