"""Answer cache: one replica that all hosts share, so that an answer given once is reused for later callers.

The cache is in memory. A replacement of a dead replica starts empty, and so does a new deployment.
`rejoinder.core.reply.answer_cache` decides which question matches which answer. The host decides whether to look a
question up (`actors.stages.answer_cache`).
"""

from __future__ import annotations

import time

from actors.stages.ports import CachedAnswer
from deployments.engines.device import bytes_of, open_device
from deployments.engines.minilm import DIMENSIONS, MiniLm
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.reply.answer_cache import AnswerIndex, CacheHit, CacheQuestion, Vector
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


class AnswerCache(StageDeployment):
    """Ray Serve deployment of the answer cache.

    A lookup that is cancelled while it waits for the embedding model leaves the queue at once.
    """

    def __init__(self, settings: Settings) -> None:
        rules = settings.answer_cache
        self._index = AnswerIndex(rules, DIMENSIONS if rules.semantic else 0)
        self._engine: MiniLm | None = None
        if rules.semantic:
            form = open_store(settings.models).converted(rules.model, f"ct2-{rules.compute_type}")
            device = open_device("answer_cache", rules, {"ctranslate2": bytes_of([form / "model.bin"])})
            self._engine = MiniLm(form, rules.threads, rules.compute_type, device)
            self._engine.warm_up()
        self._worker = EngineThread("minilm")
        self._waiting = 0
        self._max_queue = rules.max_queue
        name = self._engine.name if self._engine else "exact questions"
        self._replica = Replica("answer_cache", name, rules, self._worker)

    async def lookup(self, question: CacheQuestion, route: ReplicaRoute | None = None) -> CacheHit | None:
        """Return the answer to the same or a similar question, None if there is none.

        A question is compared by similarity only if an embedding model is configured and fewer than `max_queue` texts
        wait for it. `route` is for the router in the calling process; this method ignores it.
        """
        async with self._replica.request():
            hit = self._index.exact(question, time.monotonic())
            if hit or not self._index.comparable(question):
                return hit
            vector = await self._vector(question.text)
            return None if vector is None else self._index.nearest(question, vector, time.monotonic())

    async def store(self, answered: CachedAnswer, route: ReplicaRoute | None = None) -> None:
        """Store an answer.

        If `max_queue` texts wait for the embedding model, the answer is stored without an embedding: only the same
        question will find it, not a similar one. `route` is for the router in the calling process; this method
        ignores it.
        """
        async with self._replica.request():
            vector = await self._vector(answered.question.text)
            self._index.keep(answered.question, vector, answered.answer, time.monotonic())

    async def clear(self, tenant: str | None = None) -> int:
        """Delete all answers, or those of one tenant. Return how many were deleted.

        `tenant` names the clients of one API key; `tenant_of` derives it from the key. None means all tenants.
        """
        return self._index.clear(tenant)

    async def _vector(self, text: str) -> Vector | None:
        """Return the text's embedding, None without a model or if `max_queue` texts wait for the model."""
        engine = self._engine
        if engine is None or self._waiting >= self._max_queue:
            return None
        self._waiting += 1
        try:
            return await self._worker.run(lambda: engine.embed(text))
        finally:
            self._waiting -= 1
