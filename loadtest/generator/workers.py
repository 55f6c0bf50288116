"""Start the worker processes of a run, merge their reports, and stop the processes.

A worker needs a core for short moments, when frames are due. If the machine allows it, workers run at real-time
priority. They then send their frames in time even if the system under test uses every core.
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

from loadtest.generator import ray_workers
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.self_check import Fitness, decode_lateness_and_lag, stolen_and_total
from loadtest.results.histograms import MergedHistograms, histogram
from loadtest.results.result import VOICE_TO_VOICE, TimelineSlice
from rejoinder.core.errors import BackendError

REAL_TIME_PRIORITY = 1
MAX_SLICES = 240
"""Largest number of slices in the timeline of a run."""

MAX_LINE_BYTES = 4 * 1024 * 1024

ProgressCallback = Callable[["RunProgress"], None]


@dataclass(slots=True)
class _Slice:
    """Data of one slice of the timeline.

    Attributes:
        sessions: Number of open calls, by worker.
        voice_to_voice: Voice-to-voice latencies in microseconds.
        counts: Number of events in the slice, by name of the event.
    """

    sessions: dict[int, int] = field(default_factory=dict)
    voice_to_voice: HdrHistogram = field(default_factory=histogram)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class RunProgress:
    """Merged reports of all workers so far. Its size does not depend on the length of the run.

    Attributes:
        span_s: Expected length of the run including the drain, in seconds.
        start_at: Start of the run as Unix time.
        merged: Counts, latencies and slowest turns of all workers.
        lateness: Delays of the sent frames after their deadlines, in microseconds.
        lag: Event loop lag of all workers in microseconds.
        live: Number of open calls, by worker.
        shares: For each worker, over its reports in the measured time: the sums of its CPU share and of its run-queue
            share, and the number of these reports.
        traffic: For each worker: numbers of audio frames due and sent, and of bytes sent and received, since the start.
        slices: Slices of the timeline, by index. Each is `slice_s` seconds long.
        finished: The workers that have sent their final report, each as its number from 0.
        stolen: CPU steal time of this machine as a share of all CPU time. Set at the end of the run.
    """

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
    _previous_counts: dict[int, Counter[str]] = field(default_factory=dict)

    @property
    def slice_s(self) -> float:
        """Length of a slice of the timeline in seconds."""
        return max(1.0, math.ceil(self.span_s / MAX_SLICES))

    @property
    def elapsed_s(self) -> float:
        """Time since the start of the run in seconds. Negative before the start."""
        return time.time() - self.start_at

    def add(self, worker: int, line: dict[str, Any]) -> None:
        """Merge a report of a worker, which covers about one second.

        Args:
            worker: Number of the worker.
            line: The report as parsed JSON.
        """
        fresh = self.merged.add(worker, line)
        self.live[worker] = line["live"]
        self.traffic[worker] = Counter(line["traffic"])
        if line["final"]:
            self.finished.add(worker)
        if line["measuring"]:
            lateness, lag = decode_lateness_and_lag(line)
            self.lateness.add(lateness)
            self.lag.add(lag)
            for name, share in {**line["shares"], "reports": 1}.items():
                self.shares[worker][name] += share
        piece = self.slices[min(MAX_SLICES - 1, int(max(0.0, line["at_s"]) // self.slice_s))]
        piece.sessions[worker] = line["live"]
        counts = Counter(line["counts"])
        piece.counts.update(counts - self._previous_counts.get(worker, Counter()))
        self._previous_counts[worker] = counts
        if VOICE_TO_VOICE in fresh:
            piece.voice_to_voice.add(fresh[VOICE_TO_VOICE])

    def fitness(self) -> Fitness:
        """Return the measurements so far for the generator's self-checks."""

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
        """Return the timeline of the run so far: at most `MAX_SLICES` slices, in order of time."""
        return tuple(
            TimelineSlice(
                at_s=round(index * self.slice_s, 3),
                sessions=sum(piece.sessions.values()),
                turns=piece.counts["turns"],
                failed=piece.counts["failed"] + piece.counts["unanswered"],
                p50_ms=_percentile_ms(piece.voice_to_voice, 50),
                p95_ms=_percentile_ms(piece.voice_to_voice, 95),
                underruns=piece.counts["underruns"],
                refused=piece.counts["refused"],
            )
            for index, piece in sorted(self.slices.items())
        )


def _percentile_ms(recorded: HdrHistogram, percentile: float) -> float | None:
    return round(recorded.get_value_at_percentile(percentile) / 1000, 1) if recorded.get_total_count() else None


async def run_workers(assignments: list[WorkerAssignment], progress: RunProgress, watch: ProgressCallback) -> None:
    """Run one worker process for each assignment until all are done. Cancelling the task stops the workers.

    Args:
        assignments: One assignment for each worker.
        progress: Progress into which the reports are merged.
        watch: Called with the progress after each report.

    Raises:
        BackendError: A worker ended without its final report. The other workers are stopped.
    """
    stolen_before, total_before = stolen_and_total()
    try:
        async with asyncio.TaskGroup() as group:
            for number, assignment in enumerate(assignments):
                group.create_task(_follow_worker(number, assignment, progress, watch))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # only the first failure: it has stopped the other workers
    stolen, total = stolen_and_total()
    progress.stolen = (stolen - stolen_before) / max(1, total - total_before)


async def _follow_worker(
    number: int, assignment: WorkerAssignment, progress: RunProgress, watch: ProgressCallback
) -> None:
    address = assignment.scenario.ray_address
    # Close the stream of reports on leaving, so that the worker process has ended when this function returns or raises.
    async with aclosing(
        ray_workers.report_lines(assignment, address) if address else _local_report_lines(assignment)
    ) as lines:
        async for line in lines:
            progress.add(number, line)
            watch(progress)
    if number not in progress.finished:
        raise BackendError(
            f"load generator process {number} ended early.", "See its output above for the cause.", stage="generator"
        )


async def _local_report_lines(assignment: WorkerAssignment) -> AsyncGenerator[dict[str, Any], None]:
    """Start a worker process on this machine and yield its reports. Closing the generator kills the process."""
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
        with suppress(ConnectionError):  # if the process has died, its missing final report is noticed later
            process.stdin.write(json.dumps(assignment.document()).encode() + b"\n")
            await process.stdin.drain()
        async for line in process.stdout:
            yield json.loads(line)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # SIGKILL, because a process that is stopped (SIGSTOP) does not react to SIGTERM
            await process.wait()


def set_real_time_priority(pid: int) -> bool:
    """Give the process `pid` real-time priority. Return False if the machine does not allow it."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    except (OSError, AttributeError):
        return False
    return True
