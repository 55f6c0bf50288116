"""Stage for tests, whose requests state how long the work takes and how many answers it yields."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from ray import serve

from actors.stages.ports import LlmRequest, TokenDelta, TurnVerdict
from deployments.serving.placements import ReplicaRoute
from rejoinder.core.reply.prompt_window import ChatMessage

ITEM_S = 0.02


def work(first_s: float, items: int = 1) -> LlmRequest:
    """Return a request to `Puppet.generate` for `items` token deltas, the first after `first_s` seconds."""
    return LlmRequest((ChatMessage("user", str(first_s)),), max_tokens=items)


class Puppet:
    """Deployment that counts the requests that it began, that it finished, and that were cancelled."""

    def __init__(self, name: str = "puppet") -> None:
        self._counts = {"began": 0, "done": 0, "stopped": 0}
        self._replica = serve.get_replica_context().replica_id.unique_id

    async def generate(
        self, request: LlmRequest, route: ReplicaRoute | None = None
    ) -> AsyncGenerator[TokenDelta, None]:
        async with self._counted():
            await asyncio.sleep(float(request.messages[0].content))
            for number in range(1, request.max_tokens + 1):
                yield TokenDelta(self._replica, finish="stop" if number == request.max_tokens else None)
                await asyncio.sleep(ITEM_S)

    async def predict(self, pcm: bytes, route: ReplicaRoute | None = None) -> TurnVerdict:
        """Wait as many milliseconds as `pcm` has bytes, and return a verdict with that number as `inference_ms`."""
        async with self._counted():
            await asyncio.sleep(len(pcm) / 1000)
            return TurnVerdict(1.0, len(pcm))

    async def describe(self) -> dict[str, str | int]:
        return {"replica": self._replica, "pid": os.getpid(), **self._counts}

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._counts["began"] += 1
        try:
            yield
            self._counts["done"] += 1
        except (asyncio.CancelledError, GeneratorExit):
            self._counts["stopped"] += 1
            raise
