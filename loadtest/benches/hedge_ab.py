"""Hedging off against hedging on: one arrival schedule, the same replicas, and what was found of both.

Latency runs from the scheduled arrival to the first token, so that a request that had to wait to be sent counts too. An
arrival never waits for an answer. The schedule is Poisson, drawn once from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_FALL = 0.70
MOST_EXTRA = 0.05
# "Never worse": within what two runs of the same arm differ by.
MEDIAN_SLACK = 1.05
# Collapse is no matter of percents: a queue that grows for two minutes multiplies the median.
COLLAPSE = 2.0


@dataclass(frozen=True, slots=True)
class HedgeCase:
    """A language model of `replicas` emulated replicas, asked `rate` times a second. `bar` names what must hold."""

    name: str
    what: str
    rate: float
    replicas: int
    emulation: dict[str, Any]
    bar: str


CASES = (
    HedgeCase(
        "stalls",
        "2% of the requests stall for 2 to 8 s, 150 ms else",
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
        "0.9 of all slots in use, and losers that ignore their cancellation",
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
    """One pass over the schedule. `sent`, `won`: hedges. An unanswered request counts as infinitely late."""

    hedging: bool
    ttft_ms: tuple[float, ...]
    unanswered: int
    sent: int
    won: int

    def quantile(self, share: float) -> float:
        """Nearest rank over all requests, the unanswered ones last."""
        ordered = sorted(self.ttft_ms) + [math.inf] * self.unanswered
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def extra(self) -> float:
        """Hedges a request."""
        return self.sent / max(1, len(self.ttft_ms) + self.unanswered)


@dataclass(frozen=True, slots=True)
class HedgeComparison:
    """Both arms of a case."""

    case: HedgeCase
    off: HedgeArm
    on: HedgeArm

    @property
    def fall(self) -> float:
        """How much of p99 hedging takes away."""
        return 1 - self.on.quantile(0.99) / self.off.quantile(0.99)

    @property
    def holds(self) -> bool:
        """Whether the case's bar is met."""
        cheap = self.on.extra <= MOST_EXTRA
        if self.case.bar == "tail":
            return self.fall >= LEAST_FALL and cheap
        limit = MEDIAN_SLACK if self.case.bar == "median" else COLLAPSE
        steady = self.on.quantile(0.5) <= limit * self.off.quantile(0.5)
        return steady and cheap and self.on.unanswered <= self.off.unanswered


def arrivals(requests: int, rate: float, seed: int = 1) -> Sequence[float]:
    """Seconds from the start, Poisson."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
    return [float(at) for at in np.cumsum(gaps)]
