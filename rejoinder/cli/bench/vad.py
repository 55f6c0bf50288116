"""`rejoinder bench vad`: voice activity detection inside the host, compared with a separate deployment."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
from rich.table import Table

from actors.stages.ports import VadBatch, VadPort
from cluster.launch import cluster
from loadtest.results.spread import spread
from rejoinder.core.settings.settings import Settings, VadSettings

BATCHES = (1, 4, 16, 64)
"""Numbers of windows in one tick (one batch) that are measured."""
ROUNDS = 3
WARM_UP = 50


def measure(ticks: int) -> list[dict[str, Any]]:
    """Start a local Ray cluster and measure both placements: inside the host, and in a separate deployment.

    Args:
        ticks: Number of measured ticks for each batch size and placement. A tick is one batch.

    Returns:
        One dict for each batch size and placement, with the keys windows (the batch size), placement, ms, p95_ms and
        cpu_ms (see `VadProbe.measure`).
    """
    settings = Settings(vad=VadSettings(placement="deployment"))
    with cluster("local"):
        return asyncio.run(_run(settings, ticks))


async def _run(settings: Settings, ticks: int) -> list[dict[str, Any]]:
    """Deploy `VadProbe` and the `Vad` deployment, and return the probe's rows.

    This is a coroutine because in Serve's same-loop mode a handle needs a running event loop.
    """
    from ray import serve

    from deployments.app import stage_deployment
    from deployments.vad import Vad

    handle = stage_deployment(Vad, settings.vad).bind(settings)
    probe = serve.deployment(VadProbe, ray_actor_options={"num_cpus": 0}).bind(settings, handle)
    serve.start(proxy_location="Disabled")
    running = serve.run(probe, name="bench", route_prefix=None)
    return cast(list[dict[str, Any]], await running.measure.remote(ticks))


class VadProbe:
    """Serve deployment that measures voice activity detection inside its replica and in the `Vad` deployment."""

    def __init__(self, settings: Settings, handle: Any) -> None:
        """Load the model for the placement "inline". `handle` is the Serve handle of the `Vad` deployment."""
        from deployments.local.in_process import InlineVad
        from deployments.serving.handles import VadHandle
        from deployments.vad import load_silero

        self._placements: dict[str, VadPort] = {
            "inline": InlineVad(load_silero(settings)),
            "deployment": VadHandle(handle),
        }

    async def measure(self, ticks: int) -> list[dict[str, Any]]:
        """Measure `ticks` ticks (batches) of each batch size and placement.

        The placements "inline" and "deployment" alternate in rounds, so that disturbances of the machine affect both.

        Returns:
            One dict for each batch size and placement. Its keys are windows (the batch size), placement, ms and p95_ms
            (median and 95th percentile of the wait for a result), and cpu_ms (mean CPU time of the host process).
        """
        rows = []
        for windows in BATCHES:
            samples: dict[str, list[tuple[float, float]]] = {name: [] for name in self._placements}
            for _ in range(ROUNDS):
                for name, vad in self._placements.items():
                    samples[name] += await _ticks(vad.step, windows, ticks // ROUNDS)
            rows += [row(windows, name, times) for name, times in samples.items()]
        return rows


async def _ticks(step: Callable[[Any], Awaitable[Any]], windows: int, ticks: int) -> list[tuple[float, float]]:
    """Run batches of `windows` windows one after another. Return the wait and the CPU time of each, in seconds.

    The CPU time is that of this process alone. Batches for warm-up come first and are not measured.

    Args:
        step: Processes one batch.
        windows: Number of windows in a batch.
        ticks: Number of measured batches.
    """
    audio = np.random.default_rng(0).normal(0, 0.1, (windows, 512)).astype(np.float32).tobytes()
    batch = VadBatch(windows, audio, bytes(windows * 320 * 4))
    for _ in range(min(WARM_UP, ticks)):
        await step(batch)
    times = []
    for _ in range(ticks):
        started_at, cpu = time.perf_counter(), time.process_time()
        await step(batch)
        times.append((time.perf_counter() - started_at, time.process_time() - cpu))
        await asyncio.sleep(0)
    return times


def row(windows: int, placement: str, times: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the row of one batch size and placement, as `--json` writes it.

    Its keys are windows, placement, ms and p95_ms (median and 95th percentile of the wait for the result), and cpu_ms
    (mean CPU time of the host process). Times are in milliseconds per tick.

    Args:
        windows: Number of windows in a tick.
        placement: "inline" or "deployment".
        times: Wait and CPU time of each tick, in seconds.
    """
    waits = spread([wait * 1000 for wait, _ in times])
    return {
        "windows": windows,
        "placement": placement,
        "ms": round(waits.median_ms, 3),
        "p95_ms": round(waits.p95_ms, 3),
        "cpu_ms": round(statistics.fmean(cpu_s for _, cpu_s in times) * 1000, 3),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Return a table with one line for each row of `measure`.

    A line has the number of windows, the placement, the median and the p95 of the wait, and the host's CPU time, both
    in ms per tick. The last column is that CPU time divided by the CPU time of the same batch size with the
    placement "inline".
    """
    shown = Table("windows a tick", "placement", "ms", "p95 ms", "host cpu ms", "cpu against inline")
    inline = {row["windows"]: row["cpu_ms"] for row in rows if row["placement"] == "inline"}
    for row in rows:
        ratio = row["cpu_ms"] / max(inline[row["windows"]], 1e-6)
        figures = (f"{row[key]:.2f}" for key in ("ms", "p95_ms", "cpu_ms"))
        shown.add_row(str(row["windows"]), row["placement"], *figures, f"{ratio:.1f}x")
    return shown
