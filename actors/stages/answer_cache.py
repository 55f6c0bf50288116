"""The host's client of the answer cache. It looks an answer up before the language model is called, and stores answers.

A lookup may take `call_timeout_ms`. After that, or after a failure, the language model is called as if there were no
cache. After three such lookups in a row no lookup is made for some time (`LookupBackoff`), so a slow or dead cache
delays only a few turns. Storing delays no turn: answers go through a short queue to a task of the host.

Outcomes for `Metrics.cache`: "hit_" and the kind of `CacheHit`, "miss", "late", "failed", "paused", "refused_" and a
reason (`CacheRefusal`), "stored", "dropped".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import AnswerCachePort, CachedAnswer, LlmRequest, LlmUsage, Metrics, TokenDelta
from actors.stages.retry import contained
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.reply.answer_cache import (
    CacheHit,
    CacheQuestion,
    CacheRefusal,
    CacheScope,
    LookupBackoff,
    may_store,
    question_of,
)
from rejoinder.core.settings.settings import AnswerCacheSettings

# Maximum number of answers that wait to be stored. Further answers are dropped.
STORE_QUEUE = 64
STORE_TIMEOUT_S = 2.0


class AnswerCacheClient:
    """Answer cache client of one host, shared by its conversations. Keep `run` running."""

    def __init__(
        self, cache: AnswerCachePort | None, settings: AnswerCacheSettings, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._backoff = LookupBackoff()
        self._to_store: asyncio.Queue[CachedAnswer] = asyncio.Queue(STORE_QUEUE)

    async def stream(
        self,
        request: LlmRequest,
        scope: CacheScope,
        stats: GenerationStats,
        ask: Callable[[], AsyncGenerator[TokenDelta, None]],
    ) -> AsyncGenerator[TokenDelta, None]:
        """Yield the cached answer as one delta, or else the deltas of `ask`.

        Closing the generator stops the language model and cancels a lookup.

        Args:
            request: The request for the language model.
            scope: The tenant and the tools. Only conversations with the same ones share the answer.
            stats: Filled with the outcome of the lookup, and after a hit with `finish` and `usage`.
            ask: Opens the language model's stream. Called unless the cache has an answer.
        """
        hit = await self._find(request, scope, stats)
        if hit is None:
            async with aclosing(ask()) as deltas:
                async for delta in deltas:
                    yield delta
            return
        stats.finish, stats.usage = "stop", LlmUsage(0, 0)
        yield TokenDelta(hit.answer, 0, "stop", stats.usage)

    def keep(self, stats: GenerationStats, answer: str) -> None:
        """Queue a finished answer to be stored, unless it may not be shared or came from the cache. Never blocks.

        Call this only for an answer that was heard to its end.
        """
        question = stats.question
        if question is None or stats.finish != "stop" or not may_store(question, answer, self._settings):
            return
        try:
            self._to_store.put_nowait(CachedAnswer(question, answer))
        except asyncio.QueueFull:
            self._metrics.cache("dropped")

    async def run(self) -> None:
        """Store queued answers until cancelled. Drop an answer that is not stored within STORE_TIMEOUT_S (2 s)."""
        while True:
            answered = await self._to_store.get()
            assert self._cache is not None  # `keep` queues answers only if there is a cache
            with contained("answer_cache", self._metrics):
                try:
                    async with asyncio.timeout(STORE_TIMEOUT_S):
                        await self._cache.store(answered)
                except (BackendError, Overloaded, TimeoutError):
                    self._metrics.cache("dropped")
                else:
                    self._metrics.cache("stored")

    async def _find(self, request: LlmRequest, scope: CacheScope, stats: GenerationStats) -> CacheHit | None:
        if self._cache is None:
            return None
        question = question_of(request.messages, request.max_tokens, scope, self._settings)
        if isinstance(question, CacheRefusal):
            stats.cache = question.value
            self._metrics.cache(stats.cache)
            return None
        stats.cache, hit = await self._look_up(self._cache, question)
        self._metrics.cache(stats.cache)
        # An answer of the small model is never stored: that model only replaces the normal one while it is slow.
        if hit is None and not request.small:
            stats.question = question
        return hit

    async def _look_up(self, cache: AnswerCachePort, question: CacheQuestion) -> tuple[str, CacheHit | None]:
        """Look a question up. Return the outcome and the hit; the hit is None if there is none.

        The outcome is "hit_" and the kind of the hit, "miss", "late", "failed", or "paused" (no lookup was made).
        """
        if not self._backoff.waits(self._clock()):
            return "paused", None
        with contained("answer_cache", self._metrics):
            try:
                async with asyncio.timeout(self._settings.call_timeout_ms / 1000):
                    hit = await cache.lookup(question)
            except TimeoutError:
                self._backoff.late(self._clock())
                return "late", None
            except (BackendError, Overloaded):
                self._backoff.late(self._clock())
                return "failed", None
            self._backoff.answered()
            return (f"hit_{hit.kind}", hit) if hit else ("miss", None)
        return "failed", None
