"""The pacing wheel in virtual time: every frame at its millisecond, whatever came before."""

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
    """Remembers its deadlines; `work` happens at each of them."""

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
    """The wheel reads the loop's clock instead of the machine's."""
    monkeypatch.setattr(time, "monotonic", clock)


async def turn(wheel: FramePacer, seconds: float) -> None:
    task = asyncio.create_task(wheel.run())
    await asyncio.sleep(seconds)
    task.cancel()


def stall(seconds: float) -> None:
    """The process stands still: the clock goes on, and nothing else does."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._jumping.now += seconds


@virtual
async def test_each_caller_has_its_own_millisecond() -> None:
    """A frame every 20 ms at start + slot, and none is late."""
    start = clock()
    wheel, callers = FramePacer(start), {slot: Caller() for slot in (0, 7, 19)}
    for slot, caller in callers.items():
        wheel.join(caller, slot)
    await turn(wheel, 1.0)
    for slot, caller in callers.items():
        expected = [start + slot / 1000 + number * FRAME_S for number in range(50)]
        assert caller.dues[:50] == pytest.approx(expected)
    assert max(wheel.late_s) == pytest.approx(0, abs=1e-6)


@virtual
async def test_deadlines_are_never_rebased() -> None:
    """A stall of 300 ms: the deadlines stay, none is left out, and each late frame counts from its own."""
    start = clock()
    wheel, caller, slow = FramePacer(start), Caller(), Caller()
    slow.work = lambda: stall(0.3) if len(slow.dues) == 10 else None
    wheel.join(slow, 3)
    wheel.join(caller, 5)
    await turn(wheel, 1.0)
    assert caller.dues == pytest.approx([start + 0.005 + number * FRAME_S for number in range(len(caller.dues))])
    assert len(caller.dues) == 50
    assert max(wheel.late_s) == pytest.approx(0.3, abs=0.001)
    # Of each caller 15 deadlines lie in the 300 ms that begin with the slow one's tenth.
    assert sum(late > 0.001 for late in wheel.late_s) == 15 + 15


@virtual
async def test_a_muted_caller_is_not_late() -> None:
    """What sends nothing is measured by nothing; and who left is not asked again."""
    wheel, muted, gone = FramePacer(clock()), Caller(muted=True), Caller()
    wheel.join(muted, 1)
    wheel.join(gone, 1)
    wheel.leave(gone, 1)
    wheel.leave(gone, 1)
    await turn(wheel, 0.1)
    assert len(muted.dues) == 5
    assert gone.dues == []
    assert not wheel.late_s
