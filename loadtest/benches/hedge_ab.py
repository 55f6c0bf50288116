"""A/B comparison of hedging off and on, with the same arrivals and the same replicas.

Latency is measured from a request's scheduled arrival to its first token, so sending a request late adds to it.
Requests are sent without waiting for earlier answers. The arrivals are a Poisson process, drawn once from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_FALL = 0.70
"""Minimum reduction of the 99th percentile by hedging in a case with stalls, as a share."""
MOST_EXTRA = 0.05
"""Maximum number of hedges per request."""
MEDIAN_SLACK = 1.05
"""Maximum ratio of the median with hedging to the median without, in a case without stalls. Two runs with equal
settings differ by as much."""
COLLAPSE = 2.0
"""Maximum ratio of the median with hedging to the median without, under full load. If hedges overload the replicas,
growing queues multiply the median."""


@dataclass(frozen=True, slots=True)
class HedgeCase:
    """An emulated language model and its load.

    Attributes:
        name: Name of the case.
        what: Description of the case.
        rate: Requests per second.
        replicas: Number of replicas.
        emulation: Settings of the emulated engine.
        bar: Rule for passing: "tail" (hedging lowers the 99th percentile by `LEAST_FALL`), "median" (the median grows
            at most by the factor `MEDIAN_SLACK`) or "collapse" (the median grows at most by the factor `COLLAPSE`).
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
    """Results of all requests of a schedule, sent once with hedging on or off.

    Attributes:
        hedging: True if hedging was on.
        ttft_ms: Times to the first token of the answered requests, in milliseconds.
        unanswered: Number of requests without an answer. They count as infinitely late.
        sent: Number of hedges.
        won: Number of hedges whose answer was used.
    """

    hedging: bool
    ttft_ms: tuple[float, ...]
    unanswered: int
    sent: int
    won: int

    def quantile(self, share: float) -> float:
        """Return the quantile at `share` (0 to 1) of the time to first token, in milliseconds.

        It is the nearest rank over all requests. Unanswered requests rank last, with an infinite time.
        """
        ordered = sorted(self.ttft_ms) + [math.inf] * self.unanswered
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def extra(self) -> float:
        """Number of hedges per request."""
        return self.sent / max(1, len(self.ttft_ms) + self.unanswered)


@dataclass(frozen=True, slots=True)
class HedgeComparison:
    """Results of one case, whose requests are sent once with hedging off and once with hedging on."""

    case: HedgeCase
    off: HedgeArm
    on: HedgeArm

    @property
    def fall(self) -> float:
        """Reduction of the 99th percentile by hedging, as a share: 1 - on / off."""
        return 1 - self.on.quantile(0.99) / self.off.quantile(0.99)

    @property
    def holds(self) -> bool:
        """True if the case passes: its rule `bar` is met, with at most `MOST_EXTRA` hedges per request.

        The rules on the median also require that hedging leaves no more requests unanswered.
        """
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
