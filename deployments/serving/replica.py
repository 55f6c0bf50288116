"""What every stage replica has: an identity, a metrics port, a worker thread for its engine, and a health check.

Engines block; a replica's event loop must not, or its health checks and queue probes would stop with it. So each
engine runs on the one thread of a `EngineThread`, and the health check asks two questions that a ping does not: is
the loop
late, and is the engine stuck in one job.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

import ray
from prometheus_client.registry import Collector
from ray import serve

from deployments.serving.autoscaling import QUEUE_S
from deployments.serving.metrics import MetricsPort, ReplicaMetrics
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import StageSettings

Result = TypeVar("Result")

# A job this long has hung: the longest honest one is 30 s of speech with full padding, about 2 s on one core.
STUCK_S = 30.0
LAG_LIMIT_S = 5.0
# The waits that say whether a stage is too small now.
RECENT_S = 5.0
RECENT_WAITS = 1000


class EngineThread:
    """The one thread on which an engine runs; jobs wait their turn. `nice`: of that thread alone (Linux)."""

    def __init__(self, name: str, nice: int = 0) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_yield_to_others, initargs=(nice,))
        self._since: float | None = None

    async def run(self, job: Callable[[], Result]) -> Result:
        """Cancelling drops a job that has not begun; one that runs goes on, and its result is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, job)

    def _timed(self, job: Callable[[], Result]) -> Result:
        self._since = time.monotonic()
        try:
            return job()
        finally:
            self._since = None

    @property
    def busy_s(self) -> float:
        """How long the current job runs already."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


def _yield_to_others(nice: int) -> None:
    """Lower this thread's priority by `nice`, against the process it is in."""
    if nice:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + nice))


@dataclass(frozen=True, slots=True)
class ReplicaDescription:
    """One replica, for `/metrics/targets` and for the operator."""

    stage: str
    replica: str
    pid: int
    node: str
    target: str
    engine: str


class ReplicaRequest:
    """One request inside a replica, and how it ended; `queue_s` once its service has begun."""

    def __init__(self, waits: deque[tuple[float, float]]) -> None:
        self.end: Literal["done", "cancelled", "failed"] = "failed"
        self.queue_s: float | None = None
        self._waits = waits

    def waited(self, seconds: float) -> None:
        """Its service began, after so long a wait: known now to whoever adds replicas, not when the stream is over."""
        self.queue_s = seconds
        self._waits.append((time.monotonic(), seconds))

    def answered(self) -> None:
        """All of the answer is on its way; a caller who hangs up now has cancelled nothing."""
        self.end = "done"


def replica_id(stage: str) -> str:
    """Serve's id of the replica that this process is; without Ray, a plain name."""
    return str(serve.get_replica_context().replica_id.unique_id) if ray.is_initialized() else f"local-{stage}"


class Replica:
    """Identity, metrics and health of one replica; works without Ray too (then its id is a plain name)."""

    def __init__(self, stage: str, engine: str, settings: StageSettings, worker: EngineThread | None = None) -> None:
        inside = ray.is_initialized()
        address = ray.util.get_node_ip_address() if inside else "127.0.0.1"
        self._port = MetricsPort(address)
        self._metrics = ReplicaMetrics(self._port.registry, stage)
        self._settings = settings
        self._worker = worker
        self._waits: deque[tuple[float, float]] = deque(maxlen=RECENT_WAITS)
        replica = replica_id(stage)
        node = ray.get_runtime_context().get_node_id() if inside else "local"
        self.description = ReplicaDescription(
            stage, replica=replica, pid=os.getpid(), node=node, target=self._port.target, engine=engine
        )

    def expose(self, collector: Collector) -> None:
        """Serve an engine's own metrics on this replica's port too."""
        self._port.registry.register(collector)

    def signals(self) -> dict[str, float]:
        """What `deployments.serving.autoscaling` decides by: the wait that nine of ten recent requests stayed below."""
        horizon = time.monotonic() - RECENT_S
        while self._waits and self._waits[0][0] < horizon:
            self._waits.popleft()
        waits = sorted(wait_s for _, wait_s in self._waits)
        return {QUEUE_S: waits[int(0.9 * (len(waits) - 1))] if waits else 0.0}

    @asynccontextmanager
    async def request(self) -> AsyncIterator[ReplicaRequest]:
        """Count a request, and how it ended; waits the injected delay first."""
        began = time.monotonic()
        self._metrics.in_flight.inc()
        request = ReplicaRequest(self._waits)
        try:
            if self._settings.inject_delay_ms:
                await asyncio.sleep(self._settings.inject_delay_ms / 1000)
            yield request
            request.answered()
        except (asyncio.CancelledError, GeneratorExit):
            if request.end != "done":
                request.end = "cancelled"
            raise
        finally:
            self._metrics.in_flight.dec()
            self._metrics.ended(time.monotonic() - began, request.end, request.queue_s)

    async def check_health(self) -> None:
        """Raise if the loop is late or the engine hangs; Serve then replaces the replica."""
        asked = time.monotonic()
        await asyncio.sleep(0)
        lag_s = time.monotonic() - asked
        if lag_s > LAG_LIMIT_S:
            raise BackendError(f"the event loop is {lag_s:.1f} s late.", stage=self.description.stage)
        if self._worker and self._worker.busy_s > STUCK_S:
            raise BackendError(f"the engine hangs for {self._worker.busy_s:.0f} s.", stage=self.description.stage)


class StageDeployment:
    """What Serve and the operator ask of every stage; `_replica` is set by the stage's constructor."""

    _replica: Replica

    async def describe(self) -> dict[str, str | int]:
        """This replica, for `/metrics/targets`."""
        return asdict(self._replica.description)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """This replica's signals, for Serve's autoscaler."""
        return self._replica.signals()

    async def check_health(self) -> None:
        """Raise if this replica should be replaced."""
        await self._replica.check_health()
