"""The scalability law: fitted parameters are those that made the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.capacity.usl import Point, Usl, fit

SESSIONS = (4, 8, 16, 24, 40, 60)


def made_by(law: Usl) -> list[Point]:
    return [Point(n, law.throughput(n)) for n in SESSIONS]


@given(st.floats(0.01, 100), st.floats(0.001, 0.3), st.floats(1e-5, 0.01))
def test_known_parameters_are_recovered(rate: float, contention: float, coherency: float) -> None:
    """From exact points of a law its three parameters come back, and its peak."""
    law = fit(made_by(Usl(rate, contention=contention, coherency=coherency, largest_n=60, error=0)))
    assert (law.rate, law.contention, law.coherency) == pytest.approx((rate, contention, coherency), rel=1e-4)
    assert law.peak_n == pytest.approx(math.sqrt((1 - contention) / coherency), rel=1e-4)
    assert law.error < 1e-9


def test_linear_scaling_has_no_peak() -> None:
    """Points on a line give no contention, no coherency and an infinite peak."""
    law = fit(made_by(Usl(0.25, contention=0, coherency=0, largest_n=60, error=0)))
    assert (law.contention, law.coherency, law.peak_n) == (0, 0, math.inf)
    assert law.throughput(100) == pytest.approx(25)


def test_better_than_linear_is_not_negative_contention() -> None:
    """Throughput that grows faster than N gives parameters of 0, not negative ones, and says so by its error."""
    law = fit([Point(n, 0.1 * n**1.1) for n in SESSIONS])
    assert law.contention == law.coherency == 0
    assert 0.02 < law.error < 0.2


def test_noise_is_averaged() -> None:
    """With 2% noise the law's prediction within its range stays within 3%, and the error is the noise."""
    true = Usl(0.3, contention=0.02, coherency=2e-4, largest_n=60, error=0)
    noise = np.random.default_rng(7).normal(1, 0.02, len(SESSIONS))
    law = fit([Point(n, true.throughput(n) * factor) for n, factor in zip(SESSIONS, noise, strict=True)])
    assert law.throughput(50) == pytest.approx(true.throughput(50), rel=0.03)
    assert 0.002 < law.error < 0.04


def test_it_is_trusted_to_twice_its_range() -> None:
    """A law fitted up to 60 sessions may be asked about 120, not about 121."""
    law = fit(made_by(Usl(0.3, contention=0.02, coherency=2e-4, largest_n=60, error=0)))
    assert law.trusted(120)
    assert not law.trusted(121)


@pytest.mark.parametrize("points", [[], [(1, 1), (2, 2)], [(1, 1), (1, 1.1), (2, 2)]])
def test_too_few_points(points: list[tuple[float, float]]) -> None:
    """Fewer than three different N are refused."""
    with pytest.raises(ValueError, match="3 different"):
        fit([Point(*point) for point in points])


def test_impossible_points() -> None:
    """No sessions or no throughput is not a measurement."""
    with pytest.raises(ValueError, match="positive"):
        fit([Point(1, 1), Point(2, 0), Point(3, 1)])
