"""Faults that end a system of one machine: `rejoinder serve` must say why, end, and leave nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.leftovers import NODE_FOLDER, OWNER_FILE, processes_of
from tests.chaos.system import Observation, System, settings
from tests.system.harness.served import serving

END_S = 75.0
"""Most seconds that `rejoinder serve` has to end after a fault."""
GONE_S = 20.0
"""Most seconds after the end until no process is left. The guard of a killed `rejoinder serve` needs some."""


@dataclass
class Ending:
    """What became of a system.

    Attributes:
        seen: What the callers noticed, until the end or the end of the observation.
        ended_s: Seconds from the fault to the end of `rejoinder serve`; None if it did not end by itself.
        status: Its exit status.
        sentence: The last line that it printed.
        left: Names of the processes that are left GONE_S after its end.
    """

    seen: Observation
    ended_s: float | None
    status: int | None
    sentence: str
    left: list[str]


def end_by(role: str, folder: Path, question: bytes, watch_s: float) -> Ending:
    """Run a system with live calls, kill a process, and return what becomes of it.

    Args:
        role: Role of the process, see `System.processes`, or "serve" for `rejoinder serve` itself.
        folder: Folder for the configuration and the log.
        question: Speech of the callers.
        watch_s: Seconds for which the callers are observed.
    """
    with serving(folder, settings(hosts=1, replicas=1)) as served:
        system, struck = System(served, question, hosts=1, replicas=1), list[float]()
        node = _node_of(served.process.pid)

        def strike() -> None:
            victim = psutil.Process(served.process.pid) if role == "serve" else system.processes(role)[0]
            victim.kill()
            struck.append(time.monotonic())

        seen = asyncio.run(system.observe(strike, watch_s))
        ended_s = None
        try:
            status: int | None = served.process.wait(max(0.0, END_S - (time.monotonic() - struck[0])))
            ended_s = time.monotonic() - struck[0]
        except subprocess.TimeoutExpired:
            status = None
        with _at_last(node):
            left = [] if status is None else _left(node)
    lines = (folder / "serve.log").read_text(encoding="utf-8").strip().splitlines()
    return Ending(seen, ended_s, status, sentence=lines[-1].strip() if lines else "", left=left)


def _node_of(owner: int) -> Path:
    """Return the folder of the node that a process owns."""
    for folder in Path("/tmp").glob(f"{NODE_FOLDER}*"):
        text = (folder / OWNER_FILE).read_text(encoding="ascii") if (folder / OWNER_FILE).exists() else ""
        if text.split()[:1] == [str(owner)]:
            return folder
    raise LookupError(f"process {owner} owns no node")


def _left(node: Path) -> list[str]:
    """Return the names of a node's processes, which have GONE_S to end."""
    deadline = time.monotonic() + GONE_S
    while (left := processes_of(node)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return [process.name() for process in left]


@contextmanager
def _at_last(node: Path) -> Iterator[None]:
    """Kill what is left of a node at the end of the block, so that a failed test leaves nothing either."""
    try:
        yield
    finally:
        for process in processes_of(node):
            process.kill()
