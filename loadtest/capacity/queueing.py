"""Simulation of one stage: replicas with slots and queues, and the choice of a replica for each request.

A replica serves `slots` requests at the same time. Further requests wait in its queue, first come first served. Each
request goes to the replica with the shorter queue of two random replicas, and stays there. Requests therefore wait
longer than in one common queue with all slots. The usual formulas assume a common queue, so the network is simulated.

The simulation differs from the deployment in one point. The real router keeps a conversation on its own LLM replica
(rendezvous hashing) unless another replica's queue is shorter by at least `STICKY_MARGIN` requests
(`deployments/serving/router.py`). The simulation chooses between two random replicas for the LLM, too.
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
    """Configuration of one stage.

    Attributes:
        replicas: Number of replicas, at least 1.
        slots: Number of requests that one replica serves at the same time, at least 1.
        first: Distribution of the seconds from getting a slot to the first output. The argument `rest_s` of
            `QueueStation.serve` is the time after the first output.
        hop_s: Distribution of the seconds of the network hop to the replica and back. The hop occupies no slot.
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
        """Number of slots of all replicas together."""
        return self.replicas * self.slots


class QueueReplica:
    """Slots and queue of one replica.

    Attributes:
        slots: The simulated slots.
        draw: Function that draws the next time to the first output, in seconds.
        ongoing: Number of requests that wait or are served, as the router counts them.
        busy_s: Sum of the seconds that slots were in use since the measurement began, over all slots.
    """

    def __init__(self, env: simpy.Environment, stage: QueueStage, rng: random.Random) -> None:
        self.slots = simpy.Resource(env, stage.slots)
        self.draw = stage.first.drawer(rng)
        self.ongoing = 0
        self.busy_s = 0.0

    @property
    def in_service(self) -> int:
        """Number of occupied slots."""
        return int(self.slots.count)


class QueueStation:
    """All replicas of one stage, with their measurements. For each request, call `choose` and run `serve`.

    Attributes:
        stage: The configuration.
        measured_since: Simulated time, in seconds, at which the measurement begins. Infinite until it is set.
        waits_s: Every wait for a slot in the measured time, in seconds.
    """

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
        """Sum of the seconds that slots were in use in the measured time, over all slots of all replicas."""
        return sum(replica.busy_s for replica in self._replicas)

    def choose(self, avoid: QueueReplica | None = None) -> QueueReplica | None:
        """Return the replica with fewer requests, waiting or in service, of two random replicas other than `avoid`.

        Return None if `avoid` is the only replica.
        """
        allowed = [replica for replica in self._replicas if replica is not avoid] if avoid else self._replicas
        if not allowed:
            return None
        pair = self._rng.sample(allowed, 2) if len(allowed) > 1 else allowed
        return min(pair, key=lambda replica: replica.ongoing)

    def serve(self, replica: QueueReplica, begun: simpy.Event | None = None, rest_s: float = 0.0) -> Steps:
        """Simulate one request. An interrupt (`simpy.Interrupt`) releases the slot or the place in the queue.

        Args:
            replica: Replica that serves the request.
            begun: Event to trigger at the first output.
            rest_s: Seconds for which the slot stays occupied after the first output.
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
