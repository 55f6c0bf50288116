"""An answer that many ask for is asked for once, and kept for as long as was said."""

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
    """Answers with how often it was asked, and only when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        await self.open.wait()
        if self.fault:
            raise self.fault
        return self.asked


async def test_it_is_asked_again_when_its_time_is_over() -> None:
    """The answer stands until `keep_s` after it was asked for."""
    clock, source = Clock(), Source()
    remembered = TtlCache(source, 1.0, clock)
    assert [await remembered(), await remembered()] == [1, 1]
    clock.now += 0.99
    assert await remembered() == 1
    clock.now += 0.01
    assert await remembered() == 2


async def test_who_comes_while_it_is_asked_waits_for_the_same_answer() -> None:
    """Fifty at once are one question; one of them who leaves takes nothing from the others."""
    source = Source()
    source.open.clear()
    remembered = TtlCache(source, 1.0, Clock())
    waiting = [asyncio.create_task(remembered()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting.pop(7).cancel()
    source.open.set()
    assert await asyncio.gather(*waiting) == [1] * 49


async def test_a_failure_is_told_and_not_kept() -> None:
    """The next one asks anew."""
    source = Source()
    source.fault = TimeoutError("late")
    remembered = TtlCache(source, 1.0, Clock())
    with pytest.raises(TimeoutError, match="late"):
        await remembered()
    source.fault = None
    assert await remembered() == 2


async def test_whoever_asked_may_leave() -> None:
    """The question of one who left is put again by the next."""
    source = Source()
    source.open.clear()
    remembered = TtlCache(source, 1.0, Clock())
    first, second = asyncio.create_task(remembered()), asyncio.create_task(remembered())
    await asyncio.sleep(0)
    first.cancel()
    source.open.set()
    assert await second == 2
