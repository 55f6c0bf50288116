"""The pacer in virtual time: every frame is sent at its deadline, and late frames keep their deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from loadtest.generator.pacer import FramePacer
from tests.actors.virtual_time import VirtualLoop, virtual

FRAME_S = 0.020


@dataclass
class Caller:
    """A caller that records its deadlines and calls `work` at each of them."""

    work: Callable[[], None] = lambda: None
    muted: bool = False
    dues: list[float] = field(default_factory=list)

    def send_frame(self, due: float) -> int:
        self.dues.append(due)
        self.work()
        return 0 if self.muted else 1


def clock() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pacer read the event loop's virtual clock."""
    monkeypatch.setattr(time, "monotonic", clock)


async def run_for(pacer: FramePacer, seconds: float) -> None:
    task = asyncio.create_task(pacer.run())
    await asyncio.sleep(seconds)
    task.cancel()


def stall(seconds: float) -> None:
    """Advance the clock without running the event loop, as if the process were stopped."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._jumping.now += seconds


@virtual
async def test_each_caller_has_its_own_millisecond() -> None:
    """A caller with slot n sends a frame every 20 ms, first n ms after the pacer's start. No frame is late."""
    start = clock()
    pacer, callers = FramePacer(start), {slot: Caller() for slot in (0, 7, 19)}
    for slot, caller in callers.items():
        pacer.join(caller, slot)
    await run_for(pacer, 1.0)
    for slot, caller in callers.items():
        expected = [start + slot / 1000 + number * FRAME_S for number in range(50)]
        assert caller.dues[:50] == pytest.approx(expected)
    assert max(pacer.late_s) == pytest.approx(0, abs=1e-6)


@virtual
async def test_deadlines_are_never_rebased() -> None:
    """After a stall of 300 ms, missed frames are sent and no deadline is moved. Lateness counts from each deadline."""
    start = clock()
    pacer, caller, slow = FramePacer(start), Caller(), Caller()
    slow.work = lambda: stall(0.3) if len(slow.dues) == 10 else None
    pacer.join(slow, 3)
    pacer.join(caller, 5)
    await run_for(pacer, 1.0)
    assert caller.dues == pytest.approx([start + 0.005 + number * FRAME_S for number in range(len(caller.dues))])
    assert len(caller.dues) == 50
    assert max(pacer.late_s) == pytest.approx(0.3, abs=0.001)
    # Each caller has 15 deadlines in the 300 ms of the stall.
    assert sum(late > 0.001 for late in pacer.late_s) == 15 + 15


@virtual
async def test_a_muted_caller_is_not_late() -> None:
    """A muted caller, which sends no frames, has no recorded lateness. A caller that has left is not called again."""
    pacer, muted, left = FramePacer(clock()), Caller(muted=True), Caller()
    pacer.join(muted, 1)
    pacer.join(left, 1)
    pacer.leave(left, 1)
    pacer.leave(left, 1)
    await run_for(pacer, 0.1)
    assert len(muted.dues) == 5
    assert left.dues == []
    assert not pacer.late_s
