"""Pacing of all callers in a process: one task sends every frame at its deadline and records how late it was.

The 20 ms of a frame are divided into twenty slots of 1 ms. A caller keeps one slot for the whole call. The deadline of
slot k of the first frame is start + k ms, and it recurs every 20 ms. A late pacer does not move deadlines. It catches
up, and lateness counts from the deadline. Otherwise the delays of a busy generator would not show in its measurements.
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
    """A caller with its connection, whose frames the pacer sends."""

    def send_frame(self, due: float) -> int:
        """Send the messages for the deadline `due` (seconds of the monotonic clock) and return their number."""
        ...


class FramePacer:
    """Sender of the frames of all callers in a process: it calls their `send_frame` at each deadline.

    Each caller has one deadline per 20 ms frame. Keep `run` running. Callers may join and leave at any time, from the
    same event loop.

    Attributes:
        late_s: Delay of each sent frame after its deadline, in seconds. The reader of the list clears it.
    """

    def __init__(self, start: float) -> None:
        """Create a pacer. Slot 0 of its first frame is due at `start`, in seconds of the monotonic clock."""
        self._start = start
        self._slots: list[list[PacedCaller]] = [[] for _ in range(FRAME_SLOTS)]
        self.late_s = array("d")

    def join(self, caller: PacedCaller, slot: int) -> None:
        """Call `caller.send_frame` once per 20 ms frame from now on.

        `slot` is the millisecond within the frame at which the caller sends, 0 to 19.
        """
        self._slots[slot].append(caller)

    def leave(self, caller: PacedCaller, slot: int) -> None:
        """Stop sending the frames of a caller that joined with `slot`. Do nothing if it has already left."""
        if caller in self._slots[slot]:
            self._slots[slot].remove(caller)

    async def run(self) -> None:
        """Send the frames of all callers at their deadlines until cancelled."""
        tick = max(0, round((time.monotonic() - self._start) / TICK_S))
        while True:
            due = self._start + tick * TICK_S
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            elif tick % FRAME_SLOTS == 0:
                # A late pacer does not sleep. Yield once per 20 ms of deadlines, so that the event loop reads the
                # sockets.
                await asyncio.sleep(0)
            slot = self._slots[tick % FRAME_SLOTS]
            if slot:
                self._send(tuple(slot), due)
            tick += 1

    def _send(self, callers: Sequence[PacedCaller], due: float) -> None:
        clock, late_s = time.monotonic, self.late_s
        for caller in callers:
            if caller.send_frame(due):
                late_s.append(clock() - due)
