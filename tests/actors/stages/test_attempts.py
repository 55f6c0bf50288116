"""Tests of `attempts`, which paces and ends the retries of a call, and of `contained`.

`contained` keeps an unexpected exception of a stage from ending a session.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from itertools import pairwise

import pytest

from actors.stages.retry import LONGEST_PAUSE_S, Attempts, Backoff, StageFault, attempts, contained
from rejoinder.core.errors import BackendError, Overloaded, StageTimeout
from tests.actors.fakes import CountingMetrics
from tests.actors.virtual_time import virtual

ON_A = BackendError("gone.", stage="tts", replica="a")
FULL = Overloaded("full.")


def ignore(fault: StageFault) -> None:
    """Do nothing; for tests that do not record failures."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def avoided(retries: Attempts, faults: list[Exception | None]) -> list[frozenset[str]]:
    """Make an attempt for each item of `faults`, which fails with this exception or (None) succeeds.

    Return the set of replicas that each attempt avoids.
    """
    found = []
    script = iter(faults)
    async for attempt in retries:
        found.append(attempt.avoid)
        with attempt:
            if fault := next(script):
                raise fault
    return found


@virtual
async def test_the_pause_doubles_up_to_a_limit() -> None:
    """The first attempt starts at once. The pauses after it are at most 20, 40, 80, 160, 320, 500 and 500 ms.

    Each pause is a random time between half of its maximum and the maximum, so that callers do not retry in step.
    """
    started: list[float] = []
    async for attempt in attempts("tts", ignore):
        started.append(now())
        with attempt:
            if len(started) < 8:
                raise ON_A
    pauses = [later - earlier for earlier, later in pairwise(started)]
    longest = [0.02, 0.04, 0.08, 0.16, 0.32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert all(0.499 * most <= pause <= 1.001 * most for pause, most in zip(pauses, longest, strict=True))
    assert len({round(pause / most, 3) for pause, most in zip(pauses, longest, strict=True)}) > 1


@virtual
async def test_an_attempt_avoids_the_replica_that_failed_last() -> None:
    """The next attempt avoids the replica that failed last.

    If `overload_clears_avoid` is set, an Overloaded error lets the next attempt use every replica.
    """
    on_a, on_b = frozenset({"a"}), frozenset({"b"})
    faults: list[Exception | None] = [ON_A, FULL, BackendError("gone.", stage="tts", replica="b"), TimeoutError(), None]
    assert await avoided(attempts("tts", ignore), faults) == [frozenset(), on_a, on_a, on_b, on_b]
    cleared = attempts("tts", ignore, overload_clears_avoid=True)
    assert await avoided(cleared, faults) == [frozenset(), on_a, frozenset(), on_b, on_b]


@virtual
async def test_every_failure_is_reported_once() -> None:
    """`on_failure` is called once with each failure, in order."""
    seen: list[StageFault] = []
    await avoided(attempts("tts", seen.append), [ON_A, FULL, None])
    assert seen == [ON_A, FULL]


@virtual
async def test_the_time_to_give_up_counts_from_the_first_failure_since_progress() -> None:
    """After ten seconds of failures (`give_up_s`) BackendError is raised.

    The ten seconds count from the first failure after the last progress.
    """
    began = now()

    async def fail_for_ever() -> None:
        progressed = False
        async for attempt in attempts("tts", ignore, give_up_s=10, pause=Backoff(1, longest_s=1)):
            with attempt:
                if not progressed and now() - began > 8:
                    attempt.progressed()
                    progressed = True
                raise ON_A

    with pytest.raises(BackendError, match=r"tts did not answer for 10 s \(gone") as raised:
        await fail_for_ever()
    assert now() - began == pytest.approx(9 + 10)
    assert raised.value.__cause__ is ON_A
    assert raised.value.stage == "tts"


@virtual
async def test_a_number_of_attempts_is_final() -> None:
    """After `max_attempts` attempts BackendError is raised, without another pause."""
    began = now()
    with pytest.raises(BackendError, match="in 3 attempts"):
        await avoided(attempts("tts", ignore, max_attempts=3, pause=Backoff(1, longest_s=1)), [ON_A] * 3)
    assert now() - began == pytest.approx(2)


@virtual
async def test_the_idle_timeout_doubles_after_a_timeout_only() -> None:
    """The idle timeout doubles after a timeout, and not after other failures. It is at most the time that is left.

    After progress it starts again from its first value.
    """
    limits = []
    late = StageTimeout("late.", stage="tts", replica="a")
    script = iter([late, ON_A, TimeoutError(), late, late, None])
    async for attempt in attempts("tts", ignore, limit_s=4, give_up_s=30, pause=Backoff(0, longest_s=0)):
        limits.append(attempt.limit_s)
        with attempt:
            if len(limits) == 5:
                attempt.progressed()
            if fault := next(script):
                raise fault
    assert limits == [4, 8, 8, 16, 30, 8]


@virtual
async def test_other_exceptions_propagate() -> None:
    """After an exception that is not in `covered`, the call is not repeated, and the exception propagates."""
    with pytest.raises(ZeroDivisionError):
        await avoided(attempts("tts", ignore), [ZeroDivisionError()])
    with pytest.raises(Overloaded):
        await avoided(attempts("tts", ignore, covered=(BackendError,)), [ON_A, FULL])


def test_a_contained_exception_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a `contained` block is logged and counted, and `broke` is True. Otherwise `broke` is False."""
    metrics = CountingMetrics()
    with contained("llm", metrics) as port:
        raise ZeroDivisionError
    assert port.broke
    with contained("llm", metrics) as port:
        pass
    assert not port.broke
    assert metrics.counts == Counter({"internal llm": 1})
    [record] = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "unexpected exception in the llm port")
    assert record.exc_info is not None


@virtual
async def test_cancellation_is_not_contained() -> None:
    """Cancellation propagates out of a contained block, and is not counted as an error."""
    metrics = CountingMetrics()

    async def guarded() -> None:
        with contained("llm", metrics):
            await asyncio.sleep(1)

    task = asyncio.create_task(guarded())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not metrics.counts
