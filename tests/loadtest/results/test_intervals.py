"""Confidence intervals of shares and percentiles."""

from __future__ import annotations

import math

import pytest

from loadtest.results.intervals import percentile, wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # From the formula of Wilson (1927), as in published tables.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (4, 100, 0.0157, 0.0984)],
)
def test_wilson_intervals_agree_with_published_values(count: int, total: int, low: float, high: float) -> None:
    """The ends of the interval are those of the Wilson score interval at 95%, also for 0% and 100%."""
    share = wilson(count, total)
    assert share.share == count / total
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.0001)


def test_nothing_counted_says_nothing() -> None:
    """Of nothing the share is NaN, and its interval is everything; a percentile of nothing is NaN."""
    assert math.isnan(wilson(0, 0).share)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert math.isnan(percentile([], 95).value)


def test_a_percentile_is_a_measured_value_inside_its_interval() -> None:
    """The 95th percentile of 1 to 100 is 95; its interval contains it and is the same every time."""
    found = percentile(list(range(1, 101)), 95)
    assert found.value == 95
    assert 85 <= found.low <= 95 <= found.high <= 100
    assert found == percentile(list(range(1, 101)), 95)
