"""Is this process fit to measure: its own lateness, CPU, waiting for a core, and its loop's lag.

Lateness is the judge: what left late was measured from the intended instant and spoils the numbers. Waiting in the run
queue alone, on a shared machine, only warns.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtest.results.histograms import encoded
from loadtest.results.result import FitnessCheck

LAG_PERIOD_S = 0.05
_SCHEDSTAT = Path("/proc/self/schedstat")
_STAT = Path("/proc/stat")

# Load-facts, section 2.
LATENESS_MS = 5.0
LOOP_LAG_MS = 10.0
CPU_SHARE = 0.70
RUN_QUEUE_SHARE = 0.02
FRAMES_SHARE = 0.999
STEAL_SHARE = 0.01


class LoopLag:
    """How late this event loop comes back from a sleep; `run` until cancelled."""

    def __init__(self) -> None:
        self.late_s = array("d")

    async def run(self) -> None:
        while True:
            due = time.monotonic() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self.late_s.append(max(0.0, time.monotonic() - due))


@dataclass(frozen=True, slots=True)
class CpuSnapshot:
    """The process's clocks at an instant, in seconds; `queued_s`: its main thread's wait for a core."""

    at: float
    cpu_s: float
    queued_s: float

    @staticmethod
    def now() -> CpuSnapshot:
        return CpuSnapshot(time.monotonic(), time.process_time(), _queued_s())

    def since(self, before: CpuSnapshot) -> dict[str, float]:
        """Shares of the time between two instants."""
        wall = max(1e-9, self.at - before.at)
        return {"cpu": (self.cpu_s - before.cpu_s) / wall, "queued": (self.queued_s - before.queued_s) / wall}


def _queued_s() -> float:
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # no such kernel: nothing to warn of
        return 0.0


def stolen_and_total() -> tuple[int, int]:
    """Clock ticks of this machine that its hypervisor gave to others, and all ticks."""
    try:
        ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 1
    return ticks[7], sum(ticks)


def drain(values: array[float]) -> str:
    """The histogram of what was recorded, which is forgotten."""
    text = encoded(values)
    del values[:]
    return text


@dataclass(frozen=True, slots=True)
class Fitness:
    """All workers' evidence; shares are the worst worker's."""

    lateness: HdrHistogram
    lag: HdrHistogram
    cpu: float
    queued: float
    steal: float
    missed: int
    frames_scheduled: int
    frames_sent: int

    def checks(self) -> tuple[FitnessCheck, ...]:
        """Each limit of load-facts section 2, held against the evidence."""
        sent = self.frames_sent / self.frames_scheduled if self.frames_scheduled else 1.0
        return (
            FitnessCheck("send lateness p99", _p99_ms(self.lateness), LATENESS_MS, "ms"),
            FitnessCheck("event loop lag p99", _p99_ms(self.lag), LOOP_LAG_MS, "ms"),
            FitnessCheck("missed arrivals", self.missed, 0, "calls"),
            FitnessCheck("frames sent of those scheduled", round(sent, 6), FRAMES_SHARE, "share", at_least=True),
            FitnessCheck("busiest worker's CPU", round(self.cpu, 4), CPU_SHARE, "of a core"),
            FitnessCheck("CPU stolen from this machine", round(self.steal, 4), STEAL_SHARE, "share"),
            FitnessCheck("waiting for a core", round(self.queued, 4), RUN_QUEUE_SHARE, "share", warning=True),
        )


def _p99_ms(taken: HdrHistogram) -> float:
    return round(taken.get_value_at_percentile(99) / 1000, 2) if taken.get_total_count() else 0.0


def causes(checks: tuple[FitnessCheck, ...]) -> tuple[str, ...]:
    """Why a run is INVALID, in words; empty if the generator was fit."""
    return tuple(
        f"{check.name} {check.measured:g} {check.unit}, limit {check.limit:g}"
        for check in checks
        if not check.ok and not check.warning
    )


def evidence(document: dict[str, Any]) -> tuple[HdrHistogram, HdrHistogram]:
    """Lateness and lag of one worker's report."""
    return HdrHistogram.decode(document["lateness"]), HdrHistogram.decode(document["lag"])
