"""One run of one contender: start it, send audio to its sessions, measure it, stop it, and decide if the run passes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.frameworks import all_in
from benchmarks.frameworks.contestants import Contestant
from benchmarks.frameworks.feeder import Feeder, Link, plan
from benchmarks.frameworks.links import SocketLink
from benchmarks.frameworks.network_link import NetworkLink
from benchmarks.frameworks.process import (
    Cores,
    CpuUsage,
    ProcessTree,
    core_seconds,
    cores_used,
    foreign_share,
    free_port,
    pin_to_core,
)
from benchmarks.frameworks.streams import CYCLE_S, Stream, write_cycles
from benchmarks.frameworks.timing import EngineTimes, HarnessCheck, Probe, TimedEdge, percentile, verdict
from rejoinder.core.errors import BackendError

CYCLES = 5
"""Number of turns of each session. The first one or two are the warm-up, and at least three count."""

START_S = 240.0
OFFLINE_S = 300.0
IDLE_WAIT_S = 120.0
IDLE_LOOK_S = 2.0
IDLE_SHARE = 0.1
OFFLINE_CYCLES = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One contender with its input. Call `run` for each number of sessions to try.

    Attributes:
        contestant: The contender.
        python: The contender's Python interpreter.
        streams: Input streams. The sessions use them in turn.
        edges: End of the turn in each stream, by the contender's own rules.
        cores: Numbers of the CPU cores of the contender and of the feeder, which sends the audio.
        engines: Fixed times of the contender's speech to text, language model and text to speech.
    """

    contestant: Contestant
    python: Path
    streams: Sequence[Stream]
    edges: Sequence[TimedEdge]
    cores: Cores
    engines: EngineTimes = field(default_factory=EngineTimes)

    async def run(self, sessions: int) -> Probe:
        """Wait for an idle core, run this many sessions and return the result.

        Raise BackendError if the contender does not start.
        """
        await idle(self.cores.contender)
        tree = ProcessTree(self.cores.contender)
        pin_to_core(self.cores.feeder)
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            try:
                if self.contestant.networked:
                    links: Sequence[Link] = [await self._start_server(tree, Path(folder), sessions)]
                else:
                    processes = sessions if self.contestant.alone else 1
                    links = await self._start(tree, Path(folder), processes, sessions // processes)
                return await self._measure(tree, links, sessions)
            finally:
                tree.stop()

    async def _start(self, tree: ProcessTree, folder: Path, processes: int, each: int) -> list[SocketLink]:
        """Start `processes` processes of the contender, with `each` sessions per process, and return their connections.

        Each process starts when the previous one is ready. The sockets and the log file are in `folder`. Raise
        BackendError if a process is not ready in time.
        """
        links = [SocketLink(each, self.streams) for _ in range(processes)]
        for number, link in enumerate(links):
            path = folder / str(number)
            server = await asyncio.get_running_loop().create_unix_server(partial(_same, link), str(path))
            options = ("--socket", str(path), "--sessions", str(each))
            tree.start((*command(self.contestant, self.python), *options), {}, folder / "log")
            await self._wait(tree, folder / "log", link.ready.done)
            server.close()
        return links

    async def _start_server(self, tree: ProcessTree, folder: Path, sessions: int) -> NetworkLink:
        """Start the whole system and open a connection for each session.

        The configuration and the log file are written to `folder`. Raise BackendError if the system does not start.
        """
        port = await asyncio.to_thread(free_port)
        config = folder / "serve.json"
        all_in.write(config, all_in.configuration(sessions, self.engines, port))
        tree.start(all_in.command(config), {}, folder / "log")
        up = asyncio.create_task(all_in.until_healthy(port))
        try:
            await self._wait(tree, folder / "log", up.done)
        finally:
            up.cancel()
        link = NetworkLink(sessions, self.streams)
        await link.open(f"ws://127.0.0.1:{port}/v1/realtime", START_S)
        return link

    async def _wait(self, tree: ProcessTree, log: Path, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            if tree.ended() or time.monotonic() > deadline:
                raise BackendError(f"{self.contestant.title} did not start: {_tail(log)}", stage="peer")
            await asyncio.sleep(0.05)

    async def _measure(self, tree: ProcessTree, links: Sequence[Link], sessions: int) -> Probe:
        planned = plan(sessions, CYCLES, len(self.streams))
        feeder = Feeder(links, sessions // len(links), planned)
        feeding = asyncio.create_task(feeder.feed())
        await asyncio.sleep(2 * CYCLE_S)
        before = await asyncio.to_thread(tree.usage)
        await asyncio.sleep((CYCLES - 2) * CYCLE_S)
        after = await asyncio.to_thread(tree.usage)
        memory = await asyncio.to_thread(tree.memory_mb)
        await feeding
        await asyncio.sleep(CYCLE_S / 4)
        return self._judged(feeder, (before, after), memory)

    def _judged(self, feeder: Feeder, usage: tuple[CpuUsage, CpuUsage], memory_mb: float) -> Probe:
        answers = feeder.answers(self.edges, self.engines)
        check = HarnessCheck(feeder.late_p99_ms(), foreign_share(*usage))
        outcome, cause = verdict(answers, check)
        quantiles = [percentile(answers.added_ms, rank) for rank in (50, 95, 99)]
        return Probe(
            sessions=len(feeder.plan.starts),
            outcome=outcome,
            cause=cause,
            turns=answers.turns,
            missed=answers.missed,
            stray=answers.stray,
            p50_ms=quantiles[0],
            p95_ms=quantiles[1],
            p99_ms=quantiles[2],
            late_p99_ms=check.late_p99_ms,
            foreign_share=check.foreign_share,
            cpu=cores_used(*usage),
            memory_mb=memory_mb,
        )


def _same(link: SocketLink) -> SocketLink:
    """Return `link`. asyncio calls this for the protocol of a new connection, of which there is only one."""
    return link


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


async def idle(core: int) -> None:
    """Wait until the core is idle, at most `IDLE_WAIT_S` seconds, because a run on a busy core is INVALID."""
    for _ in range(round(IDLE_WAIT_S / IDLE_LOOK_S)):
        before = core_seconds(core)
        await asyncio.sleep(IDLE_LOOK_S)
        if core_seconds(core) - before < IDLE_SHARE * IDLE_LOOK_S:
            return


def command(contestant: Contestant, python: Path) -> tuple[str, ...]:
    """Return a contender's command line, without the options `--socket`, `--sessions` and `--offline`."""
    return (str(python), "-m", contestant.module, *contestant.arguments)


def find_edges(contestant: Contestant, python: Path, streams: Sequence[Stream]) -> list[TimedEdge]:
    """Return the end of the turn in a cycle of each stream, as the contender's `--offline` option finds it.

    Raises:
        BackendError: The contender failed, or did not find exactly one turn in every cycle.
    """
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        files = [Path(folder) / f"{number}.raw" for number in range(len(streams))]
        for stream, file in zip(streams, files, strict=True):
            write_cycles(stream, OFFLINE_CYCLES, file)
        arguments = (*command(contestant, python), "--offline", *map(str, files))
        done = subprocess.run(arguments, capture_output=True, check=False, timeout=OFFLINE_S)
    if done.returncode:
        raise BackendError(f"{contestant.title} failed: {done.stderr.decode(errors='replace')[-2000:]}", stage="peer")
    found = json.loads(done.stdout.splitlines()[-1])
    return [last_edge(stream.name, edges) for stream, edges in zip(streams, found, strict=True)]


def last_edge(name: str, edges: Sequence[tuple[float, float]]) -> TimedEdge:
    """Return the end of the turn in the last cycle, in ms after that cycle's start.

    Args:
        name: Name of the stream, for the error message.
        edges: All ends of speech as pairs (work_ms, commit_ms) of `ReportedEdge`, in ms after the stream's start.

    Raises:
        BackendError: A cycle has no turn or several.
    """
    cycle_ms = CYCLE_S * 1000
    cycles = [int(commit // cycle_ms) for _, commit in edges]
    if cycles != list(range(OFFLINE_CYCLES)):
        raise BackendError(f"{name} has {len(edges)} turns in {OFFLINE_CYCLES} cycles: {edges}.", stage="peer")
    work, commit = edges[-1]
    return TimedEdge(work - cycles[-1] * cycle_ms, commit - cycles[-1] * cycle_ms)
