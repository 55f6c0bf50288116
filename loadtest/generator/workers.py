"""The workers of a run: started, listened to, merged, and stopped.

Each worker is a process of its own on one core. They need the core when a frame is due and hardly otherwise, so where
the machine allows it they run at real-time priority: a system under test that takes every core is then measured,
instead of starving its measurement.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtest.generator import ray_workers as ray_crew
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.self_check import Fitness, evidence, stolen_and_total
from loadtest.results.histograms import MergedHistograms, histogram
from loadtest.results.result import VOICE_TO_VOICE, TimelineSlice
from rejoinder.core.errors import BackendError

REAL_TIME_PRIORITY = 1
MAX_MOMENTS = 240
MAX_LINE_BYTES = 4 * 1024 * 1024

Watch = Callable[["RunProgress"], None]


@dataclass(slots=True)
class _Slice:
    sessions: dict[int, int] = field(default_factory=dict)
    whole: HdrHistogram = field(default_factory=histogram)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class RunProgress:
    """All that is known so far; grows with the number of series, not with the run's length."""

    span_s: float
    start_at: float
    merged: MergedHistograms = field(default_factory=MergedHistograms)
    lateness: HdrHistogram = field(default_factory=histogram)
    lag: HdrHistogram = field(default_factory=histogram)
    live: dict[int, int] = field(default_factory=dict)
    shares: defaultdict[int, defaultdict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    traffic: dict[int, Counter[str]] = field(default_factory=dict)
    slices: defaultdict[int, _Slice] = field(default_factory=lambda: defaultdict(_Slice))
    finished: set[int] = field(default_factory=set)
    stolen: float = 0.0
    _before: dict[int, Counter[str]] = field(default_factory=dict)

    @property
    def slice_s(self) -> float:
        return max(1.0, math.ceil(self.span_s / MAX_MOMENTS))

    @property
    def elapsed_s(self) -> float:
        return time.time() - self.start_at

    def add(self, worker: int, line: dict[str, Any]) -> None:
        """One worker's report of one second."""
        fresh = self.merged.add(worker, line)
        self.live[worker] = line["live"]
        self.traffic[worker] = Counter(line["traffic"])
        if line["final"]:
            self.finished.add(worker)
        if line["measuring"]:
            late, lag = evidence(line)
            self.lateness.add(late)
            self.lag.add(lag)
            for name, share in {**line["shares"], "reports": 1}.items():
                self.shares[worker][name] += share
        piece = self.slices[min(MAX_MOMENTS - 1, int(max(0.0, line["at_s"]) // self.slice_s))]
        piece.sessions[worker] = line["live"]
        counts = Counter(line["counts"])
        piece.counts.update(counts - self._before.get(worker, Counter()))
        self._before[worker] = counts
        if VOICE_TO_VOICE in fresh:
            piece.whole.add(fresh[VOICE_TO_VOICE])

    def fitness(self) -> Fitness:
        """The generator's evidence so far."""

        def worst(name: str) -> float:
            return max((sums[name] / sums["reports"] for sums in self.shares.values()), default=0)

        traffic: Counter[str] = sum(self.traffic.values(), Counter())
        return Fitness(
            self.lateness,
            lag=self.lag,
            cpu=worst("cpu"),
            queued=worst("queued"),
            steal=self.stolen,
            missed=self.merged.counts["missed"],
            frames_scheduled=traffic["scheduled"],
            frames_sent=traffic["sent"],
        )

    def timeline(self) -> tuple[TimelineSlice, ...]:
        """The run in at most MAX_MOMENTS slices."""
        return tuple(
            TimelineSlice(
                at_s=round(index * self.slice_s, 3),
                sessions=sum(piece.sessions.values()),
                turns=piece.counts["turns"],
                failed=piece.counts["failed"] + piece.counts["unanswered"],
                p50_ms=_at(piece.whole, 50),
                p95_ms=_at(piece.whole, 95),
                underruns=piece.counts["underruns"],
                refused=piece.counts["refused"],
            )
            for index, piece in sorted(self.slices.items())
        )


def _at(taken: HdrHistogram, percentile: float) -> float | None:
    return round(taken.get_value_at_percentile(percentile) / 1000, 1) if taken.get_total_count() else None


async def run_workers(orders: list[WorkerAssignment], progress: RunProgress, watch: Watch) -> None:
    """Run one process an order until all are done; cancelling it stops them. Raises BackendError if one breaks."""
    stolen, total = stolen_and_total()
    try:
        async with asyncio.TaskGroup() as group:
            for number, order in enumerate(orders):
                group.create_task(_follow_worker(number, order, progress, watch))
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None  # the first one stopped the others
    after = stolen_and_total()
    progress.stolen = (after[0] - stolen) / max(1, after[1] - total)


async def _follow_worker(number: int, order: WorkerAssignment, progress: RunProgress, watch: Watch) -> None:
    address = order.scenario.ray_address
    # Closed here and not by the garbage collector: whatever happens, the process is gone when this returns.
    async with aclosing(ray_crew.report_lines(order, address) if address else _local_report_lines(order)) as lines:
        async for line in lines:
            progress.add(number, line)
            watch(progress)
    if number not in progress.finished:
        raise BackendError(f"generator process {number} ended early.", "Its output above says why.", stage="generator")


async def _local_report_lines(order: WorkerAssignment) -> AsyncGenerator[dict[str, Any], None]:
    """What a worker process of this machine reports; leaving stops it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtest.generator.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    set_real_time_priority(process.pid)
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018  # both are pipes
    try:
        with suppress(ConnectionError):  # it died; that its lines end says so below
            process.stdin.write(json.dumps(order.document()).encode() + b"\n")
            await process.stdin.drain()
        async for line in process.stdout:
            yield json.loads(line)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # one that stands still would not hear anything gentler
            await process.wait()


def set_real_time_priority(pid: int) -> bool:
    """Real-time priority for a process; False where the machine does not allow it."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    except (OSError, AttributeError):
        return False
    return True
