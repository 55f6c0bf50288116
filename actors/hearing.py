"""From a soft end to words: the transcript and the turn verdict of one revision, running at once.

The turn model is the dearest of all that a turn needs, so it is asked late (`ask_after_ms`), through the host's few
places for questions, and not to the end if the transcript comes first and leaves no doubt: whoever knows first decides.
A host at rest asks about every silence and has the verdict before the transcript; a busy one asks what it must.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.ports import Priority, SttJob, Transcript
from actors.retry import FIRST_PAUSE_S, Trouble, insist
from actors.services import Services
from rejoinder.core.audio import SAMPLE_BYTES, STT_RATE
from rejoinder.core.endings import Ending, ending
from rejoinder.core.errors import BackendError, Overloaded

logger = logging.getLogger(__name__)

# Smart Turn looks at no more (models.md); shipping more would only cost bytes.
VERDICT_SAMPLES = 8 * STT_RATE

# A hearing's tasks: the transcript first, then the question.
JUDGING = 1


class Question:
    """Whether the caller has finished; the first answer counts."""

    def __init__(self, judged: Callable[[float | None], None]) -> None:
        self._judged: Callable[[float | None], None] | None = judged

    @property
    def open(self) -> bool:
        return self._judged is not None

    def answer(self, probability: float | None) -> None:
        """Report it, once."""
        judged, self._judged = self._judged, None
        if judged is not None:
            judged(probability)


@dataclass(slots=True)
class Hearing:
    """What is being learned about one revision's audio. `began` and `transcribed_at` are monotonic seconds.

    `transcript` resolves to the text, or raises BackendError when speech-to-text stayed away.
    """

    began: float
    seconds: float
    trouble: Trouble
    transcript: asyncio.Future[Transcript]
    question: Question | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    transcribed_at: float | None = None

    def forget(self) -> None:
        """Cancel what still runs: queued work leaves at once, a running batch's result is dropped."""
        self.transcript.cancel()
        for task in self.tasks:
            task.cancel()


class Listening:
    """Starts hearings on behalf of one session; its tasks live in the session's group and never fail it."""

    def __init__(self, services: Services, group: asyncio.TaskGroup) -> None:
        self._services = services
        self._group = group

    def start(self, pcm: bytes, judged: Callable[[float | None], None] | None) -> Hearing:
        """Transcribe `pcm`, and if `judged` is given ask the turn model and report its probability (None: no
        answer).
        """
        transcript: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        trouble = Trouble(self._services.metrics)
        hearing = Hearing(self._services.clock(), len(pcm) / SAMPLE_BYTES / STT_RATE, trouble, transcript)
        hearing.tasks.append(self._group.create_task(self._transcribe(pcm, hearing)))
        if judged is not None:
            hearing.question = Question(judged)
            tail = pcm[-VERDICT_SAMPLES * SAMPLE_BYTES :]
            hearing.tasks.append(self._group.create_task(self._judge(tail, hearing.question)))
        return hearing

    async def _transcribe(self, pcm: bytes, hearing: Hearing) -> None:
        settings = self._services.settings
        job = SttJob(pcm, Priority.FINAL, settings.stt.deadline_s)
        try:
            transcript = await insist(
                "stt",
                lambda avoid: self._services.stages.stt.transcribe(job, avoid=avoid),
                hearing.trouble,
                attempt_s=settings.stt.call_timeout_s,
                give_up_s=settings.conversation.give_up_after_s,
            )
        except BackendError as fault:
            _settle(hearing.transcript, fault)
        except Exception:  # a bug in a stage must not cost the caller the session
            logger.exception("the speech-to-text port broke")
            self._services.metrics.error("internal", "stt")
            _settle(hearing.transcript, BackendError("the speech-to-text port broke.", stage="stt"))
        else:
            hearing.transcribed_at = self._services.clock()
            _settle(hearing.transcript, transcript)
            self._read_ending(transcript.text, hearing)

    def _read_ending(self, text: str, hearing: Hearing) -> None:
        """Let words that read finished decide, if the turn model has not by now, and withdraw the question."""
        settings, question = self._services.settings, hearing.question
        if question is None or not question.open or not settings.endpointing.finished_probability:
            return
        if ending(text, settings.stt.language) is Ending.FINISHED:
            question.answer(settings.endpointing.finished_probability)
            hearing.tasks[JUDGING].cancel()

    async def _judge(self, pcm: bytes, question: Question) -> None:
        """Ask in time, within the verdict's own time; then silence alone decides. Cancelling it withdraws."""
        settings = self._services.settings
        early_ms = settings.endpointing.ask_after_ms - settings.speech.soft_end_ms
        if early_ms > 0:
            await asyncio.sleep(early_ms / 1000)
        question.answer(await self._verdict(pcm))

    async def _verdict(self, pcm: bytes) -> float | None:
        """The turn model's probability, from another replica after a failure; None if there is none in time."""
        probability: float | None = None
        avoid: frozenset[str] = frozenset()
        detector = self._services.stages.turn_detector
        try:
            limit_s = self._services.settings.endpointing.verdict_timeout_ms / 1000
            async with asyncio.timeout(limit_s), self._services.questions:
                while probability is None:
                    try:
                        probability = (await detector.predict(pcm, avoid=avoid)).probability
                    except BackendError as fault:
                        self._services.metrics.error("backend", "turn_detector")
                        avoid = frozenset({fault.replica})
                        await asyncio.sleep(FIRST_PAUSE_S)
        except TimeoutError:
            self._services.metrics.error("backend", "turn_detector")
        except Overloaded:
            self._services.metrics.error("overload", "turn_detector")
        except Exception:  # as above
            logger.exception("the turn detector port broke")
            self._services.metrics.error("internal", "turn_detector")
        return probability


def _settle(future: asyncio.Future[Transcript], outcome: Transcript | BackendError) -> None:
    if future.done():
        return  # forgotten meanwhile
    if isinstance(outcome, BackendError):
        future.set_exception(outcome)
        future.exception()  # whoever awaits it reports it; if nobody does, it must not warn as never retrieved
    else:
        future.set_result(outcome)
