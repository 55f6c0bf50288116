"""Retries, timeouts and error containment for calls to the stages.

Ray Serve never retries a request that a replica accepted, so this module is the only place that repeats requests.
`attempts` paces the retries of one call. `retry_unary` repeats a unary call (one request, one result) with it. Streams
use `attempts` directly and resume after what they already received (`actors.stages.hedged_llm`,
`actors.replying.speech_output`). `contained` turns a bug behind a port into a logged and counted error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from actors.stages.ports import ANYWHERE, Metrics
from rejoinder.core.errors import BackendError, Overloaded, StageTimeout

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# The exceptions that a port may raise for failures ("stage faults"). Any other exception from a port is a bug.
StageFault = BackendError | Overloaded | TimeoutError
STAGE_FAULTS: tuple[type[Exception], ...] = (BackendError, Overloaded, TimeoutError)

# Pauses between attempts, in seconds. The first pause is short, because a second replica is usually available. Later
# pauses double, because starting a replacement replica takes seconds. Each is shortened by a random part (JITTER), so
# that callers whose attempts failed together do not repeat them together.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
JITTER = 0.5


class StageFailures:
    """The stages whose calls currently fail for one turn. The reply waits for failures here, to apologise in time."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failing: set[str] = set()
        self._began = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()

    @property
    def active(self) -> bool:
        """True while at least one stage fails."""
        return bool(self._failing)

    def failed(self, stage: str, fault: StageFault) -> None:
        """Record a failed call of `stage` that will be repeated, and count the error."""
        self.mark(stage)
        self._metrics.error("overload" if isinstance(fault, Overloaded) else "backend", stage)

    def mark(self, stage: str) -> None:
        """Record that `stage` fails, without counting an error.

        Used if one failed call concerns many conversations: the caller then counts the error once.
        """
        self._failing.add(stage)
        self._began.set()
        self._over.clear()

    def recovered(self, stage: str) -> None:
        """Record that a call of `stage` succeeded. Ignored if the stage did not fail."""
        self._failing.discard(stage)
        if not self._failing:
            self._began.clear()
            self._over.set()

    async def wait_until_active(self) -> None:
        """Wait until at least one stage fails; return at once if one does."""
        await self._began.wait()

    async def wait_until_over(self) -> None:
        """Wait until no stage fails; return at once if none does."""
        await self._over.wait()


class ItemWait:
    """The running timeout of `idle_timeout`, which bounds the wait for a stream's next item."""

    def __init__(self, timeout: asyncio.Timeout, limit_s: float) -> None:
        self._timeout = timeout
        self._limit_s = limit_s

    def pause(self) -> None:
        """Stop the timeout while the caller processes an item."""
        self._timeout.reschedule(None)

    def restart(self) -> None:
        """Start the timeout for the next item."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._limit_s)


@asynccontextmanager
async def idle_timeout(limit_s: float) -> AsyncIterator[ItemWait]:
    """Bound the wait for a stream's opening and for each of its items. Open and read the stream inside the context.

    For each item, call `pause` when it has arrived and `restart` before waiting for the next one.

    Raises:
        TimeoutError: The opening or the next item took longer than `limit_s` seconds.
    """
    async with asyncio.timeout(limit_s) as timeout:
        yield ItemWait(timeout, limit_s)


class Backoff:
    """A pause that doubles with each call, from `first_s` up to `longest_s` seconds, minus a random part of it.

    A constant pause (`first_s` is `longest_s`) has no random part.
    """

    def __init__(self, first_s: float = FIRST_PAUSE_S, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._next_s = first_s
        self._longest_s = longest_s
        self._jitter = JITTER if longest_s > first_s else 0.0

    def next_s(self) -> float:
        """Return the current pause in seconds, and double the next one."""
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, self._longest_s)
        return pause_s * (1 - self._jitter * random.random())  # `random` suffices: jitter need not be secret


def next_timeout(limit_s: float, fault: Exception, left_s: float) -> float:
    """Return the idle timeout in seconds for the next attempt at a stream, after `fault`.

    After a timeout it is twice `limit_s`, but at most `left_s`, the seconds until the last failure is final. A repeated
    request starts at the end of the queue. If the queue takes longer than `limit_s`, attempts of that length would all
    fail and only keep the stage busy.
    """
    return min(2 * limit_s, max(limit_s, left_s)) if isinstance(fault, StageTimeout | TimeoutError) else limit_s


class Attempt:
    """One attempt at a call. Make the call in a `with` block of the attempt.

    If the block raises a covered exception (see `attempts`), the attempt has failed: the exception is reported and not
    propagated. Any other exception propagates. A block that ends without an exception ends the retries.

    Attributes:
        avoid: Replicas that this attempt should not use.
        limit_s: Idle timeout for this attempt, in seconds.
        first: True if no attempt has failed since the call began or made progress.
    """

    def __init__(self, retries: Attempts, avoid: frozenset[str], limit_s: float, *, first: bool) -> None:
        self.avoid = avoid
        self.limit_s = limit_s
        self.first = first
        self._retries = retries

    def failed(self, fault: StageFault) -> None:
        """Report a failure of this attempt, or of an earlier attempt that still runs."""
        self._retries.note_failure(fault)

    def progressed(self) -> None:
        """Report progress. `give_up_s` counts from the next failure, and the idle timeout has its first value again."""
        self._retries.note_progress()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if fault is None:
            self._retries.note_success()
        elif isinstance(fault, BackendError | Overloaded | TimeoutError) and self._retries.covers(fault):
            self.failed(fault)
            return True
        return False


class Attempts:
    """Asynchronous iterator over the attempts at one call of a stage. The function `attempts` creates it."""

    def __init__(
        self,
        stage: str,
        on_failure: Callable[[StageFault], None],
        *,
        limit_s: float,
        give_up_s: float,
        max_attempts: int | None,
        pause: Backoff,
        covered: tuple[type[Exception], ...],
        final: tuple[type[Exception], ...],
        hold: Callable[[], float],
        overload_clears_avoid: bool,
    ) -> None:
        self.last: StageFault | None = None
        self._stage = stage
        self._on_failure = on_failure
        self._first_limit_s = self._limit_s = limit_s
        self._give_up_s = give_up_s
        self._max_attempts = max_attempts
        self._pause = pause
        self._covered = covered
        self._final = final
        self._hold = hold
        self._overload_clears_avoid = overload_clears_avoid
        self._avoid = ANYWHERE
        self._deadline: float | None = None
        self._count = 0
        self._done = False

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        """Return the next attempt, after a pause unless it is the first. If the pause is cancelled, no attempt starts.

        Raises:
            BackendError: `give_up_s` or `max_attempts` is used up, or would be during the pause. The cause of the
                exception is the last failure.
            StopAsyncIteration: The previous attempt succeeded.
        """
        if self._done:
            raise StopAsyncIteration
        held_s = self._hold()
        pause_s = 0.0
        if self._count:
            self._check_limits()
            pause_s = min(self._pause.next_s(), self._left_s)
        if held_s > self._left_s:
            busy = f"{self._stage} did not answer and takes no request for {held_s:.0f} s ({self.last})."
            raise BackendError(busy, stage=self._stage) from self.last
        if held_s or pause_s:
            await asyncio.sleep(max(held_s, pause_s))
        self._count += 1
        return Attempt(self, self._avoid, self._limit_s, first=self._deadline is None)

    def covers(self, fault: Exception) -> bool:
        """Return True if the call is repeated after this exception."""
        return isinstance(fault, self._covered) and not isinstance(fault, self._final)

    def note_success(self) -> None:
        """Record that an attempt succeeded, which ends the iteration."""
        self._done = True

    def note_progress(self) -> None:
        """Count `give_up_s` from the next failure, and reset the idle timeout to its first value."""
        self._deadline = None
        self._limit_s = self._first_limit_s

    def note_failure(self, fault: StageFault) -> None:
        """Report a failure. Choose the replicas that the next attempt avoids, and its idle timeout."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._give_up_s
        self.last = fault
        self._on_failure(fault)
        if isinstance(fault, BackendError):
            self._avoid = frozenset({fault.replica})
        elif isinstance(fault, Overloaded) and self._overload_clears_avoid:
            self._avoid = ANYWHERE
        self._limit_s = next_timeout(self._limit_s, fault, self._deadline - now)

    def _check_limits(self) -> None:
        late = self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline
        if late or self._count == self._max_attempts:
            tried = f"for {self._give_up_s:g} s" if late else f"in {self._count} attempts"
            raise BackendError(f"{self._stage} did not answer {tried} ({self.last}).", stage=self._stage) from self.last

    @property
    def _left_s(self) -> float:
        """Seconds until the next failure is final."""
        if self._deadline is None:
            return self._give_up_s
        return max(0.0, self._deadline - asyncio.get_running_loop().time())


def _never_hold() -> float:
    return 0.0


def attempts(
    stage: str,
    on_failure: Callable[[StageFault], None],
    *,
    limit_s: float = math.inf,
    give_up_s: float = math.inf,
    max_attempts: int | None = None,
    pause: Backoff | None = None,
    covered: tuple[type[Exception], ...] = STAGE_FAULTS,
    final: tuple[type[Exception], ...] = (),
    hold: Callable[[], float] = _never_hold,
    overload_clears_avoid: bool = False,
) -> Attempts:
    """Return an asynchronous iterator over the attempts at one call of a stage.

    It pauses between attempts, and ends after an attempt whose `with` block ended without an exception:

        async for attempt in attempts("tts", on_failure, give_up_s=60):
            with attempt:
                result = await call(avoid=attempt.avoid)
        use(result)

    Each attempt avoids the replica that failed last. Breaking out of the loop needs no clean-up.

    Args:
        stage: The stage's name, for the error message.
        on_failure: Called with each failure, before the pause.
        limit_s: Idle timeout of a stream, in seconds. `Attempt.limit_s` starts with it and grows after timeouts
            (`next_timeout`). The caller applies it.
        give_up_s: Seconds from the first failure (or the first after progress). A later failure is final.
        max_attempts: Number of attempts after which the failure is final; None means no limit.
        pause: The pause between attempts; the default grows from FIRST_PAUSE_S to LONGEST_PAUSE_S.
        covered: The exceptions after which the call is repeated.
        final: Exceptions among the covered ones after which it is not repeated.
        hold: Returns the seconds for which no attempt may start, asked before each one. If they last longer than
            `give_up_s` allows, the call fails at once.
        overload_clears_avoid: True if, after an `Overloaded`, the next attempt may use every replica again.

    Raises:
        BackendError: Raised by the iteration if `give_up_s` or `max_attempts` is used up.
    """
    return Attempts(
        stage,
        on_failure,
        limit_s=limit_s,
        give_up_s=give_up_s,
        max_attempts=max_attempts,
        pause=pause or Backoff(),
        covered=covered,
        final=final,
        hold=hold,
        overload_clears_avoid=overload_clears_avoid,
    )


async def retry_unary(
    stage: str,
    call: Callable[[frozenset[str]], Awaitable[Result]],
    failures: StageFailures,
    *,
    attempt_s: float,
    give_up_s: float,
) -> Result:
    """Return the first successful result of `call(avoid)`. Cancelling stops every running attempt.

    A failed attempt is repeated. If an attempt is late, a second one is started and the late one continues (see
    `_UnaryAttempts`). The call must have no side effects, because it may run more than once.

    Args:
        stage: The stage's name, for `failures` and the error message.
        call: Starts one attempt that does not use the replicas in its argument.
        failures: Records every failed attempt, and the success.
        attempt_s: Seconds after which an attempt counts as late.
        give_up_s: Seconds from the start of the call after which it fails. Running attempts are then cancelled.

    Raises:
        BackendError: No attempt succeeded within `give_up_s`.
        Exception: Any exception of `call` that is not a BackendError, Overloaded or TimeoutError is raised as it is.
    """
    unary = _UnaryAttempts(stage, call, failures, attempt_s)
    try:
        async with asyncio.timeout(give_up_s):
            return await unary.result()
    except TimeoutError:
        raise BackendError(f"{stage} did not answer for {give_up_s:g} s ({unary.last}).", stage=stage) from unary.last
    finally:
        await unary.stop()


class _UnaryAttempts(Generic[Result]):
    """The attempts at one unary call. A failed attempt is repeated. If an attempt is late, a second one is started.

    The first late attempt continues. In an overloaded stage, a request that is cancelled and repeated starts at the end
    of the queue each time, so the requests that have waited longest would be answered last or never.
    """

    def __init__(
        self, stage: str, call: Callable[[frozenset[str]], Awaitable[Result]], failures: StageFailures, attempt_s: float
    ) -> None:
        self._call = call
        self._attempt_s = attempt_s
        self._running: list[asyncio.Future[Result]] = []
        self._attempts = attempts(stage, partial(failures.failed, stage))
        self._recovered = partial(failures.recovered, stage)

    @property
    def last(self) -> StageFault | None:
        """The latest failure; None if there was none."""
        return self._attempts.last

    async def result(self) -> Result:
        """Return the first successful result. Exceptions that are not stage faults propagate."""
        async for attempt in self._attempts:
            with attempt:
                winner = await self._first(attempt)
        self._recovered()
        return winner.result()

    async def stop(self) -> None:
        """Cancel the attempts that still run, and wait until they have ended."""
        for running in self._running:
            running.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _first(self, attempt: Attempt) -> asyncio.Future[Result]:
        """Start an attempt. Return the first of all running attempts that ends without a stage fault.

        Raises:
            BackendError, Overloaded, TimeoutError: The newest attempt failed, or is late.
        """
        loop = asyncio.get_running_loop()
        newest = asyncio.ensure_future(self._call(attempt.avoid))
        self._running.append(newest)
        late_at = loop.time() + self._attempt_s
        while True:
            left_s = max(0.0, late_at - loop.time())
            done, _ = await asyncio.wait(self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for finished in done - {newest}:
                if (fault := _stage_fault(finished)) is None:
                    return finished
                self._running.remove(finished)
                attempt.failed(fault)
            if newest in done:
                if (fault := _stage_fault(newest)) is None:
                    return newest
                self._running.remove(newest)
                raise fault
            if not done:
                if newest is not self._running[0]:
                    self._running.remove(newest)
                    newest.cancel()
                    await asyncio.wait({newest})
                raise TimeoutError(f"no answer for {self._attempt_s:g} s")


def _stage_fault(finished: asyncio.Future[Result]) -> StageFault | None:
    fault = finished.exception()
    return fault if isinstance(fault, BackendError | Overloaded | TimeoutError) else None


class Containment:
    """Context manager of the function `contained`. It logs and counts an exception of its block and suppresses it.

    Attributes:
        broke: True if the `with` block raised an exception.
    """

    def __init__(self, stage: str, metrics: Metrics, what: str, quiet: bool) -> None:
        self.broke = False
        self._stage = stage
        self._metrics = metrics
        self._what = what
        self._quiet = quiet

    def __enter__(self) -> Containment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(fault, Exception):
            return False
        self.broke = True
        self._metrics.error("internal", self._stage)
        if not self._quiet:
            logger.error("unexpected exception in %s", self._what, exc_info=fault)
        return True


def contained(stage: str, metrics: Metrics, *, what: str = "", quiet: bool = False) -> Containment:
    """Return a context manager that logs and counts any exception of its block, and does not propagate it.

    This is the only protection against bugs: a bug behind a port must not end a session or the host. Handle the
    failures that a port may raise (stage faults) inside the block. Cancellation propagates.

    Args:
        stage: Label of the error count (`Metrics.error("internal", stage)`).
        metrics: Counts the error.
        what: Where the exception occurred, for the log message; by default the stage's port.
        quiet: Whether to count the exception without logging it.
    """
    return Containment(stage, metrics, what or f"the {stage} port", quiet)
