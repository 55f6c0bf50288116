"""Cache for the result of one async function, valid for a limited time; concurrent callers share one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class TtlCache(Generic[Answer]):
    """Callable that returns the latest answer of `ask`, and calls `ask` only if the answer is older than `keep_s`.

    A call that comes while `ask` runs waits for the answer of that run.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Answer]], keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create an empty cache.

        Args:
            ask: The async function whose answer is cached.
            keep_s: How long an answer is valid, in seconds from the start of the call of `ask`.
            clock: Returns the time in seconds.
        """
        self._ask = ask
        self._keep_s = keep_s
        self._clock = clock
        self._latest: tuple[float, Answer] | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> Answer:
        """Return the answer. An error of `ask` is raised only in the call that ran `ask`, and is not cached."""
        async with self._lock:
            if self._latest is None or self._clock() - self._latest[0] >= self._keep_s:
                self._latest = (self._clock(), await self._ask())
            return self._latest[1]
