"""A contender's processes: pinned to one core, watched, and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from rejoinder.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
STOP_S = 20.0
PRIORITY = -20
"""For every contender and the feeder alike, if we may: others get what they leave idle."""


@dataclass(frozen=True, slots=True)
class Cores:
    """One for the contender, one for the feeder."""

    contender: int
    feeder: int


def cores() -> Cores:
    """The first two that this process may use; raises ConfigError on a machine with one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ConfigError("the comparison needs two cores.", "Run it on a machine with two.", field="cores")
    return Cores(allowed[0], allowed[1])


def settle(core: int) -> None:
    """This process onto its core, and before what else the machine does there, if we may say so."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def _begin(core: int) -> None:
    """A contender can be interrupted, even if we are a shell's background job, which cannot."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    settle(core)


@dataclass(frozen=True, slots=True)
class CpuUsage:
    """Seconds of CPU: the tree's own, the whole core's, and when."""

    tree_s: float
    core_s: float
    at: float


@dataclass(slots=True)
class ProcessTree:
    """All processes of one contender and their children."""

    core: int
    roots: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """One process on the contender's core, in the repository's folder; its output goes to `log`."""
        core = self.core
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=partial(_begin, core),  # no thread exists yet
            )
        self.roots.append(process)
        return process

    def ended(self) -> bool:
        """Whether some process is gone before its time."""
        return any(root.poll() is not None for root in self.roots)

    def usage(self) -> CpuUsage:
        """CPU so far. Processes that came and went between two looks are not in it."""
        tree = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                tree += times.user + times.system
        return CpuUsage(tree, core_seconds(self.core), time.monotonic())

    def memory_mb(self) -> float:
        """Proportional set size: a page shared by n processes counts 1/n in each."""
        total = 0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 2**20

    def stop(self) -> None:
        """Interrupt, wait, then kill what is left."""
        everything = list(self._all())
        for root in self.roots:
            if root.poll() is None:
                root.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_S
        for root in self.roots:
            with contextlib.suppress(subprocess.TimeoutExpired):
                root.wait(max(0.1, deadline - time.monotonic()))
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for root in self.roots:
            root.wait(STOP_S)

    def _all(self) -> Iterator[psutil.Process]:
        for root in self.roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(root.pid)
                yield process
                yield from process.children(recursive=True)


def core_seconds(core: int) -> float:
    """How long a core has been busy since the machine started."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def foreign_share(before: CpuUsage, after: CpuUsage) -> float:
    """How much of the core others used between two looks."""
    elapsed = max(after.at - before.at, 1e-9)
    return max(0.0, (after.core_s - before.core_s) - (after.tree_s - before.tree_s)) / elapsed


def cores_used(before: CpuUsage, after: CpuUsage) -> float:
    return (after.tree_s - before.tree_s) / max(after.at - before.at, 1e-9)
