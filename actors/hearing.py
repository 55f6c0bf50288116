"""From a soft end to words: the transcript and the turn verdict of one revision, running at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.ports import Priority, Stages, SttJob, Transcript
from actors.retry import Trouble, insist
from rejoinder.core.audio import STT_RATE
from rejoinder.core.config import Settings
from rejoinder.core.errors import BackendError, Overloaded

# Smart Turn looks at no more (models.md); shipping more would only cost bytes.
VERDICT_SAMPLES = 8 * STT_RATE
SAMPLE_BYTES = 2


@dataclass(slots=True)
class Hearing:
    """What is being learned about one revision's audio. `began` and `transcribed_at` are monotonic seconds.

    `transcript` resolves to the text, or raises BackendError when speech-to-text stayed away; cancelling it drops the
    job.
    """

    revision: int
    began: float
    seconds: float
    trouble: Trouble
    transcript: asyncio.Task[Transcript]
    verdict: asyncio.Task[None] | None = None
    transcribed_at: float | None = None

    def forget(self) -> None:
        """Cancel what still runs: queued work leaves at once, a running batch's result is dropped."""
        self.transcript.cancel()
        if self.verdict:
            self.verdict.cancel()


class Listening:
    """Starts hearings on behalf of one session; its tasks live in the session's group."""

    def __init__(
        self, stages: Stages, settings: Settings, clock: Callable[[], float], group: asyncio.TaskGroup
    ) -> None:
        self._stages = stages
        self._settings = settings
        self._clock = clock
        self._group = group

    def start(
        self, revision: int, pcm: bytes, trouble: Trouble, judged: Callable[[float | None], None] | None
    ) -> Hearing:
        """Transcribe `pcm`, and if `judged` is given ask the turn model and report its probability (None: no
        answer).
        """
        transcript = self._group.create_task(self._transcribe(pcm, trouble))
        hearing = Hearing(revision, self._clock(), len(pcm) / SAMPLE_BYTES / STT_RATE, trouble, transcript)
        transcript.add_done_callback(lambda _: setattr(hearing, "transcribed_at", self._clock()))
        # An abandoned failure is reported where the transcript is awaited; it must not warn as never retrieved.
        transcript.add_done_callback(lambda task: task.cancelled() or task.exception())
        if judged is not None:
            hearing.verdict = self._group.create_task(self._judge(pcm[-VERDICT_SAMPLES * SAMPLE_BYTES :], judged))
        return hearing

    async def _transcribe(self, pcm: bytes, trouble: Trouble) -> Transcript:
        stt = self._settings.stt
        job = SttJob(pcm, Priority.FINAL, stt.deadline_s)
        return await insist(
            "stt",
            lambda avoid: self._stages.stt.transcribe(job, avoid=avoid),
            trouble,
            attempt_s=stt.call_timeout_s,
            give_up_s=self._settings.conversation.give_up_after_s,
        )

    async def _judge(self, pcm: bytes, judged: Callable[[float | None], None]) -> None:
        """One try on each of two replicas within the verdict's own time; then silence alone decides."""
        probability: float | None = None
        avoid: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(self._settings.endpointing.verdict_timeout_ms / 1000):
                while probability is None:
                    try:
                        probability = (await self._stages.turn_detector.predict(pcm, avoid=avoid)).probability
                    except BackendError as fault:
                        avoid = frozenset({fault.replica})
                        await asyncio.sleep(0.02)
        except (TimeoutError, Overloaded):
            probability = None
        judged(probability)
