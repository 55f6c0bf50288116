"""The latency guide's limits as data, each with the section it comes from and the statistic it is held against.

The guide states limits four times, and they do not agree:

    section   what                          sum of its parts
    1.1       targets of a whole system     880 ms against its total of 800
    3.1       tiers: totals and breakdown   500 and 800 as stated; Acceptable 1,250 against 1,200
    3.2       components by tier            Excellent 470, Good 810, Acceptable 1,250
    7.1       metrics: target and alert     -

So each question has one authority: a turn's total is judged by 3.1's totals, a component by 3.2, and whether
somebody is woken by 7.1. The breakdown of 3.1 and the targets of 1.1 are kept for reports and decide nothing.
All limits are "less than". A component may exceed its limit in a turn whose total is still in its tier: the total
is what the caller hears.

Where the guide names no statistic we hold the median (p50) against the limit: 7.1 lists P95 and P99 as rows of
their own beside the unqualified one, with higher limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Statistic = Literal["p50", "p95", "p99"]


class Tier(Enum):
    """How a conversation feels (3.1), best first."""

    EXCELLENT = "excellent"
    GOOD = "good"
    ACCEPTABLE = "acceptable"


class Component(Enum):
    """The guide's parts of a turn; `VAD` is 3.2's "VAD/EOU", 1.1's "VAD / Turn Detection"."""

    NETWORK = "network"
    VAD = "vad"
    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    AUDIO = "audio"


class Metric(Enum):
    """What 7.1 watches; the last two are end to end as well."""

    END_TO_END = "end_to_end"
    STT = "stt"
    LLM_TTFT = "llm_ttft"
    TTS_TTFB = "tts_ttfb"
    NETWORK_RTT = "network_rtt"
    END_TO_END_P95 = "end_to_end_p95"
    END_TO_END_P99 = "end_to_end_p99"


@dataclass(frozen=True, slots=True)
class Total:
    """A whole turn stays below `limit_ms` in this tier."""

    tier: Tier
    limit_ms: float
    section: str = "3.1"
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Target:
    """A component stays below `limit_ms` in this tier."""

    component: Component
    tier: Tier
    limit_ms: float
    section: str
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Goal:
    """1.1's target of a component, without a tier."""

    component: Component
    limit_ms: float
    section: str = "1.1"
    statistic: Statistic = "p50"


@dataclass(frozen=True, slots=True)
class Alert:
    """A metric should stay below `target_ms`; above `alert_ms` somebody is told."""

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
"""How 3.1 divides its totals; for reports."""

TARGETS = (
    *_row("3.2", Tier.EXCELLENT, 50, 100, 100, 150, 50, 20),
    *_row("3.2", Tier.GOOD, 100, 200, 150, 250, 80, 30),
    *_row("3.2", Tier.ACCEPTABLE, 150, 300, 200, 400, 150, 50),
)

GOALS = tuple(
    Goal(component, limit_ms) for component, limit_ms in zip(Component, (100, 200, 150, 300, 100, 30), strict=True)
)
"""1.1's last column; for reports."""

GOAL_TOTAL_MS = 800.0
"""1.1's total in the same column."""

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
    """What a turn of this tier stays below (3.1)."""
    return _TOTAL_MS[tier]


def component_limit_ms(component: Component, tier: Tier) -> float:
    """What a component stays below in this tier (3.2)."""
    return _COMPONENT_MS[component, tier]


def alert(metric: Metric) -> Alert:
    """Target and alert threshold of a metric (7.1)."""
    return _ALERTS[metric]


# A percentile in the last open bucket is read as that bucket's lower bound: without these no percentile would ever
# exceed the highest limit, and its alert could not fire.
_BEYOND_MS = (5_000.0, 10_000.0)


def _histogram_buckets_s() -> tuple[float, ...]:
    limits_ms = {limit.limit_ms for table in (TOTALS, BREAKDOWN, TARGETS, GOALS) for limit in table}
    limits_ms |= {GOAL_TOTAL_MS}
    limits_ms |= {bound for row in ALERTS for bound in (row.target_ms, row.alert_ms)}
    return tuple(limit / 1000 for limit in sorted(limits_ms | set(_BEYOND_MS)))


HISTOGRAM_BUCKETS_S = _histogram_buckets_s()
"""Bounds at every limit, so the share of turns within one is counted exactly, not interpolated, and two beyond."""
