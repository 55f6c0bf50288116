"""Tests of histograms of durations."""

from __future__ import annotations

import math

import pytest

from rejoinder.core.measuring.histogram import Histogram, from_cumulative

FOUND = from_cumulative({0.1: 10, 0.2: 30, 1.0: 40, math.inf: 40}, 7.5)


def test_cumulative_buckets_become_single_ones() -> None:
    """Each bucket has the values above the bound before it, in any order of the bounds."""
    assert from_cumulative({math.inf: 40, 1.0: 40, 0.2: 30, 0.1: 10}, 7.5) == FOUND
    assert FOUND.counts == (10, 20, 10, 0)
    assert FOUND.count == 40


@pytest.mark.parametrize(("share", "expected_s"), [(0.25, 0.1), (0.5, 0.15), (0.75, 0.2), (0.875, 0.6), (1.0, 1.0)])
def test_a_quantile_is_interpolated_in_its_bucket(share: float, expected_s: float) -> None:
    """The estimate is that of Prometheus: values are spread evenly between the bounds of their bucket."""
    assert FOUND.quantile_s(share) == pytest.approx(expected_s)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    """Of values above all bounds only the highest bound is known. Without values there is no quantile."""
    assert from_cumulative({0.1: 1, math.inf: 10}, 50.0).quantile_s(0.95) == 0.1
    assert Histogram().quantile_s(0.5) is None
    assert (FOUND - FOUND).quantile_s(0.5) is None
