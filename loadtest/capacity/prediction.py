"""Predictions from a simulated network: latency percentiles, the knee, and the share of refused calls.

Every prediction is simulated with several seeds. The spread over the seeds is only the sampling error of the
simulation, not the error of the model. `loadtest.capacity.plan.intervals_ms` adds the error of the model. All searches
use the same seeds, so that the predictions for two neighbouring loads differ only because of the load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import numpy as np

from loadtest.capacity.turn_network import SimulatedRun, TurnNetwork, simulate
from rejoinder.core.capacity.erlang import blocking

SEEDS = (11, 12, 13, 14)
FOR_S = 300.0
WARM_UP_S = 30.0
MAX_SESSIONS = 20_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A simulated value.

    Attributes:
        value: Mean over the seeds.
        error: Standard error over the seeds. It does not contain the error of the model. It approaches 0 in large
            systems and with constant service times, even if the model is wrong.
    """

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latency and load of a network with a number of sessions.

    Attributes:
        sessions: Number of sessions.
        p50_ms: Median voice-to-voice latency in milliseconds.
        p95_ms: 95th percentile of the voice-to-voice latency in milliseconds.
        p99_ms: 99th percentile of the voice-to-voice latency in milliseconds.
        turns_per_s: Throughput in turns per second.
        busy: Mean share of slots in use, 0 to 1, by stage.
        wait_p95_ms: 95th percentile of the wait for a slot in milliseconds, by stage.
        hedged: Number of hedges (second LLM requests) per turn.
    """

    sessions: int
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    turns_per_s: Estimate
    busy: dict[str, float]
    wait_p95_ms: dict[str, float]
    hedged: float

    @property
    def bottleneck(self) -> str:
        """The stage with the largest share of slots in use."""
        return max(self.busy, key=lambda stage: self.busy[stage])


def predict(
    network: TurnNetwork,
    sessions: int,
    for_s: float = FOR_S,
    seeds: Sequence[int] = SEEDS,
    *,
    warm_up_s: float = WARM_UP_S,
) -> Prediction:
    """Simulate `sessions` conversations once per seed, and return their latency and load.

    Args:
        network: Deployment, callers and answers to simulate.
        sessions: Number of sessions.
        for_s: Simulated seconds per seed, after the warm-up.
        seeds: Seeds of the simulations. A standard error needs at least two.
        warm_up_s: Simulated seconds before the measurement.

    Raises:
        ValueError: A run ended without a single turn.
    """
    runs = [simulate(network, sessions=sessions, for_s=for_s, seed=seed, warm_up_s=warm_up_s) for seed in seeds]
    totals = [np.array([turn.total_s for turn in run.turns]) for run in runs]
    if any(not total.size for total in totals):
        raise ValueError(f"no turn ended within {for_s:g} s: one turn takes longer than the simulation")
    p50, p95, p99 = (_estimate([1000 * float(np.percentile(total, p)) for total in totals]) for p in (50, 95, 99))
    stages = tuple(runs[0].busy)
    return Prediction(
        sessions=sessions,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        turns_per_s=_estimate([run.turns_per_s for run in runs]),
        busy={stage: fmean(run.busy[stage] for run in runs) for stage in stages},
        wait_p95_ms={stage: _wait_p95_ms(runs, stage) for stage in stages},
        hedged=sum(run.hedges for run in runs) / sum(len(run.turns) for run in runs),
    )


def knee(p95_ms: Callable[[int], float], limit_ms: float, most: int = MAX_SESSIONS) -> int:
    """Find the largest number of sessions whose p95 latency is within a limit, by doubling and bisection.

    Args:
        p95_ms: Function from a number of sessions to the 95th percentile of latency in milliseconds. It must not fall
            with load.
        limit_ms: Largest allowed latency in milliseconds.
        most: Upper bound of the search.

    Returns:
        The largest number of sessions within the limit, at most `most`. 0 if one session alone exceeds the limit.
    """
    if p95_ms(1) > limit_ms:
        return 0
    low, high = 1, 2
    while p95_ms(high) <= limit_ms:
        if high >= most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if p95_ms(middle) <= limit_ms:
            low = middle
        else:
            high = middle
    return low


def predicted_knee(network: TurnNetwork, limit_ms: float, for_s: float = FOR_S, most: int = MAX_SESSIONS) -> int:
    """Return the largest number of sessions whose simulated p95 voice-to-voice latency is within `limit_ms`.

    Args:
        network: Deployment, callers and answers to simulate.
        limit_ms: Largest allowed 95th percentile in milliseconds.
        for_s: Simulated seconds per seed, after the warm-up.
        most: Upper bound of the search.
    """
    return knee(lambda sessions: predict(network, sessions, for_s).p95_ms.value, limit_ms, most)


def refused(sessions_per_s: float, session_s: float, max_sessions: int) -> float:
    """Return the share of calls that admission refuses, by Erlang B.

    Calls arrive at random (Poisson) at a rate of `sessions_per_s`, last `session_s` seconds on average, and do not
    queue.
    """
    return blocking(sessions_per_s * session_s, max_sessions)


def _estimate(values: list[float]) -> Estimate:
    return Estimate(fmean(values), stdev(values) / sqrt(len(values)))


def _wait_p95_ms(runs: list[SimulatedRun], stage: str) -> float:
    waits = [wait for run in runs for wait in run.waits_s[stage]]
    return 1000 * float(np.percentile(waits, 95)) if waits else 0.0
