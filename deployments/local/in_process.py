"""The stage ports over the plain deployment classes, in one process and without Ray: for tests, and the inline
VAD.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from actors.stages.ports import (
    ANYWHERE,
    CachedAnswer,
    LlmRequest,
    LlmStream,
    SttJob,
    TokenDelta,
    Transcript,
    TtsRequest,
    TurnVerdict,
    VadBatch,
    VadResult,
)
from deployments.answer_cache import AnswerCache
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.engines.speech_in.silero import Silero
from deployments.llm import Llm
from deployments.stt import Stt
from deployments.tts import Tts
from deployments.turn_detector import TurnDetector
from deployments.vad import decide
from rejoinder.core.reply.answer_cache import CacheHit, CacheQuestion


class InlineVad:
    """Silero in the caller's own thread: up to some 16 sessions cheaper than any call (see `rejoinder bench vad`)."""

    def __init__(self, engine: Silero) -> None:
        self._engine = engine

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        return decide(self._engine, batch)


class DirectTurnDetector:
    def __init__(self, detector: TurnDetector) -> None:
        self._detector = detector

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        return await self._detector.predict(pcm)


class DirectStt:
    def __init__(self, stt: Stt | EmulatedStt) -> None:
        self._stt = stt

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        return await self._stt.transcribe(job)


@dataclass(frozen=True, slots=True)
class _DirectStream:
    deltas: AsyncIterator[TokenDelta]
    replica: str = "direct"

    def __aiter__(self) -> AsyncIterator[TokenDelta]:
        return self.deltas


class DirectLlm:
    def __init__(self, llm: Llm) -> None:
        self._llm = llm

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False
    ) -> AsyncIterator[LlmStream]:
        async with aclosing(self._llm.generate(request)) as deltas:
            yield _DirectStream(deltas)

    def queue(self, avoid: frozenset[str]) -> int | None:
        return None


class DirectTts:
    def __init__(self, tts: Tts | EmulatedTts) -> None:
        self._tts = tts

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with aclosing(self._tts.synthesize(request)) as chunks:
            yield chunks


class DirectAnswerCache:
    def __init__(self, cache: AnswerCache) -> None:
        self._cache = cache

    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        return await self._cache.lookup(question)

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        await self._cache.store(answered)
