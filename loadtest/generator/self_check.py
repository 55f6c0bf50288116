"""Self-checks of the load generator: send lateness, event loop lag, CPU use, and run-queue wait.

Send lateness is the decisive check. Latency is measured from a frame's deadline, so a late frame adds its own delay to
the measured latency. Run-queue wait without lateness is normal on a shared machine and only gives a warning.

On a contended host, a generator with 200 calls had a p99 lateness of 27 to 2,193 ms while it used 10% to 27% of a core.
Without these checks, its results would have shown this lateness as latency of the system under test.
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
"""Period of the samples of event loop lag."""

_SCHEDSTAT = Path("/proc/self/schedstat")
_STAT = Path("/proc/stat")

# Limits of the checks: p99 of send lateness and loop lag in ms, the others as shares (0 to 1). 5 ms of lateness is a
# quarter of the tightest limit that a run judges (20 ms). A worker that uses more than 70% of its core has no reserve
# for bursts.
LATENESS_MS = 5.0
LOOP_LAG_MS = 10.0
CPU_SHARE = 0.70
RUN_QUEUE_SHARE = 0.02
FRAMES_SHARE = 0.999
STEAL_SHARE = 0.01


class LoopLag:
    """Sampler of event loop lag: how much later than planned the loop returns from a sleep. Run `run` as a task.

    Attributes:
        late_s: The samples in seconds. The reader of the list clears it.
    """

    def __init__(self) -> None:
        self.late_s = array("d")

    async def run(self) -> None:
        """Take a sample every `LAG_PERIOD_S` seconds until cancelled."""
        while True:
            due = time.monotonic() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self.late_s.append(max(0.0, time.monotonic() - due))


@dataclass(frozen=True, slots=True)
class CpuSnapshot:
    """Values of the CPU clocks of this process at one time.

    Attributes:
        at: Time of the snapshot in seconds of the monotonic clock.
        cpu_s: CPU time that the process has used, in seconds.
        queued_s: Time that the main thread has waited in the run queue for a core, in seconds.
    """

    at: float
    cpu_s: float
    queued_s: float

    @staticmethod
    def now() -> CpuSnapshot:
        """Return a snapshot of the current values."""
        return CpuSnapshot(time.monotonic(), time.process_time(), _queued_s())

    def since(self, before: CpuSnapshot) -> dict[str, float]:
        """Return CPU time (`cpu`) and run-queue wait (`queued`) since `before`, as shares of the elapsed time."""
        elapsed_s = max(1e-9, self.at - before.at)
        cpu, queued = (self.cpu_s - before.cpu_s) / elapsed_s, (self.queued_s - before.queued_s) / elapsed_s
        return {"cpu": cpu, "queued": queued}


def _queued_s() -> float:
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # the kernel does not report run-queue wait, so its check passes
        return 0.0


def stolen_and_total() -> tuple[int, int]:
    """Return (clock ticks stolen by the hypervisor, all clock ticks) of this machine since boot.

    The result is (0, 1) if the kernel does not report them.
    """
    try:
        ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 1
    return ticks[7], sum(ticks)


def drain(values: array[float]) -> str:
    """Return a histogram of `values`, compressed and base64-encoded, and empty `values`.

    The values are in seconds, the histogram is in microseconds.
    """
    text = encoded(values)
    del values[:]
    return text


@dataclass(frozen=True, slots=True)
class Fitness:
    """Measurements of the generator's own performance, over all workers.

    Attributes:
        lateness: Delay of each frame after its deadline, in microseconds.
        lag: Event loop lag in microseconds.
        cpu: CPU use of the busiest worker, as a share of one core.
        queued: Run-queue wait of the worker that waited most, as a share of the time.
        steal: CPU steal time of this machine, as a share of all CPU time.
        missed: Number of calls that were dialled more than 1 s after their scheduled arrival.
        frames_scheduled: Number of audio frames that were due.
        frames_sent: Number of audio frames that were sent.
    """

    lateness: HdrHistogram
    lag: HdrHistogram
    cpu: float
    queued: float
    steal: float
    missed: int
    frames_scheduled: int
    frames_sent: int

    def checks(self) -> tuple[FitnessCheck, ...]:
        """Return every check with its measured value and limit."""
        sent = self.frames_sent / self.frames_scheduled if self.frames_scheduled else 1.0
        return (
            FitnessCheck("send lateness p99", _p99_ms(self.lateness), LATENESS_MS, "ms"),
            FitnessCheck("event loop lag p99", _p99_ms(self.lag), LOOP_LAG_MS, "ms"),
            FitnessCheck("missed arrivals", self.missed, 0, "calls"),
            FitnessCheck("frames sent", round(sent, 6), FRAMES_SHARE, "of scheduled frames", at_least=True),
            FitnessCheck("CPU of the busiest worker", round(self.cpu, 4), CPU_SHARE, "of a core"),
            FitnessCheck("CPU steal", round(self.steal, 4), STEAL_SHARE, "of CPU time"),
            FitnessCheck("CPU run-queue wait", round(self.queued, 4), RUN_QUEUE_SHARE, "of the time", warning=True),
        )


def _p99_ms(histogram: HdrHistogram) -> float:
    return round(histogram.get_value_at_percentile(99) / 1000, 2) if histogram.get_total_count() else 0.0


def failure_causes(checks: tuple[FitnessCheck, ...]) -> tuple[str, ...]:
    """Return why a run is INVALID: one sentence for each failed check, without checks that only warn."""
    return tuple(
        f"{check.name}: measured {check.measured:g} {check.unit}, "
        f"must be {'at least' if check.at_least else 'at most'} {check.limit:g} {check.unit}"
        for check in checks
        if not check.ok and not check.warning
    )


def decode_lateness_and_lag(document: dict[str, Any]) -> tuple[HdrHistogram, HdrHistogram]:
    """Return (send lateness, event loop lag) from a worker's report, as histograms of microseconds."""
    return HdrHistogram.decode(document["lateness"]), HdrHistogram.decode(document["lag"])
