"""Tests of the counts of a replica's recent requests."""

from __future__ import annotations

import pytest

from rejoinder.core.measuring.recent_load import LoadCounts, RecentLoad


def test_counts_cover_the_window() -> None:
    """Counts of arrivals, waits and services are forgotten after the window of 10 s."""
    load = RecentLoad(10.0, wait_limit_s=0.05)
    load.arrived(100.0)
    load.began(0.04, 100.1)
    load.began(0.06, 105.0)
    load.ended(1.5, 105.0)
    assert load.counts(105.0) == LoadCounts(arrived=1, began=2, late=1, ended=1, service_s=1.5)
    assert load.counts(111.5) == LoadCounts(began=1, late=1, ended=1, service_s=1.5)
    assert load.counts(120.0) == LoadCounts()


def test_the_rate_does_not_start_too_low() -> None:
    """Four requests in the first 2 s are 2 per second. After 10 s, ten requests in the window are 1 per second."""
    load = RecentLoad(10.0, wait_limit_s=0.05)
    assert load.arrivals_per_s(0.0) == 0.0
    for at in (0.0, 0.5, 1.0, 2.0):
        load.arrived(at)
    assert load.arrivals_per_s(2.0) == 2.0
    for second in range(20, 30):
        load.arrived(second + 0.5)
    assert load.arrivals_per_s(29.9) == pytest.approx(1.0)
