"""The verdict whether the caller's turn is over: gathers the evidence at a tentative end of speech.

Evidence arrives in order of its cost. The prosody is computed at once, in the host. When the transcript is available,
the language model, which has read most of the words already, tells whether the message ends here. The turn detector is
the most expensive call, so it is made only if the words have not decided after `ask_after_ms` of silence. Its calls
wait in the host's queue (`TurnDetectorQueue`). After each piece the probability is reported again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from actors.stages.ports import Transcript
from actors.stages.retry import FIRST_PAUSE_S, Backoff, StageFault, attempts, contained
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, pcm16_to_float
from rejoinder.core.audio.prosody import TAIL_S, prosody_of
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.turns.end_of_turn import TurnEvidence
from rejoinder.core.turns.endpointing import TurnDetection
from rejoinder.core.turns.transcript_ending import bare_words

# Maximum audio for the turn detector, in samples. The model (Smart Turn) uses at most the last 8 s.
VERDICT_SAMPLES = 8 * STT_RATE

# Longest wait in seconds for the language model after the transcript. Later, its answer is not worth the silence.
MESSAGE_END_S = 0.25


class Dialogue(Protocol):
    """What the verdict needs from the session's replies: the conversation, and a language model that has read it."""

    @property
    def asked(self) -> str:
        """The assistant's last words; "" if it has not spoken yet."""
        ...

    async def message_end(self, words: str) -> float | None:
        """Return the language model's probability that the caller's message ends with these words; None if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class VerdictRequest:
    """A request for the verdict on one tentative end of speech.

    Attributes:
        speech: The newest speech, up to its end, as 16-bit PCM at 16 kHz.
        audio_until_now: Returns the utterance and the silence after it, in the same format.
        detection: The session's turn detection.
        on_verdict: Called with the probability that the turn is over, each time when more is known. Called with None if
            nothing is known after `verdict_timeout_ms`.
    """

    speech: bytes
    audio_until_now: Callable[[], bytes]
    detection: TurnDetection
    on_verdict: Callable[[float | None], None]


class OpenVerdict:
    """The evidence for one verdict, and the probability that follows from it."""

    def __init__(self, services: Services, request: VerdictRequest, asked: str) -> None:
        prosody = prosody_of(pcm16_to_float(request.speech[-round(TAIL_S * STT_RATE) * SAMPLE_BYTES :]))
        self._services = services
        self._request = request
        self._evidence = TurnEvidence(asked=asked, prosody=prosody, language=services.settings.stt.main_language)
        self._probability: float | None = None
        self._reported = False

    @property
    def has_words(self) -> bool:
        """True if the words are part of the evidence."""
        return self._evidence.text is not None

    @property
    def decided(self) -> bool:
        """True if more evidence cannot end the turn sooner."""
        return self._services.endpoint_rule.decided(self._request.detection, self._probability)

    def words(self, transcript: Transcript, message_end: float | None) -> None:
        """Add the words and, if it is known, the language model's probability that the message ends with them."""
        text, logprob = transcript.text, transcript.avg_logprob
        self._evidence = replace(self._evidence, text=text, logprob=logprob, message_end=message_end)
        self.report()

    def sound(self, turn_model: float) -> None:
        """Add the turn detector's probability (`turn_model`).

        It is reported only after the words are known, because they may contradict it.
        """
        self._evidence = replace(self._evidence, turn_model=turn_model)
        if self.has_words:
            self.report()

    def overdue(self) -> None:
        """Report the probability from the evidence so far (None without any), unless one was reported before."""
        if not self._reported:
            self.report()

    def report(self) -> None:
        """Call `on_verdict` with the probability that follows from the evidence so far."""
        self._reported = True
        self._probability = self._services.endpoint_rule.table.probability(self._evidence)
        self._request.on_verdict(self._probability)


class TurnJudge:
    """Gathers the evidence of one session. Its tasks run in the session's group and never raise."""

    def __init__(self, services: Services, group: asyncio.TaskGroup, dialogue: Dialogue) -> None:
        self._services = services
        self._settings = services.settings.endpointing
        self._group = group
        self._dialogue = dialogue

    def start(
        self, request: VerdictRequest, transcript: asyncio.Future[Transcript]
    ) -> tuple[OpenVerdict, list[asyncio.Task[None]]]:
        """Start to gather evidence. Return the open verdict, and the tasks to cancel if it is no longer needed.

        Args:
            request: What to judge.
            transcript: Future of the final transcript.
        """
        verdict = OpenVerdict(self._services, request, self._dialogue.asked)
        words = self._group.create_task(self._judge_words(verdict, transcript))
        sound = self._group.create_task(self._judge_sound(verdict, request, words))
        return verdict, [words, sound]

    async def _judge_words(self, verdict: OpenVerdict, transcript: asyncio.Future[Transcript]) -> None:
        with contained("llm", self._services.metrics):
            # `wait`, because the future may be cancelled, which must not cancel this task.
            await asyncio.wait({transcript})
            if transcript.cancelled() or transcript.exception():
                return
            heard = transcript.result()
            verdict.words(heard, await self._message_end(heard.text))

    async def _message_end(self, text: str) -> float | None:
        settings = self._services.settings
        words = bare_words(text)
        if not words or not self._settings.message_end or not settings.llm.judges_message_end:
            return None
        try:
            async with asyncio.timeout(MESSAGE_END_S):
                return await self._dialogue.message_end(words)
        except TimeoutError:
            self._services.metrics.error("backend", "message_end")
            return None

    async def _judge_sound(self, verdict: OpenVerdict, request: VerdictRequest, words: asyncio.Task[None]) -> None:
        """Call the turn detector, unless the words decide before `ask_after_ms` of silence.

        After `verdict_timeout_ms` the call is abandoned, and the verdict is reported without it. Cancelling this task
        cancels the call. `words` is the task that adds the words to the verdict.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.verdict_timeout_ms / 1000
        early_ms = self._settings.ask_after_ms - self._services.settings.speech.soft_end_ms
        with contained("turn_detector", self._services.metrics):
            try:
                async with asyncio.timeout_at(deadline):
                    if early_ms > 0:
                        await asyncio.sleep(early_ms / 1000)
                    if not verdict.decided:
                        async with self._services.turn_detector_queue.slot(deadline):
                            heard = request.audio_until_now()[-VERDICT_SAMPLES * SAMPLE_BYTES :]
                            verdict.sound(await self._predict(heard))
                    await asyncio.wait({words})
            except (TimeoutError, Overloaded) as fault:
                self._count(fault)
        verdict.overdue()

    async def _predict(self, pcm: bytes) -> float:
        """Return the turn detector's probability that the turn is complete. Call another replica after a failure."""
        # The pause does not double: the verdict has only `verdict_timeout_ms` (400 ms by default) in all.
        pause = Backoff(FIRST_PAUSE_S, longest_s=FIRST_PAUSE_S)
        async for attempt in attempts("turn_detector", self._count, pause=pause, covered=(BackendError,)):
            with attempt:
                verdict = await self._services.stages.turn_detector.predict(pcm, avoid=attempt.avoid)
        return verdict.probability

    def _count(self, fault: StageFault) -> None:
        kind: Literal["overload", "backend"] = "overload" if isinstance(fault, Overloaded) else "backend"
        self._services.metrics.error(kind, "turn_detector")
