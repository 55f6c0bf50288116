"""Speech to text: one pair of ears, one queue, finals first, batches across sessions.

A waiting job that is cancelled leaves the queue at once. A batch that runs cannot be stopped: it finishes, its result
for the cancelled caller is dropped, and the next batch starts.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from actors.stages.ports import Priority, SttJob, Transcript
from deployments.engines.stt.cascade import SttCascade
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from deployments.serving.stt_queue import SttQueue
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.errors import DeadlineExceeded, Overloaded
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


@dataclass(slots=True, eq=False)
class _Waiting:
    job: SttJob
    arrived: float
    answer: asyncio.Future[Transcript]


class Stt(StageDeployment):
    """The deployment."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.stt
        options = WhisperOptions(
            language=stage.language,
            compute_type=stage.compute_type,
            threads=stage.threads,
            short_context=stage.short_context,
            min_frames=stage.min_frames,
            pad_frames=stage.pad_frames,
        )
        store = open_store(settings.models)
        quick = Moonshine(store.path(stage.first_pass_model), stage.threads) if stage.hears_twice else None
        self._engine = SttCascade(Whisper(store.path(stage.model), options), quick, stage.first_pass_min_logprob)
        self._engine.warm_up()
        self._max_batch = stage.max_batch
        self._queue: SttQueue[_Waiting] = SttQueue(stage.max_queue)
        self._worker = EngineThread("stt")
        self._replica = Replica("stt", self._engine.name, stage, self._worker)
        self._draining: asyncio.Task[None] | None = None

    async def transcribe(self, job: SttJob, route: ReplicaRoute | None = None) -> Transcript:
        async with self._replica.request() as inside:
            waiting = _Waiting(job, time.monotonic(), asyncio.get_running_loop().create_future())
            displaced = self._queue.push(waiting, job.priority, job.deadline_s, waiting.arrived)
            if displaced and not displaced.answer.done():
                displaced.answer.set_exception(
                    Overloaded("A final transcript took this partial's place.", resource="stt")
                )
            if self._draining is None or self._draining.done():
                self._draining = asyncio.create_task(self._drain())
            try:
                transcript = await waiting.answer
                inside.waited(transcript.queue_ms / 1000)
                return transcript
            finally:
                self._queue.remove(waiting)

    async def _drain(self) -> None:
        """Decode batch after batch until nothing waits."""
        while len(self._queue):
            now = time.monotonic()
            batch, expired = self._queue.take(self._max_batch, now)
            for late in expired:
                _fail(late, DeadlineExceeded(f"waited {now - late.arrived:.1f} s.", stage="stt"))
            if batch:
                await self._decode(batch, now)

    async def _decode(self, batch: list[_Waiting], began: float) -> None:
        clips = [np.frombuffer(waiting.job.pcm, "<i2") for waiting in batch]
        first = batch[0].job
        partial = first.priority is Priority.PARTIAL  # a batch is of one priority
        try:
            heard = await self._worker.run(
                lambda: self._engine.transcribe_batch(clips, partial=partial, guess=first.guess)
            )
        except Exception as fault:  # noqa: BLE001  # whatever the engine raised belongs to those who wait for it
            for waiting in batch:
                _fail(waiting, fault)
            return
        decode_ms = (time.monotonic() - began) * 1000
        for waiting, words in zip(batch, heard, strict=True):
            if not waiting.answer.done():
                audio_ms = len(waiting.job.pcm) * 500 / STT_RATE
                queue_ms = (began - waiting.arrived) * 1000
                waiting.answer.set_result(
                    Transcript(
                        words.text,
                        audio_ms=audio_ms,
                        queue_ms=queue_ms,
                        decode_ms=decode_ms,
                        avg_logprob=words.avg_logprob,
                        full_padding=words.full_padding,
                        repeated=words.repeated,
                        doubted=words.low_confidence,
                        tokens=words.tokens,
                    )
                )


def _fail(waiting: _Waiting, fault: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(fault)
