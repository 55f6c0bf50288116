"""Asking a stage again when its replica failed: on another one, until it answers or the turn is given up.

Ray Serve never retries an accepted request, so this is the only place where one is repeated. Unary calls (voice
activity, turn verdict, transcript) are pure, so repeating is safe; streams carry on from what was already received
(see `hedge` and `voice`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from actors.stages.ports import Metrics
from rejoinder.core.errors import BackendError, Overloaded, StageTimeout

Result = TypeVar("Result")

# Pause between attempts: short, because a second replica is usually there; doubling, because a replacement takes
# seconds.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5


class StageFailures:
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


class ItemWait:
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
async def patience(limit_s: float) -> AsyncIterator[ItemWait]:
    """Open and read a stream inside: TimeoutError once it, or its next item, was awaited for `limit_s`."""
    async with asyncio.timeout(limit_s) as timeout:
        yield ItemWait(timeout, limit_s)


class Backoff:
    """The growing pause between attempts."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    async def __call__(self) -> None:
        await asyncio.sleep(self._next_s)
        self._next_s = min(self._next_s * 2, LONGEST_PAUSE_S)


def next_timeout(limit_s: float, fault: Exception, left_s: float) -> float:
    """What to allow a stream that is asked for again after `fault`: twice as long if that was lateness, but no more
    than is `left_s`.

    It has lost its place in the queue. If the stage needs longer than `limit_s` for all that it has to do, attempts of
    that length would all end in vain, and it would be busy with nothing else.
    """
    return min(2 * limit_s, max(limit_s, left_s)) if isinstance(fault, StageTimeout | TimeoutError) else limit_s


async def retry_unary(
    stage: str,
    call: Callable[[frozenset[str]], Awaitable[Result]],
    trouble: StageFailures,
    *,
    attempt_s: float,
    give_up_s: float,
) -> Result:
    """Repeat `call(avoid)` until it succeeds; raises BackendError after `give_up_s`. Cancelling stops what runs."""
    attempts = _Attempts(stage, call, trouble, attempt_s)
    try:
        async with asyncio.timeout(give_up_s):
            return await attempts.answer()
    except TimeoutError:
        raise BackendError(
            f"{stage} stayed away for {give_up_s:g} s ({attempts.last}).", stage=stage
        ) from attempts.last
    finally:
        await attempts.stop()


class _Attempts(Generic[Result]):
    """At one call: a failed attempt is repeated, and beside a late one a second is made.

    The first attempt that is late is kept. Where a stage has too much to do, the callers who have waited longest would
    else go to the end of its queue, again and again, and be answered last or never.
    """

    def __init__(
        self, stage: str, call: Callable[[frozenset[str]], Awaitable[Result]], trouble: StageFailures, attempt_s: float
    ) -> None:
        self.last: Exception | None = None
        self._stage = stage
        self._call = call
        self._trouble = trouble
        self._attempt_s = attempt_s
        self._avoid: frozenset[str] = frozenset()
        self._running: list[asyncio.Future[Result]] = []

    async def answer(self) -> Result:
        """Of the attempt that succeeds first; raises what is no failure of a backend."""
        pause = Backoff()
        while True:
            newest = asyncio.ensure_future(self._call(self._avoid))
            self._running.append(newest)
            if (winner := await self._settled(newest)) is not None:
                self._trouble.recovered(self._stage)
                return winner.result()
            await pause()

    async def stop(self) -> None:
        """Cancel what still runs."""
        for attempt in self._running:
            attempt.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _settled(self, newest: asyncio.Future[Result]) -> asyncio.Future[Result] | None:
        """The first to succeed; None when the newest attempt has failed or is late."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._attempt_s
        while newest in self._running:
            left_s = max(0.0, due - loop.time())
            done, _ = await asyncio.wait(self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                if not self._failed(attempt):
                    return attempt
            if not done:
                self._note(TimeoutError(f"no answer for {self._attempt_s:g} s"))
                if newest is not self._running[0]:
                    self._running.remove(newest)
                    newest.cancel()
                    await asyncio.wait({newest})
                break
        return None

    def _failed(self, attempt: asyncio.Future[Result]) -> bool:
        """Whether it has, as backends do; then it is noted, and no more among those that run."""
        fault = attempt.exception()
        if not isinstance(fault, BackendError | Overloaded | TimeoutError):
            return False
        self._running.remove(attempt)
        if isinstance(fault, BackendError):
            self._avoid = frozenset({fault.replica})
        self._note(fault)
        return True

    def _note(self, fault: BackendError | Overloaded | TimeoutError) -> None:
        self.last = fault
        self._trouble.failed(self._stage, fault)
