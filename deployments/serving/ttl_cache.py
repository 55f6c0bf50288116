"""An answer that is good for a while, asked for by many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class TtlCache(Generic[Answer]):
    """What `ask` answered, for `keep_s` seconds; who comes meanwhile, or while it is asked, gets the same answer."""

    def __init__(
        self, ask: Callable[[], Awaitable[Answer]], keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._clock = clock
        self._held: tuple[float, Answer] | None = None
        self._one = asyncio.Lock()

    async def __call__(self) -> Answer:
        """The answer; what `ask` raises is raised, and not kept."""
        async with self._one:
            if self._held is None or self._clock() - self._held[0] >= self._keep_s:
                self._held = (self._clock(), await self._ask())
            return self._held[1]
