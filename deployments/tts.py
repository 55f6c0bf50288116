"""The Tts deployment: a text segment becomes a stream of PCM chunks at 24 kHz, one segment at a time.

A segment that is cancelled while it is synthesized stops at its next chunk. A segment that is cancelled while it waits
leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator

from actors.stages.ports import TtsRequest
from deployments.engines.device import bytes_of, open_device
from deployments.engines.onnx import model_file
from deployments.engines.piper import PiperVoice
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from rejoinder.core.errors import Overloaded
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


class Tts(StageDeployment):
    """Ray Serve deployment of text to speech with a Piper voice."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.tts
        voice = open_store(settings.models).path(stage.model)
        device = open_device("tts", stage, {"onnxruntime": bytes_of([model_file(voice)])})
        self._engine = PiperVoice(
            voice, stage.threads, stage.chunk_ms, chunked=stage.chunked, speaker=stage.speaker, device=device
        )
        self._engine.warm_up()
        self._worker = EngineThread("piper")
        self._slot = asyncio.Lock()
        self._waiting = 0
        self._max_queue = stage.max_queue
        self._replica = Replica("tts", self._engine.name, stage, self._worker)

    async def synthesize(self, request: TtsRequest, route: ReplicaRoute | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the segment's audio as 16-bit PCM at 24 kHz.

        Args:
            request: The text and the speaking rate.
            route: Which replicas may get this call, for the router in the calling process. If it names a host, the
                answer has the replica's load.

        Yields:
            Chunks of at most `tts.chunk_ms` milliseconds.

        Raises:
            Overloaded: If `tts.max_queue` segments wait already.
        """
        async with self._replica.request(route, essential=request.for_call) as tracked:
            arrived = time.monotonic()
            if self._waiting >= self._max_queue:
                raise Overloaded("The text-to-speech queue is full.", "Add a tts replica.", resource="tts.max_queue")
            self._waiting += 1
            try:
                await self._slot.acquire()
            finally:
                self._waiting -= 1
            tracked.waited(time.monotonic() - arrived)
            try:
                chunks = self._engine.synthesize(request.text, request.speed)
                first = True
                while (pcm := await self._next(chunks)) is not None:
                    tracked.produced()
                    yield self._replica.with_load(pcm, route if first else None)
                    first = False
            finally:
                self._slot.release()

    async def _next(self, chunks: Iterator[bytes]) -> bytes | None:
        return await self._worker.run(lambda: next(chunks, None))
