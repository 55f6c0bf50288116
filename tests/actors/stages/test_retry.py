"""Tests of `retry_unary`, which repeats failed calls.

An attempt that is late continues while the next one runs. After the result no attempt runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from actors.stages.retry import StageFailures, retry_unary
from rejoinder.core.errors import BackendError, Overloaded
from tests.actors.fakes import CountingMetrics
from tests.actors.virtual_time import virtual

ATTEMPT_S = 4.0
GIVE_UP_S = 60.0


@dataclass
class Script:
    """Call whose n-th attempt (from 0) follows `steps[n]`: a duration in seconds, and an exception or None.

    After the duration, the attempt raises the exception or returns n. Further attempts repeat the last step.
    """

    steps: list[tuple[float, Exception | None]]
    avoided: list[frozenset[str]] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    most: int = 0

    async def __call__(self, avoid: frozenset[str]) -> int:
        number = len(self.avoided)
        self.avoided.append(avoid)
        self.running.add(number)
        self.most = max(self.most, len(self.running))
        try:
            seconds, fault = self.steps[min(number, len(self.steps) - 1)]
            await asyncio.sleep(seconds)
            if fault:
                raise fault
            return number
        finally:
            self.running.remove(number)


async def ask(script: Script, failures: StageFailures | None = None) -> int:
    failures = failures or StageFailures(CountingMetrics())
    return await retry_unary("stt", script, failures, attempt_s=ATTEMPT_S, give_up_s=GIVE_UP_S)


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_failed_attempt_is_repeated_elsewhere() -> None:
    """After a failed attempt the next one avoids the failed replica. After the result the stage counts as recovered."""
    metrics = CountingMetrics()
    failures = StageFailures(metrics)
    script = Script([(0.1, BackendError("gone.", stage="stt", replica="a")), (0.1, Overloaded("full.")), (0.1, None)])
    assert await ask(script, failures) == 2
    assert script.avoided == [frozenset(), frozenset({"a"}), frozenset({"a"})]
    assert not failures.active
    assert metrics.counts == Counter({"backend stt": 1, "overload stt": 1})


@virtual
async def test_a_late_attempt_keeps_its_place() -> None:
    """An attempt that takes over `attempt_s` continues beside the second one, and its result is used if it is first."""
    failures = StageFailures(CountingMetrics())
    script = Script([(ATTEMPT_S + 1, None), (30, None)])
    began = now()
    asking = asyncio.create_task(ask(script, failures))
    await asyncio.sleep(ATTEMPT_S + 0.5)
    late = failures.active
    assert script.running == {0, 1}
    assert await asking == 0
    assert now() - began == pytest.approx(ATTEMPT_S + 1)
    assert (late, failures.active) == (True, False)
    assert script.running == set()


@virtual
async def test_the_second_attempt_may_be_first() -> None:
    """If the first attempt hangs, the result of the second attempt is used."""
    script = Script([(1000, None), (0.5, None)])
    began = now()
    assert await ask(script) == 1
    assert now() - began == pytest.approx(ATTEMPT_S + 0.5, abs=0.1)
    assert script.running == set()


@virtual
async def test_there_are_never_more_than_two() -> None:
    """If attempts hang, at most two run at once: the first and the newest. The first may still give the result."""
    script = Script([(5 * ATTEMPT_S, None), (1000, None)])
    assert await ask(script) == 0
    assert len(script.avoided) > 3
    assert script.most == 2


@virtual
async def test_a_late_attempt_that_fails_does_not_stop_the_second() -> None:
    """If the late first attempt fails while the second one runs, the second continues and no third one is started."""
    fault = BackendError("gone.", stage="stt", replica="a")
    script = Script([(ATTEMPT_S + 1, fault), (2, None)])
    assert await ask(script) == 1
    assert len(script.avoided) == 2


@virtual
async def test_it_gives_up_with_the_last_reason() -> None:
    """After `give_up_s` a BackendError is raised that names the last failure, and no attempt runs any more."""
    script = Script([(0.1, BackendError("no luck.", stage="stt"))])
    began = now()
    with pytest.raises(BackendError, match=r"did not answer for 60 s \(no luck"):
        await ask(script)
    assert now() - began == pytest.approx(GIVE_UP_S)
    assert script.running == set()


@virtual
async def test_cancelling_stops_all_attempts() -> None:
    """Cancelling `retry_unary` cancels every attempt that still runs, also a late one."""
    script = Script([(1000, None)])
    asking = asyncio.create_task(ask(script))
    await asyncio.sleep(ATTEMPT_S + 1)
    assert script.running == {0, 1}
    asking.cancel()
    await asyncio.wait({asking})
    assert script.running == set()


@virtual
async def test_a_bug_is_raised() -> None:
    """An exception that is not a stage fault (BackendError, Overloaded) is raised at once, without another attempt."""
    with pytest.raises(ZeroDivisionError):
        await ask(Script([(0.1, ZeroDivisionError())]))


CALLERS, PLACES, SERVICE_S = 21, 2, 0.5


@virtual
async def test_many_callers_are_served_in_order() -> None:
    """If more callers wait than a stage can serve within one attempt's time, a retry does not lose a caller's turn.

    No caller waits longer than the stage needs to serve every caller once, plus the time of one call.
    """
    served = [0.0] * CALLERS
    free = asyncio.Semaphore(PLACES)
    began = now()

    async def call(_: frozenset[str]) -> None:
        async with free:
            await asyncio.sleep(SERVICE_S)

    async def caller(number: int) -> None:
        while now() - began < 40:
            asked = now()
            await retry_unary("stt", call, StageFailures(CountingMetrics()), attempt_s=2.0, give_up_s=GIVE_UP_S)
            served[number] = max(served[number], now() - asked)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    assert max(served) <= CALLERS * SERVICE_S / PLACES + SERVICE_S
