"""Event loop that skips idle time: engines run at their own speed, and nobody waits while a test caller speaks.

The loop's clock runs while a job runs in a thread (`run_in_executor`, as every engine does) or while callbacks run. If
nothing runs and the next thing is a timer, the clock jumps to it. So 10 s of a conversation take as long as the engines
compute, and every duration that the conversation sees is the real one.

On a machine that other programs load, real time is too long. `Pace.CPU` advances the clock by the CPU time of this
process instead, divided by the number of jobs that run, at most one per core. A job with several threads then counts
too much, so the result is an upper estimate.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from enum import Enum
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Pace(Enum):
    """What the clock follows while something runs. REAL: real time. CPU: the process's CPU time per running job."""

    REAL = "real"
    CPU = "cpu"


class SkippingSelector(selectors.DefaultSelector):
    """Selector that jumps over a wait instead of waiting, unless jobs run or wait in threads.

    Attributes:
        now: The clock in seconds.
        jobs: Number of jobs that run or wait in threads.
    """

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.now = 0.0
        self.jobs = 0
        self._measure = time.monotonic if pace is Pace.REAL else time.process_time
        self._shares = pace is Pace.CPU
        self._cores = os.cpu_count() or 1
        self._running = 0
        self._lock = threading.Lock()
        self._last = self._measure()

    def advance(self) -> float:
        """Advance the clock by the time that was measured since the last call, and return the clock in seconds."""
        with self._lock:
            return self._advance()

    def _advance(self) -> float:
        measured = self._measure()
        sharing = min(self._cores, max(1, self._running)) if self._shares else 1
        self.now += (measured - self._last) / sharing
        self._last = measured
        return self.now

    def running(self, change: int) -> None:
        """Note that a job has started (1) or ended (-1). Called from the job's thread."""
        with self._lock:
            self._advance()
            self._running += change

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready files.

        While a job runs or waits in a thread, wait in real time. Otherwise advance the clock by `timeout` seconds.
        """
        if timeout is None or timeout <= 0 or self.jobs:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            with self._lock:
                self.now += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """Event loop with a `SkippingSelector`. Its clock starts at 0."""

    def __init__(self, pace: Pace = Pace.REAL) -> None:
        """Create a loop whose clock follows `pace` while something runs."""
        self._skipping = SkippingSelector(pace)
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._skipping.advance()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """Run a job in a thread. The clock does not jump until the job has ended, even if its caller was cancelled."""
        if executor is None:
            return super().run_in_executor(None, func, *args)

        def counted() -> Result:
            self._skipping.running(1)
            try:
                return func(*args)
            finally:
                self._skipping.running(-1)

        self._skipping.jobs += 1
        job = executor.submit(counted)
        # The future must learn of the end first. Between the two callbacks the loop would see no job and no result.
        result = asyncio.wrap_future(job, loop=self)
        job.add_done_callback(lambda _: self._ended_soon())
        return result

    def _ended_soon(self) -> None:
        """Tell the loop from a job's thread that the job has ended. Do nothing if the loop is closed already."""
        if not self.is_closed():
            self.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        self._skipping.jobs -= 1


def run_skipping(main: Coroutine[Any, Any, Result], pace: Pace = Pace.REAL) -> Result:
    """Run a coroutine in a loop that skips idle time, and return its result."""
    with asyncio.Runner(loop_factory=lambda: SkippingLoop(pace)) as runner:
        return runner.run(main)
