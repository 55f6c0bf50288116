"""Find the smallest number of replicas per stage with which a number of sessions meets its latency target.

The formulas of `rejoinder.core.capacity.sizing` give a first guess. While the simulated network misses the target,
replicas are added at the stage with the longest waits. Then replicas that the target does not need are removed.
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
"""Number of turns to simulate at each step. The sampling error of their 95th percentile is about 2%."""
SEEDS = (21, 22)
CYCLES = 2.0
"""Length of the warm-up, in cycles of a conversation (think, speak, wait, listen)."""
MAX_STEPS = 60

MOST_BUSY = 0.85
"""Maximum share of a stage's slots that a plan uses. Predicted knees have an error of up to 10%, and waits grow without
bound as the share approaches 1."""


@dataclass(frozen=True, slots=True)
class CapacityTarget:
    """Target of a plan. It must be met while the spare replicas are missing, with no stage busier than `MOST_BUSY`.

    Attributes:
        sessions: Mean number of sessions that the callers try to hold at the same time.
        tier: Latency tier of the latency guide (section 3.1). The tier's total is the limit of the median.
        p95_ms: Limit of the 95th percentile of voice-to-voice latency in milliseconds.
        spare: Number of replicas of each component that may be missing while the target is met.
        refused: Share of calls that may be refused, 0 to 1.
        low_sessions: Mean number of sessions at the lowest load of a day whose highest is `sessions`. None if the load
            is constant.
    """

    sessions: int
    tier: Tier
    p95_ms: float
    spare: int = 1
    refused: float = 0.005
    low_sessions: int | None = None

    @property
    def p50_ms(self) -> float:
        """Limit of the median voice-to-voice latency in milliseconds: the tier's total."""
        return total_limit_ms(self.tier)

    def met_by(self, prediction: Prediction) -> bool:
        """Return True if the predicted median and 95th percentile are within their limits.

        No stage may be busier than `MOST_BUSY`, either.
        """
        in_time = prediction.p95_ms.value <= self.p95_ms and prediction.p50_ms.value < self.p50_ms
        return in_time and max(prediction.busy.values()) <= MOST_BUSY


@dataclass(frozen=True, slots=True)
class SolvedReplicas:
    """Smallest number of replicas per stage that meets a target, and the predictions for it.

    Attributes:
        admitted: Number of sessions that the hosts admit.
        needed: Number of replicas by stage, without spare replicas.
        prediction: Predicted latency and load with these replicas and `admitted` sessions.
        alone: Predicted latency and load with a single session.
        cycle_s: Length in seconds of one cycle of a conversation (think, speak, wait, listen) with a single session.
    """

    admitted: int
    needed: dict[str, int]
    prediction: Prediction
    alone: Prediction
    cycle_s: float


def invert(network: TurnNetwork, target: CapacityTarget, admitted: int) -> SolvedReplicas:
    """Return the smallest number of replicas per stage with which `admitted` sessions meet the target.

    Raises:
        ConfigError: No number of replicas meets the target.
    """
    alone = predict(network, 1, for_s=600.0)
    _check(target, alone)
    cycle_s = 1 / alone.turns_per_s.value
    search = _Search(network, target, admitted, cycle_s)
    needed = search.start(target.p95_ms - alone.p95_ms.value)
    found = search.predict(needed)
    for _ in range(MAX_STEPS):
        if target.met_by(found):
            break
        # Choose a stage above MOST_BUSY, or else the stage at which turns wait longest. Add a tenth of its replicas, at
        # least one.
        slowest = max(STAGES, key=lambda stage: (found.busy[stage] > MOST_BUSY, found.wait_p95_ms[stage]))
        needed = needed | {slowest: needed[slowest] + max(1, needed[slowest] // 10)}
        found = search.predict(needed)
    else:
        raise ConfigError(
            f"with {needed} replicas, p95 is still {found.p95_ms.value:.0f} ms.",
            "Allow more time, or choose faster engines.",
            "--p95-ms",
        )
    for stage in STAGES:
        needed = needed | {stage: search.fewest(needed, stage)}
    return SolvedReplicas(admitted, needed=needed, prediction=search.predict(needed), alone=alone, cycle_s=cycle_s)


def _check(target: CapacityTarget, alone: Prediction) -> None:
    """Raise ConfigError if `alone`, the prediction for a single caller, already misses the target.

    More replicas then do not help, because they only shorten waits.
    """
    limits = (
        ("p95", alone.p95_ms.value, target.p95_ms, "--p95-ms"),
        ("p50", alone.p50_ms.value, target.p50_ms, "--tier"),
    )
    for name, value, limit, option in limits:
        if value >= limit:
            raise ConfigError(
                f"a single caller already has a {name} of {value:.0f} ms, and the target is {limit:.0f} ms: "
                "more replicas do not help.",
                "Choose faster engines or a looser target.",
                field=option,
            )


def work(network: TurnNetwork, stage: str) -> StageWork:
    """Return the work of one turn at a stage: its number of requests, and how long a request occupies a slot."""
    answer = network.answer
    first: ServiceTimes = getattr(network, stage).first
    if stage == "stt":
        return StageWork(1 + network.callers.abandoned, first.mean_s, first.scv)
    if stage == "llm":
        return StageWork(1.0, first.mean_s + answer.generation_s, _scv(first, answer.generation_s))
    rest_s = sum(answer.rest_s(audio_s) for _, audio_s in answer.segments) / len(answer.segments)
    return StageWork(len(answer.segments), first.mean_s + rest_s, _scv(first, rest_s))


def _scv(first: ServiceTimes, rest_s: float) -> float:
    """Return the squared coefficient of variation of the time for which a request occupies a slot.

    This time is the random time `first` plus the constant `rest_s` seconds.
    """
    total_s = first.mean_s + rest_s
    return first.scv * (first.mean_s / total_s) ** 2 if total_s else 0.0


class _Search:
    """Predictions for one network, target and number of admitted sessions, with varying numbers of replicas.

    Each combination of replicas is simulated only once.
    """

    def __init__(self, network: TurnNetwork, target: CapacityTarget, admitted: int, cycle_s: float) -> None:
        self._network = network
        self._target = target
        self._admitted = admitted
        self._cycle_s = cycle_s
        self._predictions: dict[tuple[int, ...], Prediction] = {}

    def start(self, slack_ms: float) -> dict[str, int]:
        """Return a first guess of the replicas per stage, by the formulas of `rejoinder.core.capacity.sizing`.

        `slack_ms` is the limit of the 95th percentile minus the 95th percentile of a single caller, in milliseconds.
        Each of the three stages may use a third of it for waiting.
        """
        per_s = self._admitted / self._cycle_s
        return {stage: self._by_formula(stage, per_s, slack_ms / 3000) for stage in STAGES}

    def _by_formula(self, stage: str, turns_per_s: float, wait_s: float) -> int:
        unit = ReplicaUnit(stage, getattr(self._network, stage).slots, 0, 0)
        return replicas(work(self._network, stage), unit, turns_per_s, wait_s)

    def predict(self, needed: dict[str, int]) -> Prediction:
        """Return the prediction with `needed` replicas, by stage.

        If these numbers of replicas have been simulated before, return the earlier prediction.
        """
        key = tuple(needed[stage] for stage in STAGES)
        if key not in self._predictions:
            stages: dict[str, QueueStage] = {
                stage: replace(getattr(self._network, stage), replicas=count) for stage, count in needed.items()
            }
            for_s = max(self._cycle_s, TURNS * self._cycle_s / self._admitted)
            network = self._network.with_stages(stages)
            self._predictions[key] = predict(
                network, sessions=self._admitted, for_s=for_s, seeds=SEEDS, warm_up_s=CYCLES * self._cycle_s
            )
        return self._predictions[key]

    def fewest(self, needed: dict[str, int], stage: str) -> int:
        """Return the smallest number of replicas of `stage` that meets the target.

        The other stages have the replicas in `needed`. The search is a bisection, which works because fewer replicas
        never lower the latency.
        """
        return _least(needed[stage], lambda count: self._target.met_by(self.predict(needed | {stage: count})))


def _least(high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest count from 1 to `high` for which `holds` is True. It must be True for `high`."""
    low = 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
