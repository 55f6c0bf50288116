"""One worker process: reads its assignment from standard input, makes its calls, and writes a JSON report each second.

`loadtest.generator.workers` starts `python -m loadtest.generator.worker` on this machine. On a Ray cluster, an actor on
the node starts it. All workers start at the same wall-clock time. After that, a worker uses only its own monotonic
clock, and times of two processes are never subtracted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

from loadtest.callers.call_socket import CallRefused, CallSocket, dial, redial, session_update
from loadtest.callers.resume_state import ELSEWHERE, GONE_STATUSES, SessionGone, reconnect
from loadtest.callers.simulated_caller import SharedCallerSettings, SimulatedCaller
from loadtest.callers.turn_outcomes import TurnOutcomes
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.pacer import FramePacer
from loadtest.generator.self_check import CpuSnapshot, LoopLag, drain
from loadtest.results.histograms import TurnHistograms
from loadtest.scenario.background import background
from loadtest.scenario.network import NetworkPath, lossier, route
from loadtest.scenario.schedule import Call
from loadtest.scenario.utterances import encode, read_clips

MISSED_S = 1.0
"""A call that is dialled more than this number of seconds after its scheduled arrival counts as missed."""

REPORT_S = 1.0
"""Period of the reports in seconds."""

BATCH = 50
"""Number of calls whose counters are collected before the event loop runs other tasks. Without this, a thousand calls
would delay their frames by 10 ms."""

Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _LiveCall:
    """A call in progress.

    Attributes:
        socket: Newest connection of the call.
        caller: The simulated caller.
        call: The call's entry in the schedule.
        lost: Set when a connection of the call is lost.
    """

    socket: CallSocket
    caller: SimulatedCaller
    call: Call
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """Worker that makes the calls of one assignment."""

    def __init__(self, assignment: WorkerAssignment, start: float, report: Report) -> None:
        """Create a worker.

        Args:
            assignment: Scenario and calls of the worker.
            start: Start of the run in seconds of the monotonic clock.
            report: Called with each report, a JSON document.
        """
        scenario = assignment.scenario
        self._assignment = assignment
        self._start = start
        self._report = report
        self._histograms = TurnHistograms()
        self._pacer = FramePacer(start)
        self._lag = LoopLag()
        self._live: dict[int, _LiveCall] = {}
        self._traffic: Counter[str] = Counter()
        measure_to = start + assignment.measure_to_s
        outcomes = TurnOutcomes(
            self._histograms, start + assignment.measure_from_s, measure_to, scenario.behavior.answer_timeout_s
        )
        self._outcomes = outcomes
        clips, around = read_clips(scenario.clips), None
        if scenario.background != "none":
            around = background(scenario.background, clips, scenario.snr_db, scenario.seed)
        speech = encode(clips, scenario.codec, around)
        self._shared = SharedCallerSettings(
            speech,
            behavior=scenario.behavior,
            outcomes=outcomes,
            playout_buffer_s=scenario.playout_buffer_ms / 1000,
            last_turn_at=measure_to,
        )
        self._last_snapshot = CpuSnapshot.now()
        self._parent_pid = os.getppid()
        self._configure = session_update(scenario.codec, scenario.turn_detection, scenario.silence_ms)

    async def run(self) -> None:
        """Run all calls until they are over or the drain time ends. Then send the final report."""
        deadline = self._start + self._assignment.measure_to_s + self._assignment.scenario.drain_s
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(work) for work in (self._pacer.run(), self._lag.run(), self._send_reports())
            ]
            try:
                async with asyncio.timeout_at(deadline):
                    async with asyncio.TaskGroup() as calls:
                        for call in self._assignment.calls:
                            calls.create_task(self._hold(call))
            except TimeoutError:
                pass  # the drain time has ended; `_hold` has counted the calls that were still open
            for task in background:
                task.cancel()
        self._send_report(final=True)

    async def _hold(self, call: Call) -> None:
        """Run one call: wait for its scheduled arrival, connect, let the caller talk, and close the connection."""
        due = self._start + call.at_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        counts = self._histograms.counts
        if time.monotonic() - due > MISSED_S:
            counts["missed"] += 1
        lost = asyncio.Event()
        try:
            socket = await self._dial(lost)
        except CallRefused as refusal:
            counts["refused" if refusal.status in (429, 503) else "setup_failed"] += 1
            self._outcomes.count_failing_call(Counter({f"refused with HTTP {refusal.status}": 1}), call.region)
            return
        except (ConnectionError, TimeoutError) as error:
            counts["setup_failed"] += 1
            counts[f"setup:{type(error).__name__}"] += 1
            self._outcomes.count_failing_call(Counter({"the server was not reached": 1}), call.region)
            return
        counts["opened"] += 1
        self._histograms.record("setup", time.monotonic() - due)
        path = NetworkPath(lossier(route(call.region), self._assignment.scenario.loss), random.Random(call.seed))
        caller = SimulatedCaller(
            call, path=path, shared=self._shared, send=socket.send_event, began_at=time.monotonic()
        )
        socket.begin(caller)
        socket.on_unsent = caller.hold
        caller.resumption.take(socket.created)
        live = self._live[call.number] = _LiveCall(socket, caller, call, lost=lost)
        self._pacer.join(socket, call.slot)
        dropped = False
        try:
            dropped = await self._until_over(live)
        except asyncio.CancelledError:
            counts["undrained"] += 1
            raise
        finally:
            self._pacer.leave(live.socket, call.slot)
            self._end(self._live.pop(call.number), dropped)
            await live.socket.close()

    async def _dial(self, lost: asyncio.Event) -> CallSocket:
        """Connect to the first server that takes the call. If none does, raise the error of the last one.

        `lost` is set when the connection is lost.
        """
        scenario = self._assignment.scenario
        *others, last = scenario.url, *scenario.fallbacks
        for url in others:
            try:
                return await dial(url, scenario.api_key, self._configure, lambda _: lost.set())
            except (CallRefused, ConnectionError, TimeoutError):
                self._histograms.counts["failed_over"] += 1
        return await dial(last, scenario.api_key, self._configure, lambda _: lost.set())

    async def _until_over(self, live: _LiveCall) -> bool:
        """Wait until the call is over. Return True if its connection was lost and the call could not continue."""
        counts, caller = self._histograms.counts, live.caller
        while not caller.over:
            try:
                async with asyncio.timeout(0.25):
                    await live.lost.wait()
            except TimeoutError:
                if not caller.moving:
                    continue
            cause, lost = live.socket.cause, live.lost.is_set()
            counts["lost"] += lost
            if not await self._continue(live) and lost:
                counts.update(("dropped", f"drop:{cause}"))
                return True
        return False

    async def _continue(self, live: _LiveCall) -> bool:
        """Connect the call again and continue its session. Return False if that is impossible."""
        scenario, caller, old = self._assignment.scenario, live.caller, live.socket
        resumption, lost_at = caller.resumption, time.monotonic()
        caller.moving = False
        if not scenario.resume or resumption.token is None or old.close_code == ELSEWHERE:
            return False

        async def connect(url: str) -> tuple[CallSocket, asyncio.Event]:
            lost = asyncio.Event()
            query = resumption.query(caller.position())
            try:
                return await redial(url, scenario.api_key, query, lambda _: lost.set()), lost
            except CallRefused as refusal:
                raise (SessionGone if refusal.status in GONE_STATUSES else ConnectionError) from refusal

        urls = (scenario.url, *scenario.fallbacks)
        connected = await reconnect(connect, urls, over=lambda: caller.over)
        if connected is None:
            return caller.over
        await self._replace(live, *connected, lost_at)
        return True

    async def _replace(self, live: _LiveCall, socket: CallSocket, lost: asyncio.Event, lost_at: float) -> None:
        """Continue a call on another connection, and close the one before.

        Args:
            live: The call.
            socket: The connection, on which the server has confirmed the session.
            lost: Event that is set when `socket` is lost.
            lost_at: Time at which the connection before was lost.
        """
        self._collect(live)
        old, live.socket, live.lost = live.socket, socket, lost
        live.caller.resumption.take(socket.created)
        live.caller.reconnect(socket.send_event, dict(socket.ready.result()), lost_at=lost_at, now=time.monotonic())
        socket.begin(live.caller)
        socket.on_unsent = live.caller.hold
        self._pacer.leave(old, live.call.slot)
        self._pacer.join(socket, live.call.slot)
        await old.close()

    def _end(self, live: _LiveCall, dropped: bool) -> None:
        """End the caller's turn, and add the call's last counters to the worker's totals.

        `dropped` is True if the server ended the call. Otherwise frames that a late pacer has not sent count as
        scheduled, so the self-checks find them missing.
        """
        now = time.monotonic()
        live.caller.hang_up(now, dropped=dropped)
        if dropped:
            live.caller.faults["the connection was lost"] = sys.maxsize  # the call ended with it
        self._outcomes.count_failing_call(+live.caller.faults, live.call.region)
        self._traffic["scheduled"] += 0 if dropped else live.socket.overdue_frames(now)
        self._collect(live)

    def _collect(self, live: _LiveCall) -> None:
        """Move the call's counters and round-trip times to the worker's totals, and reset them in the call."""
        socket = live.socket
        self._traffic.update(sent=socket.sent, bytes_sent=socket.bytes_sent, bytes_received=socket.bytes_received)
        self._traffic["scheduled"] += live.caller.take_frames_due()
        socket.sent = socket.bytes_sent = socket.bytes_received = 0
        for rtt_s in socket.rtts_s:
            self._histograms.record("rtt", rtt_s + live.caller.path.rtt_s)
        socket.rtts_s.clear()

    async def _send_reports(self) -> None:
        """Send a report each second. Exit if the parent process has ended."""
        while True:
            await asyncio.sleep(REPORT_S)
            if os.getppid() != self._parent_pid:
                raise SystemExit("the parent process of this load worker has ended")
            for number, live in enumerate(list(self._live.values())):
                if number % BATCH == BATCH - 1:
                    await asyncio.sleep(0)
                if live.call.number in self._live:
                    self._collect(live)
                    resumable = self._assignment.scenario.resume and live.caller.resumption.token is not None
                    live.socket.watch(time.monotonic(), leave=resumable)
            self._send_report(final=False)

    def _send_report(self, *, final: bool) -> None:
        now = CpuSnapshot.now()
        self._report(
            {
                "at_s": round(now.at - self._start, 3),
                "live": len(self._live),
                "final": final,
                "measuring": self._outcomes.measured_s(self._last_snapshot.at, now.at) >= REPORT_S / 2,
                "lateness": drain(self._pacer.late_s),
                "lag": drain(self._lag.late_s),
                "shares": now.since(self._last_snapshot),
                "traffic": dict(self._traffic),
                **self._histograms.flush(),
            }
        )
        self._last_snapshot = now


def main() -> None:
    """Read an assignment from standard input, make its calls, and write reports as JSON lines to standard output."""
    assignment = WorkerAssignment.parse(json.loads(sys.stdin.readline()))
    # Modules, schedule and clips are needed until the process ends. Exclude them from garbage collection, whose scans
    # would delay frames.
    gc.collect()
    gc.freeze()

    def report(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    start = time.monotonic() + (assignment.start_at - time.time())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(assignment, start, report).run())


if __name__ == "__main__":
    main()
