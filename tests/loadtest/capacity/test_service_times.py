"""Times drawn from a service time distribution have its mean, variation and quantiles."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.capacity.service_times import Batched, Curved, Quantiles, bucketed, fixed, sampled
from rejoinder.core.measuring.service_curves import ServiceCurve

SECONDS = st.lists(st.floats(0, 100), min_size=1, max_size=60)


@given(SECONDS, st.integers(0, 2**32))
def test_samples_are_drawn_within_their_range(values: list[float], seed: int) -> None:
    """Draws are between the minimum and the maximum sample, which are the quantiles at 0 and 1."""
    times = sampled(values)
    draw = times.drawer(random.Random(seed))
    assert all(min(values) <= draw(1) <= max(values) for _ in range(20))
    assert (times.at(0), times.at(1)) == (min(values), max(values))


def test_a_sampled_distribution_keeps_its_shape() -> None:
    """20,000 draws from 2,000 log-normal samples have the samples' mean, variation and p95 within 3%."""
    values = np.random.default_rng(3).lognormal(-1, 0.5, 2000)
    times = sampled(values.tolist())
    draw = times.drawer(random.Random(4))
    drawn = np.array([draw(1) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.03)
    assert np.percentile(drawn, 95) == pytest.approx(np.percentile(values, 95), rel=0.03)
    assert times.mean_s == pytest.approx(values.mean(), rel=0.01)
    assert times.scv == pytest.approx(values.var() / values.mean() ** 2, rel=0.03)


def test_a_histogram_is_drawn_within_its_buckets() -> None:
    """Times drawn from a histogram are in its non-empty buckets only, with the buckets' shares (within 2 points)."""
    times = bucketed([1, 2, 3, 4], [0, 30, 0, 70])
    draw = times.drawer(random.Random(1))
    drawn = np.array([draw(1) for _ in range(10_000)])
    assert ((drawn >= 1) & (drawn <= 2)).mean() == pytest.approx(0.3, abs=0.02)
    assert ((drawn > 2) & (drawn < 3)).sum() == 0
    assert times.mean_s == pytest.approx(0.3 * 1.5 + 0.7 * 3.5)


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5).filter(any), st.floats(0, 1))
def test_any_histogram_is_a_distribution(counts: list[int], share: float) -> None:
    """Every non-empty histogram gives quantiles within its occupied buckets."""
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6]
    times = bucketed(bounds, counts)
    occupied = [index for index, count in enumerate(counts) if count]
    least = 0.0 if occupied[0] == 0 else bounds[occupied[0] - 1]
    assert least <= times.at(share) <= bounds[occupied[-1]]


@pytest.mark.parametrize(
    "curve",
    [
        ServiceCurve(200),
        ServiceCurve(200, sigma=0.6),
        ServiceCurve(100, sigma=0.3, stall_share=0.02),
        ServiceCurve(100, stall_share=0.25, stall_min_ms=500, stall_max_ms=500),
    ],
)
def test_a_curves_moments_are_its_draws(curve: ServiceCurve) -> None:
    """The computed mean of a service curve is within 2% of that of 200,000 draws.

    Its squared coefficient of variation (`scv`) is within 6%.
    """
    draw = Curved(curve).drawer(random.Random(5))
    drawn = np.array([draw(1) for _ in range(200_000)])
    assert Curved(curve).mean_s == pytest.approx(drawn.mean(), rel=0.02)
    assert Curved(curve).scv == pytest.approx(drawn.var() / drawn.mean() ** 2, rel=0.06, abs=1e-9)


def test_a_curve_slows_with_its_neighbours() -> None:
    """If each further concurrent request adds 10 ms, a service of 100 ms takes 140 ms while five requests run."""
    draw = Curved(ServiceCurve(100, per_concurrent_ms=10)).drawer(random.Random(1))
    assert draw(1) == pytest.approx(0.1)
    assert draw(5) == pytest.approx(0.14)


def test_batching_factors_are_measured_and_continued() -> None:
    """Beyond the measured numbers of concurrent requests, the slow-down factor grows by its last increase.

    If the last factor is smaller than the one before, the factor stays constant.
    """
    times = Batched(fixed(0.1), (1, 1.2, 1.6))
    assert [times.factor(n) for n in (1, 2, 3, 4, 5)] == pytest.approx([1, 1.2, 1.6, 2.0, 2.4])
    assert Batched(fixed(0.1), (1, 1.5, 1.4)).factor(9) == pytest.approx(1.4)
    assert times.drawer(random.Random(1))(2) == pytest.approx(0.12)


def test_a_shift_stops_at_nothing() -> None:
    """If a distribution is shifted by a negative time, times that would be below 0 become 0."""
    assert sum(Quantiles(((0, 0.1), (1, 0.3))).shifted(-0.2).points, ()) == pytest.approx((0, 0, 1, 0.1))


@pytest.mark.parametrize(
    "points", [(), ((0, 1),), ((0, 1), (0.5, 2)), ((0, 2), (1, 1)), ((0, -1), (1, 1)), ((0, 1), (0, 1), (1, 1))]
)
def test_invalid_quantiles_are_refused(points: tuple[tuple[float, float], ...]) -> None:
    """Quantiles that do not rise from share 0 to share 1 raise ValueError."""
    with pytest.raises(ValueError, match="share"):
        Quantiles(points)


def test_missing_values_are_refused() -> None:
    """ValueError is raised for a distribution of no samples, an empty histogram, and invalid slow-down factors."""
    with pytest.raises(ValueError, match="at least one value"):
        sampled([])
    with pytest.raises(ValueError, match="empty"):
        bucketed([1, 2], [0, 0])
    for factors in ((), (2.0,), (1.0, -1.0)):
        with pytest.raises(ValueError, match="factor"):
            Batched(fixed(0.1), factors)
    assert math.isclose(fixed(0.0).scv, 0.0)
