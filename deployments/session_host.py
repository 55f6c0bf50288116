"""The ingress deployment: a replica accepts WebSocket connections and runs their conversations on one event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.host import Host, synthesize_held_clips
from actors.stages.ports import Stages
from actors.stages.services import Services
from actors.stages.stage_watch import Probe, StageWatch
from actors.survival.session_keeper import SessionKeeper
from deployments.engines.speech_in.noise import suppressors
from deployments.local.in_process import InlineVad
from deployments.serving.access import open_access
from deployments.serving.autoscaling import ARRIVALS_PER_S, ENDED, LOOP_LAG_S, SERVICE_S, SESSIONS
from deployments.serving.compat import broadcast, serve_address
from deployments.serving.handles import (
    AnswerCacheHandle,
    LlmHandle,
    StageProbe,
    SttHandle,
    TtsHandle,
    TurnDetectorHandle,
    VadHandle,
)
from deployments.serving.http_routes import http_app
from deployments.serving.journal import LogJournal
from deployments.serving.load_exchange import LoadExchange, open_admission
from deployments.serving.metrics import AdmissionCollector, ConversationMetrics, MetricsPort, WantedReplicas
from deployments.serving.regions import RegionDirectory, places_of
from deployments.serving.replica import ReplicaDescription
from deployments.serving.ttl_cache import TtlCache
from deployments.survival.keeping import open_keeper, open_store
from deployments.tool_servers.opening import open_tool_servers
from deployments.tracing import open_tracer
from deployments.transports import call_protocol
from deployments.vad import load_silero
from rejoinder.core.access.stored_bytes import StoredBytes
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.held_clips import HeldClips
from rejoinder.core.resilience.redispatch import handshake_retries
from rejoinder.core.resilience.stage_admission import StageAdmission
from rejoinder.core.resilience.stage_load import StageReport
from rejoinder.core.settings.settings import Settings

# Timeout in seconds for a replica to describe itself. A slower replica is left out of the Prometheus targets, because
# it could not be scraped either.
DESCRIBE_S = 2.0
# Serve counts each call to a replica as load of the replica. So the list of targets is reused for this many seconds,
# however often it is requested.
TARGETS_S = 1.0


class SessionHost:
    """Ray Serve deployment that accepts calls and runs their conversations.

    Serve calls `check_health`, `record_autoscaling_stats` and `__serve_build_asgi_app__`.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits an asynchronous constructor
        self, settings: Settings, handles: dict[str, DeploymentHandle]
    ) -> None:
        """Connect to the stages and start the host.

        Args:
            settings: The settings of the application.
            handles: The deployment handles by stage name. Without the handle "vad", voice activity detection runs in
                this process. "answer_cache" and "llm_backup" are optional.
        """
        stored = StoredBytes(settings.limits.host_bytes)
        message_rate = call_protocol.install(settings.limits, stored)
        self._settings, self._handles = settings, handles
        self.access = open_access(settings, bind=(serve_address() or ("", 0))[0])
        self._port = MetricsPort(ray.util.get_node_ip_address(), settings.host.metrics_port)
        metrics = ConversationMetrics(self._port.registry)
        self._targets = TtlCache(self._find_targets, TARGETS_S)
        self._all_places = TtlCache(self._sum_places, TARGETS_S)
        self._regions = RegionDirectory(settings.regions, self.places)
        described = {name: await handle.describe.remote() for name, handle in handles.items()}
        slots = {name: int(replica["slots"]) for name, replica in described.items()}
        admission = open_admission(settings, slots, phase=random.random())
        self._port.registry.register(AdmissionCollector(admission))
        self._port.registry.register(WantedReplicas(partial(_wanted_replicas, _stage_names(handles))))
        watch = StageWatch(self._probes(), settings.host.stage_lost_after_s, metrics, time.monotonic)
        exchange = _exchange(admission, watch, time.monotonic)
        stages = self._stages({name: str(replica["engine"]) for name, replica in described.items()}, exchange)
        phrases = await _held_clips(stages, settings, slots["tts"])
        self.host = Host(
            Services.over(
                stages,
                settings=settings,
                phrases=phrases,
                metrics=metrics,
                journal=LogJournal(),
                clock=time.monotonic,
                stage_admission=admission,
                stored=stored,
                message_rate=message_rate,
                tool_servers=open_tool_servers(settings.tools),
                tracer=open_tracer(os.environ, time.monotonic),
            ),
            retries=handshake_retries(os.environ),
            watch=watch,
            keeper=self._open_keeper(metrics),
            free_elsewhere=self._free_elsewhere,
        )
        self._running = asyncio.create_task(self.host.run())
        # The first question to the other hosts connects to Serve's controller, which blocks the event loop for as long
        # as Ray's GCS is away. So it is asked now.
        self._connecting = asyncio.create_task(self.places())
        # The objects created so far stay until the process ends. Freeze them, because searching them for garbage would
        # pause every conversation.
        gc.collect()
        gc.freeze()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the ASGI application. Serve calls this after the constructor."""
        return http_app(self)

    def _open_keeper(self, metrics: ConversationMetrics) -> SessionKeeper | None:
        """Return the keeper of the conversations; None if the settings have no journal."""
        context = serve.get_replica_context()
        store = open_store(self._settings.journal, context.app_name, context.replica_id.unique_id, metrics)
        signing_key = self.access.settings.signing_key
        return open_keeper(self._settings, store, metrics, time.monotonic, signing_key=signing_key)

    def _stages(self, engines: dict[str, str], exchange: LoadExchange) -> Stages:
        """Return the ports to the stages. `engines` names their engines, `exchange` gets the load of their replicas."""
        handles = self._handles
        inline = load_silero(self._settings) if "vad" not in handles else None
        if inline:
            engines["vad"] = inline.name
        return Stages(
            vad=InlineVad(inline) if inline else VadHandle(handles["vad"], exchange),
            turn_detector=TurnDetectorHandle(handles["turn_detector"], exchange),
            stt=SttHandle(handles["stt"], exchange),
            llm=LlmHandle(handles["llm"], exchange),
            llm_backup=LlmHandle(handles["llm_backup"]) if "llm_backup" in handles else None,
            tts=TtsHandle(handles["tts"], exchange),
            engines=engines,
            answers=AnswerCacheHandle(handles["answer_cache"]) if "answer_cache" in handles else None,
            suppressor=suppressors(self._settings.noise),
        )

    def _probes(self) -> dict[str, Probe]:
        """Return the probes of the stages without which no turn is answered, by stage.

        Without the turn detector silence ends a turn, and without the answer cache the language model answers.
        """
        handles = self._handles
        groups = {"vad": ["vad"], "stt": ["stt"], "llm": ["llm", "llm_backup"], "tts": ["tts"]}
        return {
            stage: StageProbe(stage, *(handles[name] for name in names if name in handles))
            for stage, names in groups.items()
            if stage in handles
        }

    async def targets(self) -> list[dict[str, Any]]:
        """Return every replica that answers, as Prometheus HTTP service discovery targets.

        Each entry has the address of the replica's metrics port and its labels. The list is at most TARGETS_S old.
        """
        return await self._targets()

    async def places(self) -> dict[str, int]:
        """Return the places of all hosts together (see `places_of`), at most TARGETS_S old."""
        return await self._all_places()

    async def regions(self) -> dict[str, Any]:
        """Return the systems of all regions, as `RegionDirectory.listing` does."""
        return await self._regions.listing()

    async def own_places(self) -> dict[str, int]:
        """Return the number of calls of this host, and their limit. A host that has lost a stage has no free place."""
        limit = self.host.live if self.host.lost_stages else self._settings.host.max_sessions
        return {"sessions": self.host.live, "max_sessions": limit}

    async def _free_elsewhere(self) -> int:
        """Return the number of free places of the hosts that Serve sends calls to: not of one that is drained."""
        return (await self.places())["free"]

    async def _sum_places(self) -> dict[str, int]:
        return places_of(await _answers(_hosts(), "own_places"))

    async def _find_targets(self) -> list[dict[str, Any]]:
        found = await asyncio.gather(*(_answers(handle, "describe") for handle in (_hosts(), *self._handles.values())))
        region = {"region": self._settings.regions.name} if self._settings.regions.name else {}
        return [
            {
                "targets": [replica["target"]],
                "labels": {key: str(replica[key]) for key in ("stage", "replica", "pid", "node")} | region,
            }
            for replicas in found
            for replica in replicas
        ]

    async def describe(self) -> dict[str, Any]:
        """Return this replica's `ReplicaDescription` as a dict."""
        replica = serve.get_replica_context().replica_id.unique_id
        node = ray.get_runtime_context().get_node_id()
        return asdict(
            ReplicaDescription("host", replica=replica, pid=os.getpid(), node=node, target=self._port.target, engine="")
        )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of `deployments.serving.autoscaling.HostPolicy` by name.

        They are the number of live sessions, the new calls per second, the number and the length of ended calls, and
        the lag of the event loop in seconds.
        """
        ended, call_s = self.host.ended_calls
        return {
            SESSIONS: float(self.host.live),
            ARRIVALS_PER_S: self.host.arrivals_per_s,
            ENDED: float(ended),
            SERVICE_S: call_s,
            LOOP_LAG_S: self.host.loop_lag_s,
        }

    async def check_health(self) -> None:
        """Raise BackendError if the event loop lags too much to carry audio, or the host's task has ended.

        Serve then replaces the replica.
        """
        if self._running.done():
            raise BackendError(f"the host's task ended: {self._running!r}", stage="host")
        if self.host.loop_lag_s * 1000 > self._settings.host.max_loop_lag_ms:
            raise BackendError(f"the event loop is {self.host.loop_lag_s:.1f} s late.", stage="host")


async def _held_clips(stages: Stages, settings: Settings, slots: int) -> HeldClips:
    language, lead_ins = settings.tts.spoken_language, settings.tools.spoken
    return await synthesize_held_clips(stages, settings.conversation, language=language, lead_ins=lead_ins, slots=slots)


def _exchange(admission: StageAdmission, watch: StageWatch, clock: Callable[[], float]) -> LoadExchange:
    """Return the exchange of load with the stages, whose reports also show that the stages are there."""

    def note(stage: str, report: StageReport) -> None:
        admission.note(stage, report, clock())
        watch.answered(stage)

    return LoadExchange(serve.get_replica_context().replica_id.unique_id, lambda: admission.live, note)


def _stage_names(handles: Mapping[str, DeploymentHandle]) -> dict[tuple[str, str], str]:
    """Return the stage of each deployment, by the names of its application and of the deployment."""
    context = serve.get_replica_context()
    stages = {(context.app_name, handle.deployment_name): stage for stage, handle in handles.items()}
    return stages | {(context.app_name, context.deployment): "host"}


def _wanted_replicas(stages: Mapping[tuple[str, str], str]) -> dict[str, int]:
    """Return the number of replicas by stage that run or start, as Serve's controller says. It may block.

    `stages` is the result of `_stage_names`.

    Raises:
        BackendError: The controller does not answer.
    """
    try:
        applications = serve.status().applications
    except (RayError, RayServeException) as fault:
        raise BackendError(f"Ray Serve's controller does not answer: {fault}", stage="host") from None
    return {
        stages[application, name]: sum(
            number for state, number in deployment.replica_states.items() if state not in ("STOPPING", "STOPPED")
        )
        for application, status in applications.items()
        for name, deployment in status.deployments.items()
        if (application, name) in stages
    }


def _hosts() -> DeploymentHandle:
    """Return the handle of the deployment of this replica: all session hosts."""
    context = serve.get_replica_context()
    return serve.get_deployment_handle(context.deployment, context.app_name)


async def _answers(handle: DeploymentHandle, method: str) -> list[dict[str, Any]]:
    """Return what a method returns on each replica of a deployment that answers within DESCRIBE_S.

    Empty if the deployment has no replica or Serve does not answer.
    """
    try:
        answers = await broadcast(handle, method, DESCRIBE_S)
    except (TimeoutError, DeploymentUnavailableError):
        return []
    return [answer for answer in answers if isinstance(answer, dict)]
