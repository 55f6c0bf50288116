"""Asking a stage again when its replica failed: on another one, until it answers or the turn is given up.

Ray Serve never retries an accepted request, so this is the only place where one is repeated. Unary calls (voice
activity, turn verdict, transcript) are pure, so repeating is safe; streams carry on from what was already received
(see `hedge` and `voice`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from actors.ports import Metrics
from rejoinder.core.errors import BackendError, Overloaded

Result = TypeVar("Result")

# Pause between attempts: short, because a second replica is usually there; doubling, because a replacement takes
# seconds.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5


class Trouble:
    """Which stages fail a turn right now; the reply watches it to apologise in time."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failing: set[str] = set()
        self._began = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()

    @property
    def active(self) -> bool:
        return bool(self._failing)

    def failed(self, stage: str, fault: BackendError | Overloaded | TimeoutError) -> None:
        """A call of `stage` failed and will be repeated."""
        self.away(stage)
        self._metrics.error("overload" if isinstance(fault, Overloaded) else "backend", stage)

    def away(self, stage: str) -> None:
        """A stage that many conversations share is failing; who asks it counts the error, once."""
        self._failing.add(stage)
        self._began.set()
        self._over.clear()

    def recovered(self, stage: str) -> None:
        """The stage answered again."""
        self._failing.discard(stage)
        if not self._failing:
            self._began.clear()
            self._over.set()

    async def wait(self) -> None:
        """Until some stage fails."""
        await self._began.wait()

    async def over(self) -> None:
        """Until no stage fails."""
        await self._over.wait()


class Waiting:
    """The wait for a stream's next item, while `patience` lasts."""

    def __init__(self, timeout: asyncio.Timeout, limit_s: float) -> None:
        self._timeout = timeout
        self._limit_s = limit_s

    def pause(self) -> None:
        """What takes time now is not the stream."""
        self._timeout.reschedule(None)

    def restart(self) -> None:
        """The next item is awaited."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._limit_s)


@asynccontextmanager
async def patience(limit_s: float) -> AsyncIterator[Waiting]:
    """Open and read a stream inside: TimeoutError once it, or its next item, was awaited for `limit_s`."""
    async with asyncio.timeout(limit_s) as timeout:
        yield Waiting(timeout, limit_s)


class Pause:
    """The growing pause between attempts."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    async def __call__(self) -> None:
        await asyncio.sleep(self._next_s)
        self._next_s = min(self._next_s * 2, LONGEST_PAUSE_S)


async def insist(
    stage: str,
    call: Callable[[frozenset[str]], Awaitable[Result]],
    trouble: Trouble,
    *,
    attempt_s: float,
    give_up_s: float,
) -> Result:
    """Repeat `call(avoid)` until it succeeds; raises BackendError after `give_up_s`. Cancelling stops the running
    attempt.
    """
    avoid: frozenset[str] = frozenset()
    pause = Pause()
    last: Exception | None = None
    try:
        async with asyncio.timeout(give_up_s):
            while True:
                try:
                    async with asyncio.timeout(attempt_s):
                        result = await call(avoid)
                except (BackendError, Overloaded, TimeoutError) as fault:
                    last = fault
                    trouble.failed(stage, fault)
                    avoid = frozenset({fault.replica}) if isinstance(fault, BackendError) else avoid
                else:
                    trouble.recovered(stage)
                    return result
                await pause()
    except TimeoutError:
        raise BackendError(f"{stage} stayed away for {give_up_s:g} s ({last}).", stage=stage) from last
