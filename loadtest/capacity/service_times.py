"""How long a service takes, for simulation: measured distributions, and the known curves of emulated engines.

A distribution gives every replica a drawer of its own, because an emulated engine's stalls are stratified within a
replica. A drawer is asked when a service begins, with the number of services in it then, that one included.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from rejoinder.core.measuring.service_curves import ServiceCurve, ServiceSampler

Drawer = Callable[[int], float]
"""Seconds of the next service, which begins as one of so many."""


class ServiceTimes(Protocol):
    """A distribution of service times."""

    @property
    def mean_s(self) -> float:
        """Of a service that has the replica to itself."""
        ...

    @property
    def scv(self) -> float:
        """The squared coefficient of variation of such a service."""
        ...

    def drawer(self, rng: random.Random) -> Drawer:
        """For one replica."""
        ...


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A measured distribution: (share, seconds), both rising, from share 0 to share 1; linear in between."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shares, seconds = zip(*self.points, strict=True) if self.points else ((), ())
        if len(self.points) < 2 or shares[0] != 0 or shares[-1] != 1:
            raise ValueError("a distribution needs its least (share 0) and its greatest value (share 1)")
        if any(a >= b for a, b in pairwise(shares)) or any(a > b for a, b in pairwise(seconds)) or seconds[0] < 0:
            raise ValueError("shares must rise, and seconds may not fall or be negative")

    @property
    def mean_s(self) -> float:
        return sum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairwise(self.points))

    @property
    def scv(self) -> float:
        square = sum(
            (b - a) * (low * low + low * high + high * high) / 3 for (a, low), (b, high) in pairwise(self.points)
        )
        mean = self.mean_s
        return max(0.0, square / mean**2 - 1) if mean else 0.0

    def at(self, share: float) -> float:
        """The value that `share` of all do not exceed."""
        index = max(1, bisect_left(self.points, (share, -math.inf)))
        (a, low), (b, high) = self.points[index - 1], self.points[min(index, len(self.points) - 1)]
        along = (share - a) / (b - a)
        return min(max(low * (1 - along) + high * along, low), high)  # rounding must not leave the range

    def drawer(self, rng: random.Random) -> Drawer:
        return lambda concurrent: self.at(rng.random())

    def shifted(self, by_s: float) -> Quantiles:
        """All values later by so much, none below 0."""
        return Quantiles(tuple((share, max(0.0, seconds + by_s)) for share, seconds in self.points))


def fixed(seconds: float) -> Quantiles:
    """Always the same."""
    return Quantiles(((0.0, seconds), (1.0, seconds)))


def sampled(seconds: Sequence[float]) -> Quantiles:
    """The empirical distribution of measured values; raises ValueError if there are none."""
    if not seconds:
        raise ValueError("there is no distribution of nothing")
    ordered = sorted(seconds)
    last = max(1, len(ordered) - 1)
    return Quantiles(tuple((index / last, value) for index, value in enumerate([*ordered, ordered[-1]][: last + 1])))


def bucketed(bounds_s: Sequence[float], counts: Sequence[int]) -> Quantiles:
    """From a histogram: `counts[i]` values at most `bounds_s[i]` and above the bound before (0 before the first).

    Values spread evenly over their bucket. Raises ValueError if the histogram is empty.
    """
    total = sum(counts)
    if not total:
        raise ValueError("the histogram is empty: nothing was served")
    points: list[tuple[float, float]] = []
    below = 0
    for bound, count, previous in zip(bounds_s, counts, (0.0, *bounds_s), strict=False):
        if not count:
            continue
        if not points or points[-1][1] < previous:
            # A gap: nothing lies between two buckets, so the share rises a rounding's width while the value jumps.
            points.append((below / total + (1e-12 if points else 0.0), previous))
        below += count
        points.append((below / total, bound))
    points[-1] = (1.0, points[-1][1])
    return Quantiles(tuple(points))


@dataclass(frozen=True, slots=True)
class Curved:
    """An emulated engine's curve, drawn as the engine draws it."""

    curve: ServiceCurve

    @property
    def mean_s(self) -> float:
        curve = self.curve
        stall_ms = curve.stall_share * (curve.stall_min_ms + curve.stall_max_ms) / 2
        return (curve.median_ms * math.exp(curve.sigma**2 / 2) + stall_ms) / 1000

    @property
    def scv(self) -> float:
        curve = self.curve
        base_ms = curve.median_ms * math.exp(curve.sigma**2 / 2)
        low, high, share = curve.stall_min_ms, curve.stall_max_ms, curve.stall_share
        stall_ms, stall_square = share * (low + high) / 2, share * (low * low + low * high + high * high) / 3
        variance = base_ms**2 * math.expm1(curve.sigma**2) + stall_square - stall_ms**2
        mean_ms = base_ms + stall_ms
        return variance / mean_ms**2 if mean_ms else 0.0

    def drawer(self, rng: random.Random) -> Drawer:
        return ServiceSampler(self.curve, rng.random).next_s


@dataclass(frozen=True, slots=True)
class Batched:
    """A measured distribution whose services slow each other: `factors[n - 1]` times as long as one of n.

    Beyond the measured numbers the last two factors are continued.
    """

    alone: Quantiles
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.factors or self.factors[0] != 1 or min(self.factors) <= 0:
            raise ValueError("the first factor is that of a service alone, 1, and all are positive")

    @property
    def mean_s(self) -> float:
        return self.alone.mean_s

    @property
    def scv(self) -> float:
        return self.alone.scv

    def factor(self, concurrent: int) -> float:
        known = len(self.factors)
        if concurrent <= known:
            return self.factors[max(0, concurrent - 1)]
        slope = self.factors[-1] - self.factors[-2] if known > 1 else 0.0
        return max(self.factors[-1] + slope * (concurrent - known), self.factors[-1])

    def drawer(self, rng: random.Random) -> Drawer:
        return lambda concurrent: self.alone.at(rng.random()) * self.factor(concurrent)
