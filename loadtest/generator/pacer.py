"""The pacing wheel: one task sends every caller's frame at its millisecond, and says how late it was.

Twenty slots of a millisecond; a caller has one slot for life. The deadline of tick k is start + k ms, whatever happened
before: a wheel that is late catches up, and its lateness is recorded from the intended instant (load-facts, section 2).
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence
from typing import Protocol

from loadtest.scenario.schedule import FRAME_SLOTS

TICK_S = 0.001


class PacedCaller(Protocol):
    """A caller with its socket."""

    def send_frame(self, due: float) -> int:
        """Send what leaves at this deadline; returns how many messages the caller's plan had for it."""
        ...


class FramePacer:
    """`run` for the run's life; callers `join` and `leave` at any time, from the same loop."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._slots: list[list[PacedCaller]] = [[] for _ in range(FRAME_SLOTS)]
        self.late_s = array("d")

    def join(self, caller: PacedCaller, slot: int) -> None:
        self._slots[slot].append(caller)

    def leave(self, caller: PacedCaller, slot: int) -> None:
        if caller in self._slots[slot]:
            self._slots[slot].remove(caller)

    async def run(self) -> None:
        """Turn until cancelled."""
        tick = max(0, round((time.monotonic() - self._start) / TICK_S))
        while True:
            due = self._start + tick * TICK_S
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            elif tick % FRAME_SLOTS == 0:
                await asyncio.sleep(0)  # late: sockets must be read all the same
            slot = self._slots[tick % FRAME_SLOTS]
            if slot:
                self._send(tuple(slot), due)
            tick += 1

    def _send(self, callers: Sequence[PacedCaller], due: float) -> None:
        clock, late_s = time.monotonic, self.late_s
        for caller in callers:
            if caller.send_frame(due):
                late_s.append(clock() - due)
