"""A/B comparison of hedging off and on, with the same arrivals and the same replicas.

Latency is measured from the scheduled arrival to the first token, so that waiting to be sent counts. Arrivals do not
wait for answers. The schedule is Poisson, drawn once from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_FALL = 0.70
"""Smallest required reduction of p99 in a case with stalls."""
MOST_EXTRA = 0.05
"""Largest allowed share of additional requests."""
MEDIAN_SLACK = 1.05
"""Largest allowed ratio of the medians without load. Two runs of the same arm differ by as much."""
COLLAPSE = 2.0
"""Largest allowed ratio of the medians under full load. In a collapse, a growing queue multiplies the median."""


@dataclass(frozen=True, slots=True)
class HedgeCase:
    """An emulated language model and its load.

    Attributes:
        name: Name of the case.
        what: The case in words.
        rate: Requests per second.
        replicas: Number of replicas.
        emulation: Settings of the emulated engine.
        bar: What must hold: "tail" (p99 falls), "median" (it stays) or "collapse" (it does not double).
    """

    name: str
    what: str
    rate: float
    replicas: int
    emulation: dict[str, Any]
    bar: str


CASES = (
    HedgeCase(
        "stalls",
        "2% of the requests stall for 2 to 8 s, the others take 150 ms",
        rate=40.0,
        replicas=3,
        emulation={"curve": {"median_ms": 150, "sigma": 0.2, "stall_share": 0.02}, "slots": 64, "tokens": 8},
        bar="tail",
    ),
    HedgeCase(
        "log-normal",
        "150 ms, sigma 0.6, no stalls",
        rate=40.0,
        replicas=3,
        emulation={"curve": {"median_ms": 150, "sigma": 0.6}, "slots": 64, "tokens": 8},
        bar="median",
    ),
    HedgeCase(
        "saturated",
        "90% of all slots in use, and cancelled requests keep running",
        rate=41.0,
        replicas=3,
        emulation={
            "curve": {"median_ms": 150, "sigma": 0.6},
            "slots": 4,
            "tokens": 8,
            "ignore_cancellation": True,
        },
        bar="collapse",
    ),
)


@dataclass(frozen=True, slots=True)
class HedgeArm:
    """One pass over the schedule.

    Attributes:
        hedging: Whether hedging was on.
        ttft_ms: Times to the first token of the answered requests.
        unanswered: Number of other requests. They count as infinitely late.
        sent: Number of hedges.
        won: Number of hedges whose answer was used.
    """

    hedging: bool
    ttft_ms: tuple[float, ...]
    unanswered: int
    sent: int
    won: int

    def quantile(self, share: float) -> float:
        """Return the quantile at `share` by nearest rank over all requests. Unanswered requests rank last."""
        ordered = sorted(self.ttft_ms) + [math.inf] * self.unanswered
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def extra(self) -> float:
        """Hedges per request."""
        return self.sent / max(1, len(self.ttft_ms) + self.unanswered)


@dataclass(frozen=True, slots=True)
class HedgeComparison:
    """Both arms of a case: hedging off and on."""

    case: HedgeCase
    off: HedgeArm
    on: HedgeArm

    @property
    def fall(self) -> float:
        """Relative reduction of p99 by hedging."""
        return 1 - self.on.quantile(0.99) / self.off.quantile(0.99)

    @property
    def holds(self) -> bool:
        """True if the case's bar is met, with at most `MOST_EXTRA` additional requests."""
        within_budget = self.on.extra <= MOST_EXTRA
        if self.case.bar == "tail":
            return self.fall >= LEAST_FALL and within_budget
        limit = MEDIAN_SLACK if self.case.bar == "median" else COLLAPSE
        steady = self.on.quantile(0.5) <= limit * self.off.quantile(0.5)
        return steady and within_budget and self.on.unanswered <= self.off.unanswered


def arrivals(requests: int, rate: float, seed: int = 1) -> Sequence[float]:
    """Return the times of `requests` Poisson arrivals, in seconds from the start, at `rate` per second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
    return [float(at) for at in np.cumsum(gaps)]
