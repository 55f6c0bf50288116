"""The Stt deployment: one engine and one queue, which serves final transcripts first and forms batches.

A cancelled job that is still waiting leaves the queue at once. A running batch cannot be stopped: it finishes, the
cancelled caller's result is dropped, and the next batch starts.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from actors.stages.ports import Priority, SttJob, Transcript, WordTime
from deployments.engines.device import Runtime, bytes_of, open_device
from deployments.engines.model_files import whisper_folder
from deployments.engines.stt.cascade import CascadeResult, FirstOpinion, SttCascade
from deployments.engines.stt.moonshine import Moonshine, moonshine_files
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import EngineThread, Replica, StageDeployment
from deployments.serving.stt_queue import SttQueue
from deployments.vad import contains_speech, load_silero
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.capacity.gpu_memory import WEIGHT_FACTORS
from rejoinder.core.errors import DeadlineExceeded, Overloaded
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job in the queue, its arrival time (`time.monotonic`, in seconds), and the future of its transcript.

    `used_s` is the job's part of the decoding time of its batch, in seconds.
    """

    job: SttJob
    arrived: float
    answer: asyncio.Future[Transcript]
    used_s: float = 0.0


class Stt(StageDeployment):
    """Ray Serve deployment of speech to text: Whisper, and a first-pass recognizer if one is configured."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.stt
        store = open_store(settings.models)
        model = whisper_folder(store.path(stage.model))
        first = store.path(stage.first_pass_model) if stage.has_first_pass else None
        weights: dict[Runtime, float] = {
            "ctranslate2": bytes_of([model / "model.bin"]) * WEIGHT_FACTORS[stage.weights],
            **({"onnxruntime": bytes_of(moonshine_files(first))} if first else {}),
        }
        device = open_device("stt", stage, weights)
        options = WhisperOptions(
            language=stage.language,
            compute_type=stage.weights,
            threads=stage.threads,
            short_context=stage.short_context,
            min_frames=stage.min_frames,
            pad_frames=stage.pad_frames,
            device=device,
        )
        first_pass = Moonshine(first, stage.threads, device) if first else None
        self._engine = SttCascade(Whisper(model, options), first_pass, stage.first_pass_min_logprob)
        self._engine.warm_up()
        self._silero = load_silero(settings)
        self._max_batch = stage.max_batch
        self._queue: SttQueue[_Waiting] = SttQueue(stage.max_queue)
        self._worker = EngineThread("stt")
        self._replica = Replica("stt", self._engine.name, stage, self._worker)
        self._draining: asyncio.Task[None] | None = None

    async def transcribe(self, job: SttJob, route: ReplicaRoute | None = None) -> Transcript:
        """Return the transcript of one utterance.

        Args:
            job: The audio (16 kHz, 16-bit PCM), its priority and its deadline.
            route: Which replicas may get this call, for the router in the calling process. If it names a host, the
                answer has the replica's load.

        Raises:
            Overloaded: If the queue is full, or if a final transcript displaced this interim one.
            DeadlineExceeded: If the job waited longer than `job.deadline_s`.
        """
        async with self._replica.request(route, essential=job.priority.awaited) as tracked:
            waiting = _Waiting(job, time.monotonic(), asyncio.get_running_loop().create_future())
            displaced = self._queue.push(waiting, job.priority, job.deadline_s, waiting.arrived)
            if displaced and not displaced.answer.done():
                displaced.answer.set_exception(
                    Overloaded("A transcript of higher priority displaced this one.", resource="stt")
                )
            if self._draining is None or self._draining.done():
                self._draining = asyncio.create_task(self._drain())
            try:
                transcript = await waiting.answer
                tracked.waited(transcript.queue_ms / 1000)
                tracked.used(waiting.used_s)
                tracked.produced()
                return self._replica.with_load(transcript, route)
            finally:
                self._queue.remove(waiting)

    async def _drain(self) -> None:
        """Decode one batch after the other until the queue is empty."""
        while len(self._queue):
            now = time.monotonic()
            batch, expired = self._queue.take(self._max_batch, now)
            for late in expired:
                _fail(late, DeadlineExceeded(f"waited {now - late.arrived:.1f} s.", stage="stt"))
            if batch:
                await self._decode(batch, now)

    async def _decode(self, batch: list[_Waiting], began: float) -> None:
        """Decode a batch and answer its jobs. If it fails, decode each clip alone: one clip must not fail the others.

        Args:
            batch: Jobs of the same priority.
            began: When the decoding began (`time.monotonic`, in seconds).
        """
        try:
            results = await self._worker.run(lambda: self._transcribe([waiting.job for waiting in batch]))
        except Exception as fault:  # noqa: BLE001  # every error of the engine is raised in the caller of its clip
            if len(batch) == 1:
                _fail(batch[0], fault)
                return
            for waiting in batch:
                if not waiting.answer.done():
                    await self._decode([waiting], time.monotonic())
            return
        decode_ms = (time.monotonic() - began) * 1000
        for waiting, result in zip(batch, results, strict=True):
            waiting.used_s = decode_ms / 1000 / len(batch)
            if not waiting.answer.done():
                waiting.answer.set_result(_transcript(waiting, result, began, decode_ms))

    def _transcribe(self, jobs: list[SttJob]) -> list[CascadeResult]:
        """Return the result of each job, in order. Audio without speech is not decoded; its result has no text.

        All jobs have the same priority: second opinions go to the main recognizer, other jobs to the first pass. The
        main recognizer repeats a recording with low confidence at once.
        """
        has_speech = [job.speech_detected or contains_speech(self._silero, job.pcm) for job in jobs]
        spoken = [job for job, speech in zip(jobs, has_speech, strict=True) if speech]
        clips = [job.pcm for job in spoken]
        if spoken and spoken[0].priority is Priority.SECOND_OPINION:
            found = self._engine.second_opinion(clips, [_opinion(job.first) for job in spoken])
        else:
            partial = bool(spoken) and spoken[0].priority is not Priority.RECORDING
            found = self._engine.transcribe_batch(clips, partial=partial, guess=spoken[0].guess if spoken else ())
        results = iter(self._timed(job, result) for job, result in zip(spoken, found, strict=True))
        return [next(results) if speech else CascadeResult("", 0.0) for speech in has_speech]

    def _timed(self, job: SttJob, result: CascadeResult) -> CascadeResult:
        """Return the result with the times of its words, if the job wants them."""
        if not job.word_times or not result.text:
            return result
        return replace(result, words=self._engine.word_times(job.pcm, result.text, result.language))


def _opinion(first: Transcript | None) -> FirstOpinion:
    return FirstOpinion(first.text, first.avg_logprob) if first else FirstOpinion("", 0.0)


def _transcript(waiting: _Waiting, result: CascadeResult, began: float, decode_ms: float) -> Transcript:
    """Return the port's result for a job whose decoding began at `began` (`time.monotonic`) and took `decode_ms`."""
    return Transcript(
        result.text,
        audio_ms=len(waiting.job.pcm) * 500 / STT_RATE,  # 2 bytes a sample, 1000 ms a second
        queue_ms=(began - waiting.arrived) * 1000,
        decode_ms=decode_ms,
        avg_logprob=result.avg_logprob,
        full_padding=result.full_padding,
        repeated=result.repeated,
        low_confidence=result.low_confidence,
        tokens=result.tokens,
        usable=result.usable,
        language=result.language,
        agreed=result.agreed,
        words=tuple(WordTime(word, start_s, end_s) for word, start_s, end_s in result.words),
    )


def _fail(waiting: _Waiting, fault: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(fault)
