"""Requests to replicas that fail soon if the replica is silent, for example because its process is stopped.

A replica that is only slow is waited for. If a replica does not answer a request for a while, it is pinged, and the
request fails only if the ping is not answered either.

`rejoinder.core.resilience.silent_replicas` decides how long to wait for an answer before the replica is pinged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rejoinder.core.errors import BackendError, RejoinderError
from rejoinder.core.resilience.silent_replicas import SilentReplicas

Result = TypeVar("Result")

# Seconds that a replica has to answer a ping.
PING_S = 0.3


class SilenceWatch:
    """Waits for the answers of one stage, and gives up a request to a replica that is silent."""

    def __init__(
        self, stage: str, ping: Callable[[str], Awaitable[object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a watch.

        Args:
            stage: Name of the stage, for errors.
            ping: Returns when the replica with this id has answered, or raises a RejoinderError.
            clock: Returns the monotonic time, in seconds.
        """
        self._stage = stage
        self._ping = ping
        self._clock = clock
        self._silent = SilentReplicas()

    def avoid(self, avoid: frozenset[str]) -> frozenset[str]:
        """Return the replicas that a request should not use: those in `avoid`, and the silent ones."""
        return avoid | self._silent.avoid(self._clock())

    async def result(self, answer: Awaitable[Result], replica: Callable[[], str]) -> Result:
        """Return the answer, or what it raises. If the wait ends otherwise, it is cancelled.

        Args:
            answer: The answer of a replica.
            replica: Returns the id of the replica, "" while none is chosen.

        Raises:
            BackendError: The replica answers neither the request nor a ping.
        """
        task = asyncio.ensure_future(_awaited(answer))
        try:
            while True:
                await asyncio.wait({task}, timeout=self._silent.patience_s(replica()))
                name = replica()
                if task.done():
                    self._silent.answered(name)
                    return task.result()
                if name and not await self._answers(name) and not task.done():
                    self._silent.silent(name, self._clock())
                    raise BackendError(
                        "the replica answers neither the request nor a ping.", stage=self._stage, replica=name
                    )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # marks it as read

    async def _answers(self, replica: str) -> bool:
        try:
            async with asyncio.timeout(PING_S):
                await self._ping(replica)
        except (RejoinderError, TimeoutError):
            return False
        return True


async def _awaited(answer: Awaitable[Result]) -> Result:
    return await answer
