"""Histograms of durations, as Prometheus exports them: counts in buckets, with differences, sums and quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of durations.

    Attributes:
        bounds_s: Upper bounds of the buckets in seconds.
        counts: Number of values in each bucket, not cumulative.
        sum_s: Exact sum of all values in seconds.
    """

    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """Number of values in all buckets."""
        return sum(self.counts)

    @property
    def mean_s(self) -> float:
        """Exact mean in seconds. Raise ValueError if the histogram is empty."""
        if not self.count:
            raise ValueError("the histogram is empty")
        return self.sum_s / self.count

    def __sub__(self, earlier: Histogram) -> Histogram:
        if not earlier.counts:
            return self
        counts = tuple(later - before for later, before in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.bounds_s, counts, self.sum_s - earlier.sum_s)

    def __add__(self, other: Histogram) -> Histogram:
        if not self.counts or not other.counts:
            return self if self.counts else other
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds_s, counts, self.sum_s + other.sum_s)

    def quantile_s(self, share: float) -> float | None:
        """Return an estimate of a quantile in seconds, as Prometheus' `histogram_quantile` does; None if empty.

        The values are taken to be spread evenly over their bucket. A quantile in the last, open bucket is its lower
        bound.

        Args:
            share: Share of the values that do not exceed the quantile, 0 to 1.
        """
        rank, below = share * self.count, 0
        lower = 0.0
        for bound, count in zip(self.bounds_s, self.counts, strict=True):
            if count and below + count >= rank:
                return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / count
            below += count
            lower = bound
        return None


def from_cumulative(below: Mapping[float, float], sum_s: float) -> Histogram:
    """Return the histogram of Prometheus' cumulative buckets.

    Args:
        below: Number of values up to each upper bound in seconds. The highest bound is infinity.
        sum_s: Sum of all values in seconds.
    """
    bounds = sorted(below)
    counts = [int(below[bound]) for bound in bounds]
    return Histogram(
        tuple(bounds), tuple(count - before for before, count in zip([0, *counts], counts, strict=False)), float(sum_s)
    )
