"""CPU time of Ray Serve's controller, measured with stub replicas, by health-check period and autoscaling interval.

The stub replicas answer health checks and report autoscaling signals as the stages do, but have no engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.serving.autoscaling import ARRIVALS_PER_S, BEGAN, ENDED, LATE, SERVICE_S, StagePolicy
from deployments.serving.compat import broadcast, start_local_ray

SETTLE_S = 10.0
MEASURE_S = 20.0
CONTROLLER = "ServeController"


class StubStage:
    """A replica without an engine."""

    def check_health(self) -> None:
        """Do nothing: the replica is healthy."""

    def describe(self) -> dict[str, str]:
        """Return a description of the size of a real one."""
        return {"stage": "stub", "replica": "r" * 8, "node": "n" * 56, "target": "127.0.0.1:9000", "engine": "stub"}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of a stage."""
        return {ARRIVALS_PER_S: 1.0, BEGAN: 10.0, LATE: 0.0, ENDED: 10.0, SERVICE_S: 4.0}


@dataclass(frozen=True, slots=True)
class ControllerCase:
    """Settings of a measurement.

    Attributes:
        replicas: Number of stub replicas.
        health_check_period_s: Seconds between the health checks of a replica.
        metrics_interval_s: Seconds between the autoscaling signals of a replica; None without autoscaling.
    """

    replicas: int
    health_check_period_s: float
    metrics_interval_s: float | None = None


def measure(case: ControllerCase, folder: Path) -> tuple[float, float]:
    """Deploy the stub replicas. Return the controller's CPU share of a core, and the seconds of one broadcast.

    Args:
        case: What to deploy.
        folder: The temporary directory of the Ray head.
    """
    options: dict[str, object] = {"num_replicas": case.replicas}
    if case.metrics_interval_s:
        policy = AutoscalingPolicy(policy_function=StagePolicy, policy_kwargs={"target": 4, "queue_limit_s": 0.05})
        scaling = AutoscalingConfig(
            min_replicas=case.replicas,
            max_replicas=case.replicas + 1,
            metrics_interval_s=case.metrics_interval_s,
            look_back_period_s=4 * case.metrics_interval_s,
            policy=policy,
        )
        options = {"autoscaling_config": scaling}
    stub = serve.deployment(
        StubStage,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=case.health_check_period_s,
        **options,
    )
    handle = serve.run(stub.bind(), name="stub", route_prefix=None)
    try:
        time.sleep(SETTLE_S)
        controller = _controller(folder)
        before, began = controller.cpu_times(), time.monotonic()
        time.sleep(MEASURE_S)
        after, took_s = controller.cpu_times(), time.monotonic() - began
        share = (after.user + after.system - before.user - before.system) / took_s
        asked = time.monotonic()
        answers = asyncio.run(_describe(handle))
        broadcast_s = time.monotonic() - asked
        if len(answers) < case.replicas:
            raise RuntimeError(f"{case.replicas - len(answers)} of {case.replicas} stub replicas did not answer")
        return share, broadcast_s
    finally:
        serve.delete("stub")


def _controller(folder: Path) -> psutil.Process:
    """Return Serve's controller of the Ray head with this temporary directory. Other heads may run on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            if (
                CONTROLLER in " ".join(process.info["cmdline"] or ())
                and parent
                and str(folder) in str(parent.cmdline())
            ):
                return process
    raise RuntimeError("Serve's controller was not found")


async def _describe(handle: serve.handle.DeploymentHandle) -> list[object]:
    return await broadcast(handle, "describe", 30.0)


def report(replicas: int = 40) -> Iterator[str]:
    """Yield the lines of the table for this many replicas and for half of them."""
    yield "| replicas | health_check_period_s | metrics_interval_s | controller, share of a core | broadcast s |"
    yield "|---|---|---|---|---|"
    folder = Path(tempfile.mkdtemp(prefix="rj"))
    start_local_ray(folder, num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    try:
        half = replicas // 2
        for case in (
            ControllerCase(half, 1.0),
            ControllerCase(replicas, 1.0),
            ControllerCase(replicas, 10.0),
            ControllerCase(replicas, 10.0, 2.0),
            ControllerCase(replicas, 10.0, 10.0),
        ):
            share, broadcast_s = measure(case, folder)
            interval = "off" if case.metrics_interval_s is None else f"{case.metrics_interval_s:g}"
            yield (
                f"| {case.replicas} | {case.health_check_period_s:g} | {interval} | {share:.1%} | {broadcast_s:.2f} |"
            )
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
