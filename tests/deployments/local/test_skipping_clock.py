"""Tests of the event loop that skips idle time, and whose clock runs only while jobs run in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from deployments.local.skipping_clock import Pace, run_skipping


@pytest.mark.parametrize("pace", list(Pace))
def test_a_wait_is_skipped(pace: Pace) -> None:
    """An hour of sleep takes less than 5 s of real time, and the loop's clock has advanced by an hour."""
    before = time.monotonic()

    async def sleeps() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - began

    assert run_skipping(sleeps(), pace) == pytest.approx(3600, abs=1)
    assert time.monotonic() - before < 5


def test_the_clock_does_not_jump_while_a_job_runs_in_a_thread() -> None:
    """While a job of 0.2 s runs in a thread, the loop's clock does not skip to a timer of 10 s."""

    async def works() -> tuple[float, bool]:
        loop = asyncio.get_running_loop()
        timer = asyncio.create_task(asyncio.sleep(10))
        began = loop.time()
        with ThreadPoolExecutor(1) as pool:
            await loop.run_in_executor(pool, time.sleep, 0.2)
        took = loop.time() - began
        early = not timer.done()
        timer.cancel()
        return took, early

    took, early = run_skipping(works())
    assert 0.2 <= took < 2
    assert early


def test_a_cancelled_job_is_waited_for_and_then_the_clock_jumps_again() -> None:
    """While a cancelled job still runs in its thread, the clock skips no time. After the job's end it skips again."""
    release = threading.Event()

    async def cancels() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1)
        job = loop.run_in_executor(pool, release.wait)
        await asyncio.sleep(0)
        job.cancel()
        threading.Timer(0.3, release.set).start()
        began = time.monotonic()
        await asyncio.sleep(0.2)
        held_s = time.monotonic() - began
        await asyncio.sleep(0.5)  # the job ends meanwhile
        began = time.monotonic()
        await asyncio.sleep(1000)
        return held_s, time.monotonic() - began

    held_s, jumped_s = run_skipping(cancels())
    assert held_s >= 0.19
    assert jumped_s < 5


def test_the_pace_of_cpu_time_ignores_that_a_job_waits() -> None:
    """With Pace.CPU, a job that sleeps for 0.3 s advances the loop's clock by less than 0.25 s.

    A sleep uses almost no CPU time; the rest is a tolerance.
    """

    async def works() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with ThreadPoolExecutor(1) as pool:
            await loop.run_in_executor(pool, time.sleep, 0.3)
        return loop.time() - began

    assert run_skipping(works(), Pace.CPU) < 0.25


def test_the_result_arrives_before_the_clock_may_jump() -> None:
    """The loop learns a job's result before it counts the job as ended, so no timer runs in between."""

    class SlowBetweenCallbacks(ThreadPoolExecutor):
        """Executor whose futures sleep for 50 ms behind each done callback."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            add = future.add_done_callback

            def slowly(callback: Callable[[Future[Any]], Any]) -> None:
                add(callback)
                add(lambda _: time.sleep(0.05))

            future.add_done_callback = slowly  # type: ignore[method-assign, assignment]  # this one future
            return future

    async def works() -> float:
        loop = asyncio.get_running_loop()
        timer = asyncio.create_task(asyncio.sleep(10))
        with SlowBetweenCallbacks(1) as pool:
            await loop.run_in_executor(pool, time.sleep, 0.1)
        timer.cancel()
        return loop.time()

    assert run_skipping(works()) < 2
