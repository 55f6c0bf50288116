"""Engines that take a fixed time and never queue. For the density benchmark (`headless.py`) only.

They use almost no CPU, so a measurement with them shows the cost of the code around the engines.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from actors.stages.ports import (
    ANYWHERE,
    LlmRequest,
    LlmStream,
    LlmUsage,
    SttJob,
    TokenDelta,
    Transcript,
    TtsRequest,
    TurnVerdict,
)
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, WIRE_RATE
from rejoinder.core.resilience.stream_report import StreamReport

TRANSCRIPT = "It was the age of wisdom."
REPLY = "It is a quarter past nine."
REPLY_S = 1.5
CHUNK_S = 0.2
# Two loud samples; none is zero, so every chunk counts as audible.
_LOUD = struct.pack("<2h", 6000, -6000)


@dataclass(frozen=True, slots=True)
class FixedStt:
    """Speech-to-text port that returns TRANSCRIPT after `seconds`, whatever the audio is."""

    seconds: float = 0.100

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Wait `seconds`, then return TRANSCRIPT. `avoid` has no effect."""
        await asyncio.sleep(self.seconds)
        audio_ms = len(job.pcm) / SAMPLE_BYTES / STT_RATE * 1000
        return Transcript(TRANSCRIPT, audio_ms=audio_ms, queue_ms=0.0, decode_ms=self.seconds * 1000, avg_logprob=-0.1)


@dataclass(frozen=True, slots=True)
class _FixedStream:
    seconds: float
    replica: str = "fixed"

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        await asyncio.sleep(self.seconds)
        yield TokenDelta(REPLY, len(REPLY.split()), "stop", LlmUsage(20, len(REPLY.split())))


@dataclass(frozen=True, slots=True)
class FixedLlm:
    """Language model port that returns REPLY in one delta after `seconds`."""

    seconds: float = 0.150

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield a stream whose only delta, REPLY, comes after `seconds`. The arguments have no effect."""
        yield _FixedStream(self.seconds)

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return None, which means that the queue length is unknown: there are no replicas."""
        return None

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return a report without waiting streams: they never wait longer than `seconds`."""
        return StreamReport(0, 0.0)


@dataclass(frozen=True, slots=True)
class FixedTts:
    """Text-to-speech port whose audio starts after `seconds`. It makes REPLY_S seconds of audio from the text REPLY."""

    seconds: float = 0.080

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield a stream of 24 kHz PCM in chunks of CHUNK_S seconds.

        Its duration is proportional to the length of the text, at most REPLY_S. `avoid` has no effect.
        """
        yield self._chunks(request.text)

    async def _chunks(self, text: str) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.seconds)
        left_s = REPLY_S * min(1.0, len(text) / len(REPLY))
        while left_s > 0:
            yield _LOUD * (round(min(CHUNK_S, left_s) * WIRE_RATE) // 2)
            left_s -= CHUNK_S


@dataclass(frozen=True, slots=True)
class CertainTurn:
    """Turn detector port that always returns probability 1 at once, for hosts whose turns end after a fixed silence."""

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Return probability 1 and an inference time of 0. `pcm` and `avoid` have no effect."""
        return TurnVerdict(1.0, 0.0)
