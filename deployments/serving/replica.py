"""Parts that every stage replica has: an identity, a metrics port, a thread for its engine, and a health check.

Engines block. A replica's event loop must not block, because its health checks and queue probes run on it. So each
engine runs on the single thread of an `EngineThread`. The health check measures what a ping does not show: whether the
loop is late, and whether the engine is stuck in one job.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar, cast

import ray
from prometheus_client.registry import Collector
from ray import serve

from deployments.serving.autoscaling import ARRIVALS_PER_S, BEGAN, ENDED, LATE, SERVICE_S
from deployments.serving.load_exchange import WithLoad
from deployments.serving.metrics import MetricsPort, ReplicaMetrics
from deployments.serving.placements import ReplicaRoute
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.recent_load import RecentLoad
from rejoinder.core.resilience.stage_load import LoadMeter, Work
from rejoinder.core.settings.settings import StageSettings

Result = TypeVar("Result")

# A job that takes longer than this many seconds counts as hanging. The longest regular job, the transcription of 30 s
# of speech with full padding, takes 2 s on one core.
STUCK_S = 30.0
LAG_LIMIT_S = 5.0
# The autoscaling signals count the requests of the last RECENT_S seconds: enough requests to tell load from chance, and
# soon enough for load that multiplies within a minute.
RECENT_S = 10.0


class EngineThread:
    """The single thread on which an engine runs its jobs, in the order of the calls of `run`."""

    def __init__(self, name: str, nice: int = 0) -> None:
        """Create the thread.

        Args:
            name: Name of the thread, for debuggers.
            nice: Increment of the nice value of this thread only (works on Linux). A higher value is a lower priority.
        """
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_lower_priority, initargs=(nice,))
        self._started_at: float | None = None

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run a job and return its result.

        Cancelling removes a job that has not started. A running job finishes, and its result is dropped.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, job)

    def _timed(self, job: Callable[[], Result]) -> Result:
        self._started_at = time.monotonic()
        try:
            return job()
        finally:
            self._started_at = None

    @property
    def busy_s(self) -> float:
        """How long the current job has run, in seconds; 0 if none runs."""
        started_at = self._started_at  # read once: the engine's thread may set it to None meanwhile
        return 0.0 if started_at is None else time.monotonic() - started_at


def _lower_priority(nice: int) -> None:
    """Set the nice value of the calling thread to that of its process plus `nice`, at most 19."""
    if nice:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + nice))


@dataclass(frozen=True, slots=True)
class ReplicaDescription:
    """Description of one replica, for the route `/metrics/targets`.

    Attributes:
        stage: The stage's name, "host" for a session host.
        replica: Serve's id of the replica.
        pid: Process id of the replica.
        node: Ray's id of the replica's node.
        target: Metrics port that Prometheus scrapes, as "address:port".
        engine: The engine and its model, "" for a host.
        slots: Number of requests that the replica works on at once; 0 for a host, or if it is not known.
    """

    stage: str
    replica: str
    pid: int
    node: str
    target: str
    engine: str
    slots: int = 0


class ReplicaRequest:
    """Waiting time and outcome of one request inside a replica.

    Attributes:
        end: How the request ended.
        queue_s: How long the request waited for its service, in seconds; None until its service begins.
    """

    def __init__(self, load: RecentLoad, work: Work) -> None:
        self.end: Literal["done", "cancelled", "failed"] = "failed"
        self.queue_s: float | None = None
        self._load = load
        self._work = work

    def waited(self, seconds: float) -> None:
        """Record that the request's service began after it waited for `seconds`.

        The autoscaling signals include the request from this moment, not only after it has ended.
        """
        self.queue_s = self._work.queue_s = seconds
        self._load.began(seconds, time.monotonic())

    def produced(self, tokens: int = 0) -> None:
        """Record that output was made, for the language model this many tokens. Call it for each item of a stream."""
        if self._work.first_at is None:
            self._work.first_at = time.monotonic()
        self._work.tokens += tokens

    def used(self, seconds: float) -> None:
        """Record the slot time of the request in seconds, if it shared the slot with other requests (a batch)."""
        self._work.busy_s = seconds

    def answered(self) -> None:
        """Record that the answer is complete. If the caller cancels after this, the request counts as done."""
        self.end = "done"


def replica_id(stage: str) -> str:
    """Return Serve's id of the replica in this process, or "local-STAGE" if Ray does not run."""
    return str(serve.get_replica_context().replica_id.unique_id) if ray.is_initialized() else f"local-{stage}"


class Replica:
    """Identity, metrics and health check of one stage replica. It also works without Ray.

    Attributes:
        description: The replica's identity.
    """

    def __init__(
        self, stage: str, engine: str, settings: StageSettings, worker: EngineThread | None = None, *, slots: int = 1
    ) -> None:
        """Open the metrics port.

        Args:
            stage: The stage's name.
            engine: The engine and its model.
            settings: The stage's settings. Used are `inject_delay_ms`, a test delay before each request, and
                `autoscaling.queue_delay_ms`, the wait above which a request counts as late.
            worker: The engine's thread, None if the engine needs none.
            slots: Number of requests that the engine works on at once; 0 if it is not known.
        """
        in_cluster = ray.is_initialized()
        address = ray.util.get_node_ip_address() if in_cluster else "127.0.0.1"
        self._port = MetricsPort(address)
        self._metrics = ReplicaMetrics(self._port.registry, stage)
        self._settings = settings
        self._worker = worker
        self._load = RecentLoad(RECENT_S, settings.autoscaling.queue_delay_ms / 1000)
        replica = replica_id(stage)
        node = ray.get_runtime_context().get_node_id() if in_cluster else "local"
        self.description = ReplicaDescription(
            stage, replica=replica, pid=os.getpid(), node=node, target=self._port.target, engine=engine, slots=slots
        )
        self._meter = LoadMeter(replica, slots)

    def expose(self, collector: Collector) -> None:
        """Add an engine's own metrics to this replica's metrics port."""
        self._port.registry.register(collector)

    def signals(self) -> dict[str, float]:
        """Return the signals of `deployments.serving.autoscaling.StagePolicy` by name.

        They count the requests of the last RECENT_S seconds, so that sums over replicas describe the whole stage.
        """
        now = time.monotonic()
        counts = self._load.counts(now)
        return {
            ARRIVALS_PER_S: self._load.arrivals_per_s(now),
            BEGAN: float(counts.began),
            LATE: float(counts.late),
            ENDED: float(counts.ended),
            SERVICE_S: counts.service_s,
        }

    def with_load(self, answer: Result, route: ReplicaRoute | None) -> Result:
        """Return the answer, or the first item of a stream, with this replica's load if the caller is a session host.

        The declared type is that of the answer: only `handles.py` makes calls for a host, and it unwraps `WithLoad`.
        """
        if route is None or not route.host:
            return answer
        return cast(Result, WithLoad(answer, self._meter.report(time.monotonic(), route.host)))

    @asynccontextmanager
    async def request(
        self, route: ReplicaRoute | None = None, *, essential: bool = True
    ) -> AsyncIterator[ReplicaRequest]:
        """Count a request from its arrival to its end. A configured test delay (`inject_delay_ms`) comes first.

        Args:
            route: The route of the call, which names the host and its number of calls.
            essential: Whether a turn waits for the request.

        Yields:
            The request. The code that serves it calls `waited` when the service begins, and `produced` for its output.
        """
        arrived_at = time.monotonic()
        self._metrics.in_flight.inc()
        self._load.arrived(arrived_at)
        work = Work(arrived_at, essential)
        request = ReplicaRequest(self._load, work)
        if route is not None and route.host:
            self._meter.asked(route.host, route.live, arrived_at)
        self._meter.begin(work)
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
            now = time.monotonic()
            self._meter.end(work, now)
            self._metrics.in_flight.dec()
            if request.end == "done" or request.queue_s is not None:
                self._load.ended(max(0.0, now - arrived_at - (request.queue_s or 0.0)), now)
            self._metrics.ended(now - arrived_at, request.end, request.queue_s)

    async def check_health(self) -> None:
        """Raise BackendError if the event loop is late or the engine hangs. Serve then replaces the replica."""
        asked_at = time.monotonic()
        await asyncio.sleep(0)
        lag_s = time.monotonic() - asked_at
        if lag_s > LAG_LIMIT_S:
            raise BackendError(f"the event loop is {lag_s:.1f} s late.", stage=self.description.stage)
        if self._worker and self._worker.busy_s > STUCK_S:
            raise BackendError(f"one job has run for {self._worker.busy_s:.0f} s.", stage=self.description.stage)


class StageDeployment:
    """Base class of the stages: the methods that Serve and `/metrics/targets` call.

    A subclass sets `_replica` in its constructor.
    """

    _replica: Replica

    async def describe(self) -> dict[str, str | int]:
        """Return this replica's `ReplicaDescription` as a dict."""
        return asdict(self._replica.description)

    async def ping(self, payload: object = None, route: ReplicaRoute | None = None) -> str:
        """Return this replica's id: a sign of life, for which the engine is not needed.

        The arguments are those of every call of a host, and are not used here.
        """
        return self._replica.description.replica

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return this replica's signals for Serve's autoscaler by name, see `Replica.signals`."""
        return self._replica.signals()

    async def check_health(self) -> None:
        """Raise BackendError if this replica should be replaced."""
        await self._replica.check_health()
