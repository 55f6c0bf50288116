"""The latency guide's limits as data, each with its section and the statistic that it applies to.

The guide states limits in four places, and they do not agree:

    section   what                          sum of its parts
    1.1       targets of a whole system     880 ms, but its total is 800
    3.1       tiers: totals and breakdown   500 and 800 as stated; Acceptable 1,250, but its total is 1,200
    3.2       components by tier            Excellent 470, Good 810, Acceptable 1,250
    7.1       metrics: target and alert     -

The code therefore takes each kind of limit from one section only: the total of a turn from 3.1, the limit of a
component from 3.2, and the threshold of an alert from 7.1. The breakdown of 3.1 and the targets of 1.1 are for reports
only. A measured value meets a limit only if it is less than the limit. A component may exceed its limit in a turn whose
total is within its tier, because the caller notices only the total.

Where the guide names no statistic, the limit applies to the median (p50). Section 7.1 lists P95 and P99 as separate
rows with higher limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Statistic = Literal["p50", "p95", "p99"]


class Tier(Enum):
    """Quality of a conversation by its latency, best first (section 3.1 of the latency guide)."""

    EXCELLENT = "excellent"
    GOOD = "good"
    ACCEPTABLE = "acceptable"


class Component(Enum):
    """Components of a turn for which the latency guide states limits.

    `VAD` is called "VAD/EOU" in the guide's section 3.2 and "VAD / Turn Detection" in section 1.1.
    """

    NETWORK = "network"
    VAD = "vad"
    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    AUDIO = "audio"


class Metric(Enum):
    """Latency metrics that the guide monitors (section 7.1).

    END_TO_END, END_TO_END_P95 and END_TO_END_P99 are percentiles (p50, p95, p99) of the time of a whole turn.
    """

    END_TO_END = "end_to_end"
    STT = "stt"
    LLM_TTFT = "llm_ttft"
    TTS_TTFB = "tts_ttfb"
    NETWORK_RTT = "network_rtt"
    END_TO_END_P95 = "end_to_end_p95"
    END_TO_END_P99 = "end_to_end_p99"


@dataclass(frozen=True, slots=True)
class Total:
    """Limit of a whole turn in one tier, in milliseconds, with the guide's section and the statistic that it limits."""

    tier: Tier
    limit_ms: float
    section: str = "3.1"
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Target:
    """Limit of one component in one tier, in milliseconds (section 3.1 or 3.2 of the latency guide)."""

    component: Component
    tier: Tier
    limit_ms: float
    section: str
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Goal:
    """Target of one component in milliseconds, from section 1.1 of the latency guide. That section has no tiers."""

    component: Component
    limit_ms: float
    section: str = "1.1"
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Alert:
    """Target of a metric and the threshold of its alert, in milliseconds (section 7.1 of the guide)."""

    metric: Metric
    target_ms: float
    alert_ms: float
    statistic: Statistic = "p50"
    section: str = "7.1"


def _row(section: str, tier: Tier, *limits_ms: float) -> tuple[Target, ...]:
    return tuple(Target(part, tier, limit, section) for part, limit in zip(Component, limits_ms, strict=True))


TOTALS = (Total(Tier.EXCELLENT, 500), Total(Tier.GOOD, 800), Total(Tier.ACCEPTABLE, 1200))

BREAKDOWN = (
    *_row("3.1", Tier.EXCELLENT, 50, 100, 100, 150, 80, 20),
    *_row("3.1", Tier.GOOD, 100, 200, 150, 250, 80, 20),
    *_row("3.1", Tier.ACCEPTABLE, 150, 300, 200, 400, 150, 50),
)
"""The breakdown of the totals in 3.1. For reports only."""

TARGETS = (
    *_row("3.2", Tier.EXCELLENT, 50, 100, 100, 150, 50, 20),
    *_row("3.2", Tier.GOOD, 100, 200, 150, 250, 80, 30),
    *_row("3.2", Tier.ACCEPTABLE, 150, 300, 200, 400, 150, 50),
)

GOALS = tuple(
    Goal(component, limit_ms) for component, limit_ms in zip(Component, (100, 200, 150, 300, 100, 30), strict=True)
)
"""Targets of the components, from the last column of section 1.1. For reports only."""

GOAL_TOTAL_MS = 800.0
"""Target of a whole turn in milliseconds, from the last column of section 1.1."""

ALERTS = (
    Alert(Metric.END_TO_END, 800, 1200),
    Alert(Metric.STT, 200, 300),
    Alert(Metric.LLM_TTFT, 400, 600),
    Alert(Metric.TTS_TTFB, 100, 200),
    Alert(Metric.NETWORK_RTT, 100, 150),
    Alert(Metric.END_TO_END_P95, 1200, 2000, "p95"),
    Alert(Metric.END_TO_END_P99, 2000, 3000, "p99"),
)

_TOTAL_MS = {total.tier: total.limit_ms for total in TOTALS}
_COMPONENT_MS = {(target.component, target.tier): target.limit_ms for target in TARGETS}
_ALERTS = {alert.metric: alert for alert in ALERTS}


def total_limit_ms(tier: Tier) -> float:
    """Return the latency guide's limit for a turn in this tier, in milliseconds (section 3.1)."""
    return _TOTAL_MS[tier]


def component_limit_ms(component: Component, tier: Tier) -> float:
    """Return the latency guide's limit for a component in this tier, in milliseconds (section 3.2).

    END_TO_END_P95 and END_TO_END_P99 limit these percentiles, the other components the median.
    """
    return _COMPONENT_MS[component, tier]


def alert(metric: Metric) -> Alert:
    """Return the latency guide's target and alert threshold for a metric (section 7.1)."""
    return _ALERTS[metric]


# Two histogram bounds above the guide's highest limit. Prometheus reports a percentile that falls into the last, open
# bucket as the lower bound of that bucket. Without larger bounds, the alert for the highest limit could not fire.
_BEYOND_MS = (5_000.0, 10_000.0)


def _histogram_buckets_s() -> tuple[float, ...]:
    limits_ms = {limit.limit_ms for table in (TOTALS, BREAKDOWN, TARGETS, GOALS) for limit in table}
    limits_ms |= {GOAL_TOTAL_MS}
    limits_ms |= {bound for row in ALERTS for bound in (row.target_ms, row.alert_ms)}
    return tuple(limit / 1000 for limit in sorted(limits_ms | set(_BEYOND_MS)))


HISTOGRAM_BUCKETS_S = _histogram_buckets_s()
"""Bucket bounds of the latency histograms in seconds: every limit of the guide, so that the share of turns within it is
exact, and two larger bounds."""
