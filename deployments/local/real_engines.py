"""A host with the real engines in one process and without Ray, for benchmarks of conversations.

`ScriptedLlm` can replace the answers of the language model by a given text, when a benchmark needs a reply of a known
length. Its prefills still go to the real model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.host import Host
from actors.stages.ports import (
    ANYWHERE,
    LlmPort,
    LlmRequest,
    LlmStream,
    LlmUsage,
    TokenDelta,
    TtsPort,
    TtsRequest,
)
from deployments.llm import Llm
from deployments.local.bare_host import running_host, stages_over
from deployments.local.in_process import DirectLlm, DirectStt, DirectTts
from deployments.stt import Stt
from deployments.tts import Tts
from rejoinder.core.resilience.stream_report import StreamReport
from rejoinder.core.settings.settings import Settings

SCRIPTED_TOKENS_PER_S = 40.0


class _ScriptedStream:
    """Stream of a given text, word by word, at SCRIPTED_TOKENS_PER_S."""

    replica = "script"

    def __init__(self, text: str) -> None:
        self._words = text.split(" ")

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        """Yield the words, and then the end."""
        for number, word in enumerate(self._words):
            await asyncio.sleep(1 / SCRIPTED_TOKENS_PER_S)
            yield TokenDelta(f" {word}" if number else word)
        yield TokenDelta("", 0, "stop", LlmUsage(0, len(self._words)))


class ScriptedLlm:
    """Language model port that answers with `script` while it is set, and with the real model otherwise.

    Attributes:
        script: Text of every answer; "" for the real model's answers.
    """

    def __init__(self, port: LlmPort) -> None:
        """Create a port before `port`."""
        self.script = ""
        self._port = port

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield the stream of an answer. A prefill goes to the real model in any case."""
        if self.script and not request.prefill:
            yield _ScriptedStream(self.script)
            return
        async with self._port.open(request, avoid=avoid, strict=strict, only=only) as stream:
            yield stream

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return the queue length of the real model."""
        return self._port.queue(avoid)

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return the report of the real model."""
        return await self._port.report(replica, idle_s)


class RepeatingTts:
    """Text-to-speech port that synthesizes each text once, and then repeats its audio with the same delays.

    A benchmark whose replies are always the same text saves most of its computing time with it.
    """

    def __init__(self, port: TtsPort, clock: Callable[[], float]) -> None:
        """Create a port before `port`. `clock` returns the event loop's time in seconds."""
        self._port = port
        self._clock = clock
        self._known: dict[TtsRequest, list[tuple[float, bytes]]] = {}

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the stream of 24 kHz PCM chunks: repeated if `request` was synthesized before, else from the engine."""
        if request in self._known:
            yield self._repeat(self._known[request])
            return
        async with self._port.open(request, avoid=avoid) as chunks:
            yield self._noted(request, chunks)

    async def _noted(self, request: TtsRequest, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks. At the end of the stream, store them with their delays, so that they can be repeated."""
        kept, before = [], self._clock()
        async for chunk in chunks:
            kept.append((self._clock() - before, chunk))
            yield chunk
            before = self._clock()
        self._known[request] = kept

    async def _repeat(self, kept: list[tuple[float, bytes]]) -> AsyncIterator[bytes]:
        for delay_s, chunk in kept:
            await asyncio.sleep(delay_s)
            yield chunk


@asynccontextmanager
async def real_host(settings: Settings, clock: Callable[[], float]) -> AsyncIterator[tuple[Host, ScriptedLlm]]:
    """Yield a running host with the engines of `settings`, and its language model port.

    Args:
        settings: Settings of the host. `llm.nice` should be 0, because it applies to this whole process.
        clock: Returns the event loop's time in seconds.
    """
    language_model = Llm(settings)
    await language_model.check_health()  # warms the engine up
    llm = ScriptedLlm(DirectLlm(language_model))
    tts = RepeatingTts(DirectTts(Tts(settings)), clock)
    stages = stages_over(settings, stt=DirectStt(Stt(settings)), llm=llm, tts=tts)
    async with running_host(stages, settings, clock) as host:
        yield host, llm
