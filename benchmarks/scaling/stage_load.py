"""Simulation of one autoscaled stage: requests, routing to the shorter of two queues, slots, waits and refusals.

Time advances in steps. In a step, a Poisson number of requests arrives. Each one looks at two random replicas and joins
the shorter queue. Service times are exponential. The waits of the requests are drawn from their places in the queues.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.controller import SimulatedController
from deployments.serving.autoscaling import ARRIVALS_PER_S, BEGAN, ENDED, LATE, SERVICE_S
from deployments.serving.replica import RECENT_S

STEP_S = 0.1
DECIDE_S = 1.0
"""Interval of the policy's decisions in seconds. Serve decides ten times a second, on measurements that are at most as
new as `metrics_interval_s`."""


@dataclass(frozen=True, slots=True)
class SimulatedStage:
    """A stage.

    Attributes:
        slots: Requests that a replica serves at the same time.
        service_s: Mean service time in seconds.
        max_queue: Requests that wait in a replica at most; further ones are refused.
        limit_s: Wait in seconds above which a request is late.
    """

    slots: int = 4
    service_s: float = 0.5
    max_queue: int = 16
    limit_s: float = 0.05


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """Loss of nodes.

    Attributes:
        at_s: Time in seconds.
        share: Share of the replicas that are lost, with their requests.
        replace_s: Seconds until other nodes are there, on which replacements can start.
    """

    at_s: float
    share: float = 1 / 3
    replace_s: float = 60.0


@dataclass(slots=True)
class StageTotals:
    """What happened in a simulation.

    Attributes:
        requests: Requests that arrived.
        refused: Requests that found the queue of their replica full, or no replica.
        late: Requests that waited longer than the limit.
        lost: Requests that were in replicas of lost nodes.
        busy_s: Sum of the seconds in which slots were in use.
        slot_s: Sum of the seconds in which slots existed.
        most: Largest number of running replicas.
    """

    requests: int = 0
    refused: int = 0
    late: int = 0
    lost: int = 0
    busy_s: float = 0.0
    slot_s: float = 0.0
    most: int = 0

    @property
    def idle_share(self) -> float:
        """Share of the slots that were idle, over time."""
        return 1 - self.busy_s / self.slot_s

    def share(self, count: int) -> float:
        """Return `count` as a share of the requests."""
        return count / max(1, self.requests)


@dataclass(slots=True)
class _Step:
    """Counts of one step: see `LoadCounts`."""

    arrived: int
    began: int
    late: int
    ended: int


class StageSimulation:
    """One stage with its autoscaler. Call `run`."""

    def __init__(self, stage: SimulatedStage, controller: SimulatedController, seed: int = 1) -> None:
        self.totals = StageTotals()
        self._stage = stage
        self._controller = controller
        self._rng = np.random.default_rng(seed)
        self._queues = np.zeros(controller.running, dtype=np.int64)
        self._ends = 1 - math.exp(-STEP_S / stage.service_s)
        self._recent: deque[_Step] = deque(maxlen=round(RECENT_S / STEP_S))
        # Probability that a request waits longer than the limit behind k others without a slot: fewer than k + 1 of the
        # replica's services end before the limit.
        mean = stage.slots * stage.limit_s / stage.service_s
        terms = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(stage.max_queue + 1)]
        self._late = np.cumsum(terms)

    def run(self, duration_s: float, rate: Callable[[float], float], loss: NodeLoss | None = None) -> StageTotals:
        """Simulate `duration_s` seconds and return the totals.

        Args:
            duration_s: Length of the simulation in seconds.
            rate: Returns the arrivals per second at a time in seconds.
            loss: A loss of nodes; None for none.
        """
        steps, decide = round(duration_s / STEP_S), round(DECIDE_S / STEP_S)
        report = round(self._controller.scaling.metrics_interval_s / STEP_S)
        signals = self._signals()
        for step in range(steps):
            now = step * STEP_S
            if ready := self._controller.started(now):
                self._queues = np.concatenate([self._queues, np.zeros(ready, dtype=np.int64)])
            if loss and now <= loss.at_s < now + STEP_S:
                self._lose(loss, now)
            self._recent.append(self._advance(rate(now)))
            if step % report == 0:
                signals = self._signals()
            if step % decide == 0:
                self._stop(self._controller.tick(signals, float(self._queues.sum()), now))
        return self.totals

    def _advance(self, rate: float) -> _Step:
        stage, totals = self._stage, self.totals
        arrived = int(self._rng.poisson(rate * STEP_S))
        waiting_before = self._waiting()
        joined, late = self._join(arrived) if len(self._queues) else (0, 0)
        served = np.minimum(self._queues, stage.slots)
        ended = self._rng.binomial(served, self._ends)
        began = joined + waiting_before - int(np.maximum(self._queues - ended - stage.slots, 0).sum())
        self._queues -= ended
        totals.requests += arrived
        totals.refused += arrived - joined
        totals.late += late
        totals.busy_s += float(served.sum()) * STEP_S
        totals.slot_s += len(self._queues) * stage.slots * STEP_S
        totals.most = max(totals.most, len(self._queues))
        return _Step(arrived, max(0, began), late, int(ended.sum()))

    def _join(self, arrived: int) -> tuple[int, int]:
        """Route the arrivals. Return how many were accepted and how many of them will be late."""
        stage, count = self._stage, len(self._queues)
        first, second = self._rng.integers(count, size=arrived), self._rng.integers(max(1, count - 1), size=arrived)
        second = (first + 1 + second) % count if count > 1 else first
        chosen = np.where(self._queues[first] <= self._queues[second], first, second)
        # The requests of this step that chose the same replica stand behind each other.
        chosen.sort()
        rank = np.arange(arrived) - np.searchsorted(chosen, chosen)
        place = self._queues[chosen] + rank
        accepted = place < stage.slots + stage.max_queue
        behind = place[accepted & (place >= stage.slots)] - stage.slots
        late = int((self._rng.random(len(behind)) < self._late[behind]).sum())
        np.add.at(self._queues, chosen[accepted], 1)
        return int(accepted.sum()), late

    def _waiting(self) -> int:
        return int(np.maximum(self._queues - self._stage.slots, 0).sum())

    def _signals(self) -> dict[str, list[float]]:
        """Return the sums that the replicas report together."""
        recent = self._recent
        ended = sum(step.ended for step in recent)
        return {
            ARRIVALS_PER_S: [sum(step.arrived for step in recent) / max(1.0, len(recent) * STEP_S)],
            BEGAN: [sum(step.began for step in recent)],
            LATE: [sum(step.late for step in recent)],
            ENDED: [ended],
            SERVICE_S: [ended * self._stage.service_s],
        }

    def _lose(self, loss: NodeLoss, now: float) -> None:
        lost = round(len(self._queues) * loss.share)
        self.totals.lost += int(self._queues[:lost].sum())
        self._queues = self._queues[lost:]
        self._controller.lose(lost, now, loss.replace_s)

    def _stop(self, replicas: int) -> None:
        """Remove the newest replicas. Requests in them are served: they move to the others here."""
        if replicas:
            moved = int(self._queues[-replicas:].sum())
            self._queues = self._queues[:-replicas]
            self._join(moved)
