"""Tests of the latency guide's limits: the numbers, and which section of the guide each number comes from."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rejoinder.core.capacity.budgets import (
    ALERTS,
    BREAKDOWN,
    GOAL_TOTAL_MS,
    GOALS,
    HISTOGRAM_BUCKETS_S,
    TARGETS,
    TOTALS,
    Component,
    Metric,
    Tier,
    alert,
    component_limit_ms,
    total_limit_ms,
)


@pytest.mark.parametrize(
    ("tier", "total", "breakdown", "components"),
    [(Tier.EXCELLENT, 500, 500, 470), (Tier.GOOD, 800, 800, 810), (Tier.ACCEPTABLE, 1200, 1250, 1250)],
)
def test_the_guides_own_sums(tier: Tier, total: float, breakdown: float, components: float) -> None:
    """The parts in sections 3.1 and 3.2 of the latency guide have these sums (ms) in each tier.

    Some sums differ from the total that the guide states for the tier.
    """
    assert total_limit_ms(tier) == total
    assert sum(target.limit_ms for target in BREAKDOWN if target.tier is tier) == breakdown
    assert sum(target.limit_ms for target in TARGETS if target.tier is tier) == components


def test_the_sum_of_the_overall_targets_exceeds_their_total() -> None:
    """The targets in section 1.1 of the latency guide sum to 880 ms, although it states a total of 800 ms."""
    assert sum(goal.limit_ms for goal in GOALS) == 880
    assert GOAL_TOTAL_MS == 800


def test_totals_come_from_3_1_and_not_from_any_sum() -> None:
    """Each tier's total limit is the one that section 3.1 of the latency guide states, not a sum of parts.

    The tier Acceptable has 1,200 ms, although its parts sum to 1,250 ms.
    """
    assert [(total.limit_ms, total.section) for total in TOTALS] == [(500, "3.1"), (800, "3.1"), (1200, "3.1")]
    assert total_limit_ms(Tier.ACCEPTABLE) < sum(
        component_limit_ms(component, Tier.ACCEPTABLE) for component in Component
    )


@pytest.mark.parametrize(
    ("component", "tier", "limit_ms"),
    [(Component.TTS, Tier.EXCELLENT, 50), (Component.AUDIO, Tier.GOOD, 30), (Component.LLM, Tier.GOOD, 250)],
)
def test_components_come_from_3_2(component: Component, tier: Tier, limit_ms: float) -> None:
    """A component's limit is that of the latency guide's section 3.2, even where section 3.1 or 1.1 differs."""
    assert component_limit_ms(component, tier) == limit_ms


def test_alerts_come_from_7_1() -> None:
    """Target and threshold (ms) and statistic (p50, p95, p99) of each alert are those of the guide's section 7.1."""
    assert [(alert(metric).target_ms, alert(metric).alert_ms, alert(metric).statistic) for metric in Metric] == [
        (800, 1200, "p50"),
        (200, 300, "p50"),
        (400, 600, "p50"),
        (100, 200, "p50"),
        (100, 150, "p50"),
        (1200, 2000, "p95"),
        (2000, 3000, "p99"),
    ]
    assert {row.section for row in ALERTS} == {"7.1"}


def test_every_tier_names_every_component_once() -> None:
    """The guide's tables 3.1 and 3.2 have each component once per tier, and a better tier has no higher limit."""
    for table, section in ((BREAKDOWN, "3.1"), (TARGETS, "3.2")):
        assert sorted((t.tier.value, t.component.value) for t in table) == sorted(
            (tier.value, component.value) for tier in Tier for component in Component
        )
        assert {target.section for target in table} == {section}
    for component in Component:
        limits = [component_limit_ms(component, tier) for tier in Tier]
        assert limits == sorted(limits)


def test_every_limit_is_a_histogram_bound() -> None:
    """Every limit of the latency guide is the bound of a histogram bucket, so the share below it is exact."""
    assert all(low < high for low, high in pairwise(HISTOGRAM_BUCKETS_S))
    limits_ms = [limit.limit_ms for table in (TOTALS, BREAKDOWN, TARGETS, GOALS) for limit in table]
    limits_ms += [bound for row in ALERTS for bound in (row.target_ms, row.alert_ms)]
    assert {limit / 1000 for limit in limits_ms} <= set(HISTOGRAM_BUCKETS_S)
    assert len([bound for bound in HISTOGRAM_BUCKETS_S if bound <= max(limits_ms) / 1000]) == 16
    assert len(HISTOGRAM_BUCKETS_S) > 16, "no percentile could be read as above the highest limit"
