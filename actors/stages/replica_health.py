"""Health of the language model's replicas: a silent one is taken out of use, and probed until it answers again.

`rejoinder.core.resilience.circuit_breaker` decides; this watches the waiting streams and carries the decisions out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from actors.stages.ports import LlmPort, LlmRequest, Metrics
from actors.stages.retry import contained
from rejoinder.core.errors import RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.resilience.circuit_breaker import CircuitBreaker
from rejoinder.core.resilience.hedging import HedgePolicy
from rejoinder.core.settings.settings import BreakerSettings

# Interval of the checks. It adds at most this much to the time until a silent replica is noticed.
CHECK_EVERY_S = 0.05
PROBE = (ChatMessage("user", "Hello"),)


class WaitingStream(Protocol):
    """A stream that waits for its next token.

    Attributes:
        waiting_since: Monotonic time of its last token, or of its start.
    """

    waiting_since: float

    @property
    def replica(self) -> str:
        """Id of the replica that serves it; "" while none is chosen."""
        ...

    def abandon(self) -> None:
        """Give its replica up: the replica has fallen silent. Must not block."""
        ...


class ReplicaHealth:
    """Circuit breaker over the language model's replicas, shared by all conversations of a host."""

    def __init__(
        self,
        llm: LlmPort,
        settings: BreakerSettings,
        policy: HedgePolicy,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._llm = llm
        self._settings = settings
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._breaker = CircuitBreaker(settings)
        self._waiting: set[WaitingStream] = set()
        self._wake = asyncio.Event()

    @property
    def avoid(self) -> frozenset[str]:
        """The replicas that are out of use."""
        return self._breaker.avoid

    def add(self, stream: WaitingStream) -> None:
        """Watch a stream that was just opened."""
        self._waiting.add(stream)
        self._wake.set()

    def remove(self, stream: WaitingStream) -> None:
        """Stop watching a stream."""
        self._waiting.discard(stream)

    def token_received(self, replica: str) -> None:
        """Record a token of `replica`; it closes an open breaker."""
        if self._breaker.heard(replica, self._clock()):
            self._metrics.breaker("closed")

    def failed(self, replica: str) -> None:
        """Record a failed request of `replica`; "" is ignored."""
        if replica and self._breaker.failed(replica, self._clock()):
            self._opened()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Check while a stream waits or a replica is out of use, until cancelled. Probes run as tasks of `group`."""
        while True:
            self._wake.clear()
            if not self._waiting and not self.avoid:
                await self._wake.wait()
            self._check()
            for replica in self._breaker.due(self._clock()):
                group.create_task(self._probe(replica))
            await asyncio.sleep(CHECK_EVERY_S)

    def _check(self) -> None:
        waiting_since_by_replica: dict[str, float] = {}
        for stream in self._waiting:
            if stream.replica:
                since = waiting_since_by_replica.get(stream.replica, stream.waiting_since)
                waiting_since_by_replica[stream.replica] = min(since, stream.waiting_since)
        now = self._clock()
        usual_s = self._settings.silence_factor * self._policy.usual_s(now)
        idle_timeout_s = max(self._settings.silence_ms / 1000, usual_s)
        for replica in self._breaker.silent(waiting_since_by_replica, idle_timeout_s, now):
            self._opened()
            for stream in [stream for stream in self._waiting if stream.replica == replica]:
                stream.abandon()

    def _opened(self) -> None:
        self._metrics.breaker("opened")
        self._wake.set()

    async def _probe(self, replica: str) -> None:
        """Ask this replica, and only this one, for a token. Cancelling stops the engine."""
        others = self._breaker.known - {replica}
        request = LlmRequest(PROBE, max_tokens=1)
        with contained("llm", self._metrics):
            try:
                async with (
                    asyncio.timeout(self._settings.silence_ms / 1000),
                    self._llm.open(request, avoid=others, strict=True) as stream,
                ):
                    async for _ in stream:
                        if stream.replica == replica:
                            self.token_received(replica)
            except (RejoinderError, TimeoutError):
                self._metrics.error("backend", "llm_probe")
        self._breaker.unanswered(replica, self._clock())
