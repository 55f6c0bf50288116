"""Simulation of the session hosts: calls arrive, last for minutes, and are refused if every host is full.

A new call goes to the host with the fewest calls. A host that is removed keeps its calls until they end. Callers whose
host is lost call again within RECALL_S.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from actors.host import CALLS_S
from benchmarks.scaling.controller import SimulatedController
from benchmarks.scaling.stage_load import NodeLoss
from deployments.serving.autoscaling import ARRIVALS_PER_S, ENDED, LOOP_LAG_S, SERVICE_S, SESSIONS

STEP_S = 1.0
RECALL_S = 10
"""Seconds over which the callers of lost hosts call again."""


@dataclass(frozen=True, slots=True)
class SimulatedHosts:
    """The hosts.

    Attributes:
        max_sessions: Maximum number of calls of a host.
        call_s: Mean length of a call in seconds.
    """

    max_sessions: int = 100
    call_s: float = 180.0


@dataclass(slots=True)
class HostTotals:
    """What happened in a simulation.

    Attributes:
        calls: Calls that arrived.
        refused: Calls that found every host full.
        lost: Calls that were on hosts of lost nodes.
        call_s: Sum of the seconds of all calls.
        place_s: Sum of the seconds in which places existed, those of draining hosts included. A host has
            `max_sessions` places.
        most: Largest number of hosts.
    """

    calls: int = 0
    refused: int = 0
    lost: int = 0
    call_s: float = 0.0
    place_s: float = 0.0
    most: int = 0

    @property
    def idle_share(self) -> float:
        """Share of the places that were free, over time."""
        return 1 - self.call_s / self.place_s


@dataclass(slots=True)
class HostSimulation:
    """All hosts with their autoscaler. Call `run`."""

    hosts: SimulatedHosts
    controller: SimulatedController
    seed: int = 1
    totals: HostTotals = field(default_factory=HostTotals)
    _calls: np.ndarray = field(init=False)
    _draining: np.ndarray = field(init=False)
    _recent: deque[int] = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _again: int = 0
    _again_per_step: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._calls = np.zeros(self.controller.running, dtype=np.int64)
        self._draining = np.zeros(0, dtype=np.int64)
        self._recent = deque(maxlen=round(CALLS_S / STEP_S))

    def run(
        self, duration_s: float, rate: Callable[[float], float], loss: NodeLoss | None = None, *, begin: int = 0
    ) -> HostTotals:
        """Simulate `duration_s` seconds and return the totals.

        Args:
            duration_s: Length of the simulation in seconds.
            rate: Returns the new calls per second at a time in seconds.
            loss: A loss of nodes; None for none.
            begin: Calls at the beginning, spread over the hosts.
        """
        self._admit(begin)
        for step in range(round(duration_s / STEP_S)):
            now = step * STEP_S
            if ready := self.controller.started(now):
                self._calls = np.concatenate([self._calls, np.zeros(ready, dtype=np.int64)])
            if loss and now <= loss.at_s < now + STEP_S:
                lost = round(len(self._calls) * loss.share)
                self._again = int(self._calls[:lost].sum())
                self._again_per_step = math.ceil(self._again / RECALL_S * STEP_S)
                self.totals.lost += self._again
                self._calls = self._calls[lost:]
                self.controller.lose(lost, now, loss.replace_s)
            again = min(self._again, self._again_per_step)
            self._again -= again
            self._advance(int(self._rng.poisson(rate(now) * STEP_S)) + again)
            signals = {
                SESSIONS: [float(self._calls.sum())],
                ARRIVALS_PER_S: [sum(self._recent) / (len(self._recent) * STEP_S)],
                ENDED: [1.0],
                SERVICE_S: [self.hosts.call_s],
                LOOP_LAG_S: [0.0],
            }
            stopping = self.controller.tick(signals, float(self._calls.sum()), now)
            if stopping:
                self._draining = np.concatenate([self._draining, self._calls[-stopping:]])
                self._calls = self._calls[:-stopping]
        return self.totals

    def _advance(self, arrived: int) -> None:
        ends = STEP_S / self.hosts.call_s
        self._calls -= self._rng.binomial(self._calls, ends)
        self._draining -= self._rng.binomial(self._draining, ends)
        self._draining = self._draining[self._draining > 0]
        self._recent.append(arrived)
        totals = self.totals
        totals.calls += arrived
        totals.refused += arrived - self._admit(arrived)
        existing = len(self._calls) + len(self._draining)
        totals.call_s += float(self._calls.sum() + self._draining.sum()) * STEP_S
        totals.place_s += existing * self.hosts.max_sessions * STEP_S
        totals.most = max(totals.most, existing)

    def _admit(self, calls: int) -> int:
        """Give each call to the host with the fewest calls. Return how many found a place."""
        for call in range(calls):
            host = int(self._calls.argmin()) if len(self._calls) else -1
            if host < 0 or self._calls[host] >= self.hosts.max_sessions:
                return call
            self._calls[host] += 1
        return calls
