"""The stage ports (`actors/stages/ports.py`) on plain deployment classes, in one process and without Ray.

Session hosts use `InlineVad` in production. Tests and the benchmarks of this package use the others.
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
from rejoinder.core.resilience.stream_report import StreamReport


class InlineVad:
    """Voice activity port that runs Silero in the calling thread.

    Up to about 16 sessions, this costs less than a call to another process (`rejoinder bench vad`).
    """

    def __init__(self, engine: Silero) -> None:
        """Create a port around `engine`."""
        self._engine = engine

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        """Return the speech probabilities of one batch. The event loop is blocked meanwhile; `avoid` has no effect."""
        return decide(self._engine, batch)


class DirectTurnDetector:
    """Turn detector port that calls a `TurnDetector` object in this process."""

    def __init__(self, detector: TurnDetector) -> None:
        """Create a port around `detector`."""
        self._detector = detector

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Return the probability that the turn is complete. `avoid` has no effect."""
        return await self._detector.predict(pcm)


class DirectStt:
    """Speech-to-text port that calls an `Stt` object in this process."""

    def __init__(self, stt: Stt | EmulatedStt) -> None:
        """Create a port around `stt`."""
        self._stt = stt

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Return the transcript. `avoid` has no effect."""
        return await self._stt.transcribe(job)


@dataclass(frozen=True, slots=True)
class _DirectStream:
    deltas: AsyncIterator[TokenDelta]
    replica: str = "direct"

    def __aiter__(self) -> AsyncIterator[TokenDelta]:
        return self.deltas


class DirectLlm:
    """Language model port that calls an `Llm` object in this process."""

    def __init__(self, llm: Llm) -> None:
        """Create a port around `llm`."""
        self._llm = llm

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield the stream of deltas. `avoid`, `strict` and `only` have no effect."""
        async with aclosing(self._llm.generate(request)) as deltas:
            yield _DirectStream(deltas)

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return None: the queue length is unknown."""
        return None

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return the report on the streams of the `Llm` object."""
        return await self._llm.report(idle_s)


class DirectTts:
    """Text-to-speech port that calls a `Tts` object in this process."""

    def __init__(self, tts: Tts | EmulatedTts) -> None:
        """Create a port around `tts`."""
        self._tts = tts

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the stream of 24 kHz PCM chunks. `avoid` has no effect."""
        async with aclosing(self._tts.synthesize(request)) as chunks:
            yield chunks


class DirectAnswerCache:
    """Answer cache port that calls an `AnswerCache` object in this process."""

    def __init__(self, cache: AnswerCache) -> None:
        """Create a port around `cache`."""
        self._cache = cache

    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        """Return a cached answer or None. `avoid` has no effect."""
        return await self._cache.lookup(question)

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        """Store an answer. `avoid` has no effect."""
        await self._cache.store(answered)
