"""Confidence intervals of shares and of percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964
"""Two-sided 95% quantile of the normal distribution."""

RESAMPLES = 2000
_SEED = 1


@dataclass(frozen=True, slots=True)
class Share:
    """A share of counted things, with its 95% Wilson interval. All shares are 0..1.

    Attributes:
        count: Number of things that have the property.
        total: Number of all things.
        share: `count` / `total`; NaN if there are none.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    count: int
    total: int
    share: float
    low: float
    high: float


def wilson(count: int, total: int) -> Share:
    """Return a share with its 95% Wilson score interval, which holds for small counts and for 0% and 100% too."""
    if not total:
        return Share(0, 0, math.nan, low=0.0, high=1.0)
    share, z2 = count / total, Z_95**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / total / 4) / (1 + z2)
    return Share(count, total, share, low=max(0.0, middle - half), high=min(1.0, middle + half))


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of measured values (nearest rank) with its 95% bootstrap interval, in the values' unit."""

    value: float
    low: float
    high: float
    count: int


def percentile(values: Sequence[float], percent: float) -> Percentile:
    """Return a percentile with its 95% bootstrap interval. The bootstrap has a fixed seed. NaN without values."""
    if not values:
        return Percentile(math.nan, math.nan, math.nan, count=0)
    measured = np.asarray(values, np.float64)
    drawn = np.random.Generator(np.random.PCG64(_SEED)).integers(0, measured.size, (RESAMPLES, measured.size))
    found = np.percentile(measured[drawn], percent, axis=1, method="inverted_cdf")
    low, high = np.percentile(found, (2.5, 97.5))
    value = float(np.percentile(measured, percent, method="inverted_cdf"))
    return Percentile(value, float(low), float(high), count=measured.size)
