"""Distributions of service times for simulation: measured ones, and the curves of emulated engines.

A drawer is a function that returns a random service time. It is called when the service of a request begins, with the
number of requests in service on that replica, this one included. Every replica gets its own drawer, because an emulated
engine spreads its stalls evenly over the requests of one replica.
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
"""Function that takes the number of requests in service, this one included, and returns the next service time in
seconds."""


class ServiceTimes(Protocol):
    """A distribution of service times, which may depend on the number of requests in service on the replica."""

    @property
    def mean_s(self) -> float:
        """Mean service time on an otherwise idle replica, in seconds."""
        ...

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the service time on an otherwise idle replica."""
        ...

    def drawer(self, rng: random.Random) -> Drawer:
        """Return a new function that draws the service times of one replica, in seconds.

        The new function's argument is the number of requests in service on the replica, including the request whose
        service begins. `rng` is the source of randomness.
        """
        ...


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution given by quantiles, with linear interpolation between them.

    Attributes:
        points: (share, seconds) pairs from share 0 (the minimum) to share 1 (the maximum). Shares rise strictly,
            seconds do not fall.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shares, seconds = zip(*self.points, strict=True) if self.points else ((), ())
        if len(self.points) < 2 or shares[0] != 0 or shares[-1] != 1:
            raise ValueError("a distribution needs its minimum (share 0) and its maximum (share 1)")
        if any(a >= b for a, b in pairwise(shares)) or any(a > b for a, b in pairwise(seconds)) or seconds[0] < 0:
            raise ValueError("shares must rise strictly, and seconds must not fall or be negative")

    @property
    def mean_s(self) -> float:
        """Mean of the distribution in seconds."""
        return sum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairwise(self.points))

    @property
    def scv(self) -> float:
        """Squared coefficient of variation: variance divided by the squared mean."""
        square = sum(
            (b - a) * (low * low + low * high + high * high) / 3 for (a, low), (b, high) in pairwise(self.points)
        )
        mean = self.mean_s
        return max(0.0, square / mean**2 - 1) if mean else 0.0

    def at(self, share: float) -> float:
        """Return the quantile at `share` (0 to 1), in seconds."""
        index = max(1, bisect_left(self.points, (share, -math.inf)))
        (a, low), (b, high) = self.points[index - 1], self.points[min(index, len(self.points) - 1)]
        along = (share - a) / (b - a)
        return min(max(low * (1 - along) + high * along, low), high)  # rounding could give a value outside low to high

    def drawer(self, rng: random.Random) -> Drawer:
        """Return a function that draws independent service times in seconds.

        The function's argument, the number of requests in service, has no effect. `rng` is the source of randomness.
        """
        return lambda concurrent: self.at(rng.random())

    def shifted(self, by_s: float) -> Quantiles:
        """Return the distribution with `by_s` added to every value. Values below 0 become 0."""
        return Quantiles(tuple((share, max(0.0, seconds + by_s)) for share, seconds in self.points))


def fixed(seconds: float) -> Quantiles:
    """Return the distribution that always gives the same number of seconds."""
    return Quantiles(((0.0, seconds), (1.0, seconds)))


def sampled(seconds: Sequence[float]) -> Quantiles:
    """Return the distribution of the measured values `seconds`. Raise ValueError if there are none."""
    if not seconds:
        raise ValueError("a distribution needs at least one value")
    ordered = sorted(seconds)
    last = max(1, len(ordered) - 1)
    return Quantiles(tuple((index / last, value) for index, value in enumerate([*ordered, ordered[-1]][: last + 1])))


def bucketed(bounds_s: Sequence[float], counts: Sequence[int]) -> Quantiles:
    """Return the distribution of a histogram. Values are taken to be spread evenly over their bucket.

    Args:
        bounds_s: Upper bound of each bucket in seconds. The first bucket starts at 0.
        counts: Number of values in each bucket.

    Raises:
        ValueError: The histogram is empty.
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
            # Empty buckets lie before this one: the seconds jump at the same share. Shares must rise strictly, so add a
            # tiny step.
            points.append((below / total + (1e-12 if points else 0.0), previous))
        below += count
        points.append((below / total, bound))
    points[-1] = (1.0, points[-1][1])
    return Quantiles(tuple(points))


@dataclass(frozen=True, slots=True)
class Curved:
    """The service times of an emulated engine, drawn with the engine's own sampler.

    Attributes:
        curve: The engine's distribution of service times, and their growth with the number of requests in service.
    """

    curve: ServiceCurve

    @property
    def mean_s(self) -> float:
        """Mean service time on an otherwise idle replica in seconds, stalls included."""
        curve = self.curve
        stall_ms = curve.stall_share * (curve.stall_min_ms + curve.stall_max_ms) / 2
        return (curve.median_ms * math.exp(curve.sigma**2 / 2) + stall_ms) / 1000

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the service time on an otherwise idle replica, stalls included."""
        curve = self.curve
        base_ms = curve.median_ms * math.exp(curve.sigma**2 / 2)
        low, high, share = curve.stall_min_ms, curve.stall_max_ms, curve.stall_share
        stall_ms, stall_square = share * (low + high) / 2, share * (low * low + low * high + high * high) / 3
        variance = base_ms**2 * math.expm1(curve.sigma**2) + stall_square - stall_ms**2
        mean_ms = base_ms + stall_ms
        return variance / mean_ms**2 if mean_ms else 0.0

    def drawer(self, rng: random.Random) -> Drawer:
        """Return a function that draws the service times of one replica in seconds, with the engine's own sampler.

        The function's argument is the number of requests in service on the replica. `rng` is the source of randomness.
        """
        return ServiceSampler(self.curve, rng.random).next_s


@dataclass(frozen=True, slots=True)
class Batched:
    """A measured distribution of service times of requests that slow each other down on the same replica.

    Attributes:
        alone: Service times on an otherwise idle replica.
        factors: `factors[n - 1]` is the factor by which service is slower while n requests are in service. The first
            factor is 1. Beyond the list, each further request adds the difference of the last two factors.
    """

    alone: Quantiles
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.factors or self.factors[0] != 1 or min(self.factors) <= 0:
            raise ValueError("the first factor must be 1 (a service alone), and every factor must be positive")

    @property
    def mean_s(self) -> float:
        """Mean service time on an otherwise idle replica, in seconds."""
        return self.alone.mean_s

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the service time on an otherwise idle replica."""
        return self.alone.scv

    def factor(self, concurrent: int) -> float:
        """Return the factor by which service is slower while `concurrent` requests are in service."""
        measured = len(self.factors)
        if concurrent <= measured:
            return self.factors[max(0, concurrent - 1)]
        slope = self.factors[-1] - self.factors[-2] if measured > 1 else 0.0
        return max(self.factors[-1] + slope * (concurrent - measured), self.factors[-1])

    def drawer(self, rng: random.Random) -> Drawer:
        """Return a function that draws service times in seconds: samples of `alone`, times the slow-down.

        The function's argument is the number of requests in service on the replica, which decides the slow-down. `rng`
        is the source of randomness.
        """
        return lambda concurrent: self.alone.at(rng.random()) * self.factor(concurrent)
