"""Virtual time, whose clock jumps to the next event: an event loop for coroutines, and a queue of functions."""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

Result = TypeVar("Result")


class _JumpingSelector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("no task is ready and no timer is set")
        self.now += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Event loop without files, whose clock starts at 0 and moves only by jumps."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now


def run_jumping(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time, and return its result."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


class EventQueue:
    """Queue of functions that run in virtual time.

    Attributes:
        now: The virtual time in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, job: Callable[[], None]) -> None:
        """Run `job` in so many seconds."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), job))

    def run(self, until: float) -> None:
        """Run all jobs until the time `until`."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, job = heapq.heappop(self._heap)
            job()
