"""Health of the language model's replicas. A replica that sends no tokens is taken out of use until it answers a probe.

`rejoinder.core.resilience.circuit_breaker` decides. This module watches the waiting streams, asks suspected replicas
for their own reports and sends the probes.
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

# Interval of the checks, in seconds. A silent replica is noticed at most this much late.
CHECK_EVERY_S = 0.05
PROBE = (ChatMessage("user", "Hello"),)


class WaitingStream(Protocol):
    """A language model stream that waits for its next token.

    Attributes:
        waiting_since: Monotonic time of the stream's last token; before the first token, of its start.
    """

    waiting_since: float

    @property
    def replica(self) -> str:
        """Id of the replica that serves the stream; "" while no replica is chosen."""
        ...

    @property
    def port(self) -> LlmPort:
        """The port through which the replica is asked."""
        ...

    def stalled(self) -> None:
        """React to a token that is late, within the hedging budget. Must not block."""
        ...

    def abandon(self) -> None:
        """Stop using the stream's replica, because it has stopped sending tokens. Must not block."""
        ...


class ReplicaHealth:
    """Circuit breaker of the language model's replicas, shared by all conversations of a host. Keep `run` running."""

    def __init__(
        self,
        settings: BreakerSettings,
        policy: HedgePolicy,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        min_silence_s: float = 0.0,
    ) -> None:
        """Create a breaker with all replicas in use.

        Args:
            settings: When a replica is taken out of use, and when it is probed.
            policy: Knows the usual time to first token.
            metrics: Counts transitions and failed probes.
            clock: Returns the monotonic time, in seconds.
            min_silence_s: Shortest time without a token, in seconds, after which a replica counts as silent. It is long
                for an engine that calls a remote server: the pace of the server says nothing about the replica.
        """
        self._min_silence_s = min_silence_s
        self._settings = settings
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._breaker = CircuitBreaker(settings)
        self._waiting: set[WaitingStream] = set()
        self._ports: dict[str, LlmPort] = {}
        self._wake = asyncio.Event()

    @property
    def avoid(self) -> frozenset[str]:
        """Ids of the replicas that are out of use."""
        return self._breaker.avoid

    def add(self, stream: WaitingStream) -> None:
        """Watch a stream that was just opened."""
        self._waiting.add(stream)
        self._wake.set()

    def remove(self, stream: WaitingStream) -> None:
        """Stop watching a stream."""
        self._waiting.discard(stream)

    def token_received(self, replica: str) -> None:
        """Record that `replica` sent a token. A replica that was out of use is used again."""
        if self._breaker.heard(replica, self._clock()):
            self._metrics.breaker("closed")

    def failed(self, replica: str, port: LlmPort) -> None:
        """Record a failed request to `replica`, which is asked through `port`; "" (unknown) is ignored."""
        if replica:
            self._ports[replica] = port
        if replica and self._breaker.failed(replica, self._clock()):
            self._opened()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Check the replicas regularly, and probe those that are out of use, until cancelled.

        It sleeps while no stream waits and no replica is out of use. Probes run as tasks of `group`.
        """
        while True:
            self._wake.clear()
            if not self._waiting and not self.avoid:
                await self._wake.wait()
            self._check(group)
            for replica in self._breaker.due(self._clock()):
                group.create_task(self._probe(replica))
            await asyncio.sleep(CHECK_EVERY_S)

    def _check(self, group: asyncio.TaskGroup) -> None:
        waiting_since_by_replica: dict[str, float] = {}
        for stream in self._waiting:
            if stream.replica:
                since = waiting_since_by_replica.get(stream.replica, stream.waiting_since)
                waiting_since_by_replica[stream.replica] = min(since, stream.waiting_since)
        now = self._clock()
        usual_s = self._settings.silence_factor * self._policy.usual_s(now)
        idle_timeout_s = max(self._settings.silence_ms / 1000, usual_s, self._min_silence_s)
        for replica in self._breaker.suspects(waiting_since_by_replica, idle_timeout_s, now):
            streams = self._streams(replica)
            self._ports[replica] = streams[0].port
            for stream in streams:
                if now - stream.waiting_since > idle_timeout_s:
                    stream.stalled()
            group.create_task(self._ask(replica, idle_timeout_s))

    def _streams(self, replica: str) -> list[WaitingStream]:
        return [stream for stream in self._waiting if stream.replica == replica]

    async def _ask(self, replica: str, idle_timeout_s: float) -> None:
        """Ask a replica for its own report, and abandon its streams if it proves to be silent."""
        report = None
        with contained("llm", self._metrics):
            try:
                async with asyncio.timeout(self._settings.report_timeout_ms / 1000):
                    report = await self._ports[replica].report(replica, idle_timeout_s)
            except (RejoinderError, TimeoutError):
                self._metrics.error("backend", "llm_report")
        if self._breaker.reported(replica, report, idle_timeout_s, self._clock()):
            self._opened()
            for stream in self._streams(replica):
                stream.abandon()

    def _opened(self) -> None:
        self._metrics.breaker("opened")
        self._wake.set()

    async def _probe(self, replica: str) -> None:
        """Send this replica, and no other, a request for one token. Cancelling stops the engine."""
        request = LlmRequest(PROBE, max_tokens=1)
        with contained("llm", self._metrics):
            try:
                async with (
                    asyncio.timeout(self._settings.silence_ms / 1000),
                    self._ports[replica].open(request, only=replica) as stream,
                ):
                    async for _ in stream:
                        if stream.replica == replica:
                            self.token_received(replica)
            except (RejoinderError, TimeoutError):
                self._metrics.error("backend", "llm_probe")
        self._breaker.unanswered(replica, self._clock())
        for gone in self._ports.keys() - self._breaker.known:
            del self._ports[gone]
