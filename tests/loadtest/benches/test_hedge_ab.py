"""Tests of the A/B comparison of hedging, which sends the same requests without and with hedging.

Each of the two runs is an arm. A case is an emulated load with a rule for passing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from loadtest.benches.hedge_ab import CASES, HedgeArm, HedgeComparison, arrivals

STALLS, LOG_NORMAL, SATURATED = CASES


def arm(*ttft_ms: float, hedging: bool = False, unanswered: int = 0, sent: int = 0) -> HedgeArm:
    return HedgeArm(hedging, ttft_ms, unanswered, sent, won=0)


def test_the_schedule_is_poisson_and_deterministic() -> None:
    """The same seed gives the same rising send times. The mean rate is within 5% of the requested rate."""
    schedule = arrivals(5000, 40.0)
    assert schedule == arrivals(5000, 40.0)
    assert schedule != arrivals(5000, 40.0, seed=2)
    assert schedule[-1] == pytest.approx(125, rel=0.05)
    assert all(later > earlier for earlier, later in pairwise(schedule))


def test_quantiles_are_nearest_ranks_and_count_the_unanswered_last() -> None:
    """A quantile of the times to first token is one of the measured times (nearest rank).

    Unanswered requests count as infinitely late.
    """
    found = arm(*(float(ms) for ms in range(1, 99)), unanswered=2)
    assert found.quantile(0.5) == 50.0
    assert found.quantile(0.98) == 98.0
    assert found.quantile(0.99) == math.inf


def test_the_tail_must_fall_within_the_budget() -> None:
    """In the case with stalls, hedging passes if it lowers the p99 time to first token by 82% with 4% more requests.

    It fails with 6% more requests, or if the p99 does not fall.
    """
    off = arm(*([150.0] * 97), 5000.0, 5000.0, 5000.0)
    on = arm(*([150.0] * 97), 900.0, 900.0, 900.0, hedging=True, sent=4)
    assert HedgeComparison(STALLS, off, on).fall == pytest.approx(0.82)
    assert HedgeComparison(STALLS, off, on).holds
    assert not HedgeComparison(STALLS, off, replace(on, sent=6)).holds
    assert not HedgeComparison(STALLS, off, replace(on, ttft_ms=off.ttft_ms)).holds


@pytest.mark.parametrize(("case", "worst"), [(LOG_NORMAL, 1.05), (SATURATED, 2.0)])
def test_the_median_must_not_suffer(case: object, worst: float) -> None:
    """Hedging may raise the median time to first token by up to 5% without stalls and up to 100% under full load."""
    off = arm(*([200.0] * 100))
    for factor, holds in ((1.0, True), (worst, True), (worst * 1.01, False)):
        on = arm(*([200.0 * factor] * 100), hedging=True, sent=1)
        assert HedgeComparison(case, off, on).holds is holds  # type: ignore[arg-type]  # both are Cases


def test_an_arm_that_answers_fewer_does_not_hold() -> None:
    """Hedging fails a case if more requests are unanswered than without hedging, even if the median stays the same."""
    off, on = arm(*([200.0] * 100)), arm(*([200.0] * 99), hedging=True, unanswered=1)
    assert not HedgeComparison(SATURATED, off, on).holds
