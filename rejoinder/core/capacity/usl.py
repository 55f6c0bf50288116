"""The universal scalability law: throughput that first rises with load, then bends, then falls.

    X(N) = lambda N / (1 + alpha (N - 1) + beta N (N - 1))

`lambda` is the throughput of one, `alpha` what is done one after another (contention), `beta` what each must agree on
with every other (coherency). The law is linear in its parameters once turned around,

    N / X = (1 / lambda) (1 + alpha (N - 1) + beta N (N - 1)),

so a fit is a least-squares solution, here of the relative error of X. Contention and coherency are not negative: a
parameter that would be is left out, and the rest is fitted again; of the fits that remain the one with the smallest
error counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

LEAST_POINTS = 3
TRUSTED_FACTOR = 2.0
"""How far beyond the largest measured N the law is believed (rule of thumb; the source states no proof)."""

# Rounding of an exact fit leaves parameters this far below zero.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Point:
    """Measured: at `n` sessions `per_s` turns a second were completed."""

    n: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Usl:
    """A fitted law. `largest_n`: the largest N it was fitted to; `error`: root mean square of its relative errors."""

    rate: float
    contention: float
    coherency: float
    largest_n: float
    error: float

    def throughput(self, n: float) -> float:
        return self.rate * n / (1 + self.contention * (n - 1) + self.coherency * n * (n - 1))

    def trusted(self, n: float) -> bool:
        """Whether the law may be asked about so many."""
        return n <= TRUSTED_FACTOR * self.largest_n

    @property
    def peak_n(self) -> float:
        """Where throughput is highest; infinite if it never falls."""
        if self.coherency == 0:
            return math.inf
        return math.sqrt(max(0.0, 1 - self.contention) / self.coherency)


def fit(points: Sequence[Point]) -> Usl:
    """Raises ValueError with fewer than three different N, or a point that is not positive."""
    if any(point.n <= 0 or point.per_s <= 0 for point in points):
        raise ValueError("sessions and throughput of a point must be positive")
    n = np.array([point.n for point in points], dtype=float)
    if len(set(n.tolist())) < LEAST_POINTS:
        raise ValueError(f"a fit needs {LEAST_POINTS} different numbers of sessions, not {len(set(n.tolist()))}")
    inverse = n / np.array([point.per_s for point in points], dtype=float)
    terms = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) / inverse[:, None]
    fits = [_solve(terms, used) for size in (1, 2, 3) for used in combinations(range(3), size) if 0 in used]
    solved = [solution for solution in fits if solution is not None]
    base, first, second = min(solved, key=lambda solution: _error(terms, solution))
    rate = 1 / base
    return Usl(
        float(rate),
        contention=float(first * rate),
        coherency=float(second * rate),
        largest_n=float(n.max()),
        error=_error(terms, (base, first, second)),
    )


def _solve(terms: np.ndarray, used: tuple[int, ...]) -> tuple[float, float, float] | None:
    """Least squares of terms @ x = 1 over the columns `used`; None if a parameter comes out negative."""
    columns = terms[:, used]
    scale = np.abs(columns).max(axis=0)
    scale[scale == 0] = 1
    found, *_ = np.linalg.lstsq(columns / scale, np.ones(len(terms)), rcond=None)
    full = np.zeros(3)
    full[list(used)] = found / scale
    if full[0] <= 0 or (full < -_ROUNDING * full[0]).any():
        return None
    full = np.maximum(full, 0)
    return float(full[0]), float(full[1]), float(full[2])


def _error(terms: np.ndarray, solution: tuple[float, float, float]) -> float:
    return float(np.sqrt(np.mean((terms @ np.array(solution) - 1) ** 2)))
