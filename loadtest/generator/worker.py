"""One generator process: reads its order from standard input, paces its calls, and reports a JSON line a second.

`python -m loadtest.generator.worker` is started by `loadtest.generator.workers`, on this machine or by a Ray actor
on another. All workers
start at one wall-clock instant; from then on only this process's monotonic clock counts, and no two are subtracted.
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
from dataclasses import dataclass
from typing import Any

import uvloop

from loadtest.callers.call_socket import CallRefused, CallSocket, dial, session_update
from loadtest.callers.simulated_caller import SharedCallerSettings, SimulatedCaller
from loadtest.callers.turn_outcomes import TurnOutcomes
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.pacer import FramePacer
from loadtest.generator.self_check import CpuSnapshot, LoopLag, drain
from loadtest.results.histograms import TurnHistograms
from loadtest.scenario.network import NetworkPath, route
from loadtest.scenario.schedule import Call
from loadtest.scenario.utterances import encode, read_clips

MISSED_S = 1.0
"""A call that is dialled so much later than scheduled did not arrive as the schedule says."""

REPORT_S = 1.0
PING_S = 5.0

# Calls looked after in one go: a thousand would hold up their frames for ten milliseconds, once a second.
BATCH = 50

Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _LiveCall:
    socket: CallSocket
    caller: SimulatedCaller
    call: Call
    pinged_at: float


class Worker:
    """Holds the calls of one order."""

    def __init__(self, order: WorkerAssignment, start: float, report: Report) -> None:
        scenario = order.scenario
        self._order = order
        self._start = start
        self._report = report
        self._tally = TurnHistograms()
        self._wheel = FramePacer(start)
        self._lag = LoopLag()
        self._live: dict[CallSocket, _LiveCall] = {}
        self._traffic: Counter[str] = Counter()
        measure_to = start + order.measure_to_s
        outcomes = TurnOutcomes(
            self._tally, start + order.measure_from_s, measure_to, scenario.behavior.answer_timeout_s
        )
        self._accounts = outcomes
        speech = encode(read_clips(scenario.clips), scenario.codec)
        self._shared = SharedCallerSettings(
            speech,
            behavior=scenario.behavior,
            outcomes=outcomes,
            playout_buffer_s=scenario.playout_buffer_ms / 1000,
            last_turn_at=measure_to,
        )
        self._stance = CpuSnapshot.now()
        self._parent = os.getppid()
        self._greeting = session_update(scenario.codec, scenario.turn_detection, scenario.silence_ms)

    async def run(self) -> None:
        """Until every call is over, or the drain's time is."""
        deadline = self._start + self._order.measure_to_s + self._order.scenario.drain_s
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self._wheel.run(), self._lag.run(), self._reports())]
            try:
                async with asyncio.timeout_at(deadline):
                    async with asyncio.TaskGroup() as calls:
                        for call in self._order.calls:
                            calls.create_task(self._hold(call))
            except TimeoutError:
                pass  # those that were still open counted themselves
            for task in beside:
                task.cancel()
        self._tell(final=True)

    async def _hold(self, call: Call) -> None:
        """One call, from its arrival to its end."""
        due = self._start + call.at_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        counts = self._tally.counts
        if time.monotonic() - due > MISSED_S:
            counts["missed"] += 1
        scenario = self._order.scenario
        over = asyncio.Event()
        try:
            socket = await dial(scenario.url, scenario.api_key, self._greeting, lambda _: over.set())
        except CallRefused as refusal:
            counts["refused" if refusal.status in (429, 503) else "setup_failed"] += 1
            return
        except (ConnectionError, TimeoutError) as fault:
            counts["setup_failed"] += 1
            counts[f"setup:{type(fault).__name__}"] += 1
            return
        counts["opened"] += 1
        self._tally.record("setup", time.monotonic() - due)
        path = NetworkPath(route(call.region), random.Random(call.seed))
        caller = SimulatedCaller(
            call, path=path, shared=self._shared, send=socket.send_event, began_at=time.monotonic()
        )
        socket.begin(caller)
        self._live[socket] = _LiveCall(socket, caller, call, time.monotonic())
        self._wheel.join(socket, call.slot)
        dropped = False
        try:
            dropped = await self._until_over(caller, socket, over)
        except asyncio.CancelledError:
            counts["undrained"] += 1
            raise
        finally:
            self._wheel.leave(socket, call.slot)
            self._end(self._live.pop(socket), dropped)
            await socket.close()

    async def _until_over(self, caller: SimulatedCaller, socket: CallSocket, lost: asyncio.Event) -> bool:
        """Until the caller is done, or the server dropped the call; whether it did."""
        while not caller.over:
            try:
                async with asyncio.timeout(0.25):
                    await lost.wait()
            except TimeoutError:
                continue
            self._tally.counts.update(("dropped", f"drop:{socket.cause}"))
            return True
        return False

    def _end(self, live: _LiveCall, dropped: bool) -> None:
        now = time.monotonic()
        live.caller.hang_up(now, dropped=dropped)
        self._traffic["scheduled"] += 0 if dropped else live.socket.overdue_frames(now)
        self._collect(live)

    def _collect(self, live: _LiveCall) -> None:
        socket = live.socket
        self._traffic.update(sent=socket.sent, bytes_sent=socket.bytes_sent, bytes_received=socket.bytes_received)
        self._traffic["scheduled"] += live.caller.take_frames_due()
        socket.sent = socket.bytes_sent = socket.bytes_received = 0
        for rtt_s in socket.rtts_s:
            self._tally.record("rtt", rtt_s + live.caller.path.rtt_s)
        socket.rtts_s.clear()

    async def _reports(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            if os.getppid() != self._parent:
                raise SystemExit("whoever ordered this load is gone")
            for number, live in enumerate(list(self._live.values())):
                if number % BATCH == BATCH - 1:
                    await asyncio.sleep(0)
                if live.socket in self._live:
                    self._look_after(live, time.monotonic())
            self._tell(final=False)

    def _look_after(self, live: _LiveCall, now: float) -> None:
        self._collect(live)
        if now - live.pinged_at >= PING_S:
            live.pinged_at = now
            live.socket.ping()

    def _tell(self, *, final: bool) -> None:
        now = CpuSnapshot.now()
        self._report(
            {
                "at_s": round(now.at - self._start, 3),
                "live": len(self._live),
                "final": final,
                "measuring": self._accounts.measured_s(self._stance.at, now.at) >= REPORT_S / 2,
                "lateness": drain(self._wheel.late_s),
                "lag": drain(self._lag.late_s),
                "shares": now.since(self._stance),
                "traffic": dict(self._traffic),
                **self._tally.flush(),
            }
        )
        self._stance = now


def main() -> None:
    """Entry point: an order in, lines out."""
    order = WorkerAssignment.parse(json.loads(sys.stdin.readline()))
    # The plan, the clips and the modules live as long as the process: the collector need never look at them again.
    gc.collect()
    gc.freeze()

    def report(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    start = time.monotonic() + (order.start_at - time.time())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(order, start, report).run())


if __name__ == "__main__":
    main()
