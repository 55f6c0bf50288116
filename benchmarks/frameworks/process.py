"""A contender's processes: pin them to one core, measure them, and stop them."""

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
"""Nice value of contenders and feeder, if permitted. Other processes then get only the CPU time that contenders and
feeder do not use.
"""


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of the CPU core of the contender and of the core of the feeder (the process that sends the audio)."""

    contender: int
    feeder: int


def cores() -> Cores:
    """Return the first two cores that this process may use. Raise ConfigError if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ConfigError("the comparison needs two cores.", "Run it on a machine with two cores.", field="cores")
    return Cores(allowed[0], allowed[1])


def pin_to_core(core: int) -> None:
    """Pin this process to a core and raise its priority, if permitted."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def _prepare(core: int) -> None:
    """Pin the new process to `core` and restore the default action of SIGINT. Called before the program starts.

    A background job of a shell ignores SIGINT, and so do its children. `ProcessTree.stop` needs SIGINT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    pin_to_core(core)


@dataclass(frozen=True, slots=True)
class CpuUsage:
    """Reading of the CPU counters.

    Attributes:
        tree_s: CPU seconds of the process tree.
        core_s: Busy seconds of the whole core.
        at: Time of the reading (monotonic clock, in seconds).
    """

    tree_s: float
    core_s: float
    at: float


@dataclass(slots=True)
class ProcessTree:
    """All processes of one contender on one core, children included."""

    core: int
    roots: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process on the contender's core, in the repository's folder.

        Args:
            command: Command line.
            environment: Additional environment variables.
            log: File to which its output is appended.
        """
        core = self.core
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
                # `preexec_fn` can deadlock if other threads run. This process has none yet.
                preexec_fn=partial(_prepare, core),
            )
        self.roots.append(process)
        return process

    def ended(self) -> bool:
        """Return True if at least one of the started processes has exited."""
        return any(root.poll() is not None for root in self.roots)

    def usage(self) -> CpuUsage:
        """Return the CPU times of the process tree and of the core so far.

        Processes that start and end between two calls are not counted.
        """
        tree = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                tree += times.user + times.system
        return CpuUsage(tree, core_seconds(self.core), time.monotonic())

    def memory_mb(self) -> float:
        """Return the memory of all processes in MB (proportional set size).

        A page that n processes share counts 1/n in each.
        """
        total = 0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 2**20

    def stop(self) -> None:
        """Interrupt all processes, wait up to `STOP_S`, then kill those that are left."""
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
    """Return the seconds for which a core has been busy since the machine started, time of other processes included."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def free_port() -> int:
    """Return a TCP port that is currently free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def foreign_share(before: CpuUsage, after: CpuUsage) -> float:
    """Return the share of the contender's core, 0 to 1, that other processes used between two readings."""
    elapsed = max(after.at - before.at, 1e-9)
    return max(0.0, (after.core_s - before.core_s) - (after.tree_s - before.tree_s)) / elapsed


def cores_used(before: CpuUsage, after: CpuUsage) -> float:
    """Return the average number of cores that the process tree used between two readings."""
    return (after.tree_s - before.tree_s) / max(after.at - before.at, 1e-9)
