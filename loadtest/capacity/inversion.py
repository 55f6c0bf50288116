"""A target turned around: the fewest replicas of each stage with which so many sessions keep their percentiles.

The formulas of `rejoinder.core.capacity.sizing` give a start; the simulated network then adds replicas where turns
wait longest
until the target holds, and takes them away again where it holds without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtest.capacity.network_fit import STAGES
from loadtest.capacity.prediction import Prediction, predict
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import ServiceTimes
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.budgets import Tier, total_limit_ms
from rejoinder.core.capacity.sizing import ReplicaUnit, StageWork, replicas
from rejoinder.core.errors import ConfigError

TURNS = 3000
"""Simulated at each step: a 95th percentile of so many is good to about 2%."""
SEEDS = (21, 22)
CYCLES = 2.0
"""Warm-up, in cycles of a conversation."""
MAX_STEPS = 60

MOST_BUSY = 0.85
"""Share of a stage's slots that a plan uses at most: predicted knees are good to a tenth, and waits explode near 1."""


@dataclass(frozen=True, slots=True)
class CapacityTarget:
    """`sessions`: offered on average, of which the share `refused` may find no place. `p95_ms` and the tier's total at
    the median (guide 3.1) must both hold while `spare` replicas of each component are away, with no stage busier than
    MOST_BUSY.
    """

    sessions: int
    tier: Tier
    p95_ms: float
    spare: int = 1
    refused: float = 0.005

    @property
    def p50_ms(self) -> float:
        return total_limit_ms(self.tier)

    def met_by(self, found: Prediction) -> bool:
        in_time = found.p95_ms.value <= self.p95_ms and found.p50_ms.value < self.p50_ms
        return in_time and max(found.busy.values()) <= MOST_BUSY


@dataclass(frozen=True, slots=True)
class SolvedReplicas:
    """`needed` replicas by stage, without spare ones, and what they are predicted to do with `admitted` sessions."""

    admitted: int
    needed: dict[str, int]
    prediction: Prediction
    alone: Prediction
    cycle_s: float


def invert(network: TurnNetwork, target: CapacityTarget, admitted: int) -> SolvedReplicas:
    """The fewest replicas that carry `admitted` sessions; raises ConfigError if no number of them can."""
    alone = predict(network, 1, for_s=600.0)
    _check(target, alone)
    cycle_s = 1 / alone.turns_per_s.value
    search = _Search(network, target, admitted, cycle_s)
    needed = search.start(target.p95_ms - alone.p95_ms.value)
    found = search.predict(needed)
    for _ in range(MAX_STEPS):
        if target.met_by(found):
            break
        # The stage where turns wait longest (or whose slots are busiest) gets a tenth more, one at least.
        slowest = max(STAGES, key=lambda stage: (found.busy[stage] > MOST_BUSY, found.wait_p95_ms[stage]))
        needed = needed | {slowest: needed[slowest] + max(1, needed[slowest] // 10)}
        found = search.predict(needed)
    else:
        raise ConfigError(
            f"even {needed} leave p95 at {found.p95_ms.value:.0f} ms.",
            "Allow more time, or faster engines.",
            "--p95-ms",
        )
    for stage in STAGES:
        needed = needed | {stage: search.fewest(needed, stage)}
    return SolvedReplicas(admitted, needed=needed, prediction=search.predict(needed), alone=alone, cycle_s=cycle_s)


def _check(target: CapacityTarget, alone: Prediction) -> None:
    """One caller alone must meet the target: replicas remove waiting, nothing else."""
    wanted = (
        ("p95", alone.p95_ms.value, target.p95_ms, "--p95-ms"),
        ("p50", alone.p50_ms.value, target.p50_ms, "--tier"),
    )
    for name, value, limit, option in wanted:
        if value >= limit:
            raise ConfigError(
                f"one caller alone has a {name} of {value:.0f} ms, the target is {limit:.0f}: replicas cannot help.",
                "Choose faster engines or a looser target.",
                field=option,
            )


def work(network: TurnNetwork, stage: str) -> StageWork:
    """What a turn asks of a stage."""
    answer = network.answer
    held = getattr(network, stage)
    mean_s = held.first.mean_s
    if stage == "stt":
        return StageWork(1 + network.callers.abandoned, mean_s, held.first.scv)
    if stage == "llm":
        return StageWork(1.0, mean_s + answer.generation_s, _scv(held.first, answer.generation_s))
    rest_s = sum(answer.rest_s(audio_s) for _, audio_s in answer.segments) / len(answer.segments)
    return StageWork(len(answer.segments), mean_s + rest_s, _scv(held.first, rest_s))


def _scv(first: ServiceTimes, behind_s: float) -> float:
    """Of a variable time and a constant behind it."""
    total_s = first.mean_s + behind_s
    return first.scv * (first.mean_s / total_s) ** 2 if total_s else 0.0


class _Search:
    """Predictions of one target, each made once."""

    def __init__(self, network: TurnNetwork, target: CapacityTarget, admitted: int, cycle_s: float) -> None:
        self._network = network
        self._target = target
        self._admitted = admitted
        self._cycle_s = cycle_s
        self._known: dict[tuple[int, ...], Prediction] = {}

    def start(self, slack_ms: float) -> dict[str, int]:
        """By formula: a third of what the target leaves for waiting to each stage."""
        per_s = self._admitted / self._cycle_s
        return {stage: self._by_formula(stage, per_s, slack_ms / 3000) for stage in STAGES}

    def _by_formula(self, stage: str, turns_per_s: float, wait_s: float) -> int:
        unit = ReplicaUnit(stage, getattr(self._network, stage).slots, 0, 0)
        return replicas(work(self._network, stage), unit, turns_per_s, wait_s)

    def predict(self, needed: dict[str, int]) -> Prediction:
        key = tuple(needed[stage] for stage in STAGES)
        if key not in self._known:
            stages: dict[str, QueueStage] = {
                stage: replace(getattr(self._network, stage), replicas=count) for stage, count in needed.items()
            }
            for_s = max(self._cycle_s, TURNS * self._cycle_s / self._admitted)
            network = self._network.with_stages(stages)
            self._known[key] = predict(
                network, sessions=self._admitted, for_s=for_s, seeds=SEEDS, warm_up_s=CYCLES * self._cycle_s
            )
        return self._known[key]

    def fewest(self, needed: dict[str, int], stage: str) -> int:
        """Of one stage, the others as they are: by bisection, since fewer replicas never help."""
        return _least(needed[stage], lambda count: self._target.met_by(self.predict(needed | {stage: count})))


def _least(high: int, holds: Callable[[int], bool]) -> int:
    """The least count in [1, high] that holds; `high` does."""
    low = 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
