"""Tests of the TTL cache."""

from __future__ import annotations

import asyncio

import pytest

from deployments.serving.ttl_cache import TtlCache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Function whose answer is cached. It waits until `open` is set, and returns how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        await self.open.wait()
        if self.error:
            raise self.error
        return self.calls


async def test_an_answer_expires() -> None:
    """An answer is valid for `keep_s` seconds from the start of its call."""
    clock, source = Clock(), Source()
    cached = TtlCache(source, 1.0, clock)
    assert [await cached(), await cached()] == [1, 1]
    clock.now += 0.99
    assert await cached() == 1
    clock.now += 0.01
    assert await cached() == 2


async def test_concurrent_callers_share_one_call() -> None:
    """Fifty concurrent tasks make one call of the source, and a task that is cancelled does not affect the others."""
    source = Source()
    source.open.clear()
    cached = TtlCache(source, 1.0, Clock())
    waiting = [asyncio.create_task(cached()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting.pop(7).cancel()
    source.open.set()
    assert await asyncio.gather(*waiting) == [1] * 49


async def test_an_error_is_raised_and_not_kept() -> None:
    """An error is raised in the task that called the source, and the next task calls the source again."""
    source = Source()
    source.error = TimeoutError("late")
    cached = TtlCache(source, 1.0, Clock())
    with pytest.raises(TimeoutError, match="late"):
        await cached()
    source.error = None
    assert await cached() == 2


async def test_a_cancelled_call_is_repeated() -> None:
    """If the task that called the source is cancelled, the next task calls the source again."""
    source = Source()
    source.open.clear()
    cached = TtlCache(source, 1.0, Clock())
    first, second = asyncio.create_task(cached()), asyncio.create_task(cached())
    await asyncio.sleep(0)
    first.cancel()
    source.open.set()
    assert await second == 2
