"""A stage of replicas in simulation: slots, queues, and the choice of a replica, as the deployments have them.

A replica serves `slots` requests at once and lets others wait in order; the caller's router sends each request to the
shorter of two replicas drawn at random, and never moves it again. So c slots on r replicas wait longer than c slots
behind one queue, which is why the network is simulated and not computed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from dataclasses import dataclass, field

import simpy

from loadtest.capacity.service_times import ServiceTimes, fixed

Steps = Generator[simpy.Event, object, None]


@dataclass(frozen=True, slots=True)
class QueueStage:
    """What is deployed. `first`: seconds from a slot to the first output; the caller of `serve` adds what follows.

    `hop_s`: what the way there and back adds, in which no slot is held.
    """

    replicas: int
    slots: int
    first: ServiceTimes
    hop_s: ServiceTimes = field(default_factory=lambda: fixed(0))

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.slots < 1:
            raise ValueError(f"a stage has at least one replica with one slot, not {self.replicas} with {self.slots}")

    @property
    def total_slots(self) -> int:
        return self.replicas * self.slots


class QueueReplica:
    """One replica's slots and queue; `ongoing` counts who waits or is served, as the router sees it."""

    def __init__(self, env: simpy.Environment, stage: QueueStage, rng: random.Random) -> None:
        self.slots = simpy.Resource(env, stage.slots)
        self.draw = stage.first.drawer(rng)
        self.ongoing = 0
        self.busy_s = 0.0

    @property
    def in_service(self) -> int:
        return int(self.slots.count)


class QueueStation:
    """The replicas of one stage, and what is measured of them, from `measured_since` on."""

    def __init__(self, env: simpy.Environment, stage: QueueStage, rng: random.Random) -> None:
        self.stage = stage
        self.measured_since = math.inf
        self.waits_s: list[float] = []
        self._env = env
        self._rng = rng
        self._replicas = [QueueReplica(env, stage, rng) for _ in range(stage.replicas)]
        self._hop = stage.hop_s.drawer(rng)

    @property
    def busy_s(self) -> float:
        """Slot seconds used."""
        return sum(replica.busy_s for replica in self._replicas)

    def choose(self, avoid: QueueReplica | None = None) -> QueueReplica | None:
        """The shorter queue of two random replicas, but not `avoid`; None if there is no other."""
        allowed = [replica for replica in self._replicas if replica is not avoid] if avoid else self._replicas
        if not allowed:
            return None
        pair = self._rng.sample(allowed, 2) if len(allowed) > 1 else allowed
        return min(pair, key=lambda replica: replica.ongoing)

    def serve(self, replica: QueueReplica, begun: simpy.Event | None = None, rest_s: float = 0.0) -> Steps:
        """One request: wait for a slot, hold it to the first output (then `begun` happens) and for `rest_s` more.

        An interrupt at any time gives back the slot, or the place in the queue.
        """
        env = self._env
        replica.ongoing += 1
        try:
            yield env.timeout(self._hop(1))
            arrived = env.now
            with replica.slots.request() as slot:
                yield slot
                started = env.now
                if started >= self.measured_since:
                    self.waits_s.append(started - arrived)
                try:
                    yield env.timeout(replica.draw(replica.in_service))
                    if begun is not None and not begun.triggered:
                        begun.succeed()
                    if rest_s:
                        yield env.timeout(rest_s)
                finally:
                    replica.busy_s += max(0.0, env.now - max(started, self.measured_since))
        finally:
            replica.ongoing -= 1
