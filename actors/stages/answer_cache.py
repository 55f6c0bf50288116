"""The host's side of the answer cache: what it is asked before the language model, and what it is given to keep.

A lookup has `call_timeout_ms`, in which nothing else happens; then the language model is asked as if there were no
cache, and after three that came to nothing lookups pause (`LookupBackoff`): a cache that is slow or dead costs a few
turns
that much and the others nothing. Keeping is nobody's wait: a short queue of answers, a task of the host's.
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
    keeps,
    question_of,
)
from rejoinder.core.settings.settings import AnswerCacheSettings

# Answers that wait to be kept; more are not.
KEEPING_QUEUE = 64
STORE_TIMEOUT_S = 2.0


class AnswerCacheClient:
    """One for all conversations of a host. `run` for the host's life."""

    def __init__(
        self, cache: AnswerCachePort | None, settings: AnswerCacheSettings, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._backoff = LookupBackoff()
        self._to_store: asyncio.Queue[CachedAnswer] = asyncio.Queue(KEEPING_QUEUE)

    async def stream(
        self,
        request: LlmRequest,
        scope: CacheScope,
        stats: GenerationStats,
        ask: Callable[[], AsyncGenerator[TokenDelta, None]],
    ) -> AsyncGenerator[TokenDelta, None]:
        """A kept answer as one delta, or what `ask` says. Close it to stop; a lookup under way is then cancelled."""
        hit = await self._find(request, scope, stats)
        if hit is None:
            async with aclosing(ask()) as deltas:
                async for delta in deltas:
                    yield delta
            return
        stats.finish, stats.usage = "stop", LlmUsage(0, 0)
        yield TokenDelta(hit.answer, 0, "stop", stats.usage)

    def keep(self, stats: GenerationStats, answer: str) -> None:
        """An answer was given to its end and heard to its end: keep it if it may be kept and is not kept already."""
        question = stats.question
        if question is None or stats.finish != "stop" or not keeps(question, answer, self._settings):
            return
        try:
            self._to_store.put_nowait(CachedAnswer(question, answer))
        except asyncio.QueueFull:
            self._metrics.cache("dropped")

    async def run(self) -> None:
        """Hand what is to be kept to the cache, until cancelled."""
        while True:
            answered = await self._to_store.get()
            assert self._cache is not None  # only its questions are kept
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
        if hit is None and not request.small:  # what a smaller model says must not outlive the need for it
            stats.question = question
        return hit

    async def _look_up(self, cache: AnswerCachePort, question: CacheQuestion) -> tuple[str, CacheHit | None]:
        """How the lookup ended, and what it found."""
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
