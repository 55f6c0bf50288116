"""Requests at a tentative end of speech: for the final transcript, and for the verdict whether the turn is complete.

The turn detector is the most expensive call of a turn, so cheaper evidence is used first. The caller may resume after
a short pause, and the transcript may already look complete. The turn detector is called if the transcript is available
and does not look complete, or if the silence has lasted `ask_after_ms` without a transcript. The call waits in the
host's queue (`TurnDetectorQueue`). If a transcript that looks complete arrives before the verdict, the call is
cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from actors.listening.interim_transcripts import InterimTranscript
from actors.listening.long_speech import SpeechWindow
from actors.stages.ports import Priority, SttJob, Transcript
from actors.stages.retry import FIRST_PAUSE_S, Backoff, StageFailures, StageFault, attempts, contained, retry_unary
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.audio.windows import OVERLAP_S
from rejoinder.core.errors import BackendError, CallerError, Overloaded
from rejoinder.core.turns.end_of_turn import end_of_turn_probability
from rejoinder.core.turns.transcript_ending import TranscriptEnding, classify_ending
from rejoinder.core.turns.transcript_windows import merge

# Maximum audio for the turn detector, in samples. The model (Smart Turn) uses at most the last 8 s.
VERDICT_SAMPLES = 8 * STT_RATE

# Index of the verdict's task in `EndOfTurnRequest.tasks`. The transcript's task has index 0.
JUDGING = 1


class VerdictRequest:
    """Request for the turn verdict: the probability that the turn is complete. It is answered once."""

    def __init__(self, on_verdict: Callable[[float | None], None]) -> None:
        self._on_verdict: Callable[[float | None], None] | None = on_verdict

    @property
    def open(self) -> bool:
        """True until `answer` was called."""
        return self._on_verdict is not None

    def answer(self, probability: float | None) -> None:
        """Report the probability that the turn is complete; None if it is unknown. Later calls are ignored."""
        on_verdict, self._on_verdict = self._on_verdict, None
        if on_verdict is not None:
            on_verdict(probability)


@dataclass(slots=True)
class EndOfTurnRequest:
    """A request for the transcript and the turn verdict of the utterance so far. Times are monotonic seconds.

    Attributes:
        started_at: When the request was made.
        seconds: Length of the audio, in seconds.
        failures: The stages that currently fail for this request.
        transcript: Future of the final transcript. It raises BackendError if all attempts at speech-to-text failed.
        interim: An interim transcript of all the speech in this audio; None if there is none.
        verdict: The request for the turn verdict; None if there is none.
        decided_by_transcript: True if the transcript looked complete and answered the verdict.
        tasks: The task that gets the transcript, then the task that gets the verdict, if one was requested.
        transcribed_at: When the transcript became available; None before.
    """

    started_at: float
    seconds: float
    failures: StageFailures
    transcript: asyncio.Future[Transcript]
    interim: InterimTranscript | None = None
    verdict: VerdictRequest | None = None
    decided_by_transcript: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    transcribed_at: float | None = None

    @property
    def transcribed(self) -> bool:
        """True once the transcript is available. It stays False if the request failed or was cancelled."""
        return self.transcript.done() and not self.transcript.cancelled() and not self.transcript.exception()

    async def words(self) -> tuple[str, float]:
        """Wait for the caller's words. Return them and the monotonic time at which they became known.

        The words are those of `interim`, unless its confidence is low or it is empty; otherwise those of the final
        transcript. Cancelling this call leaves the request running.

        Raises:
            BackendError: All attempts at speech-to-text failed.
        """
        if self.interim is not None:
            either: set[asyncio.Future[Any]] = {self.interim.transcript, self.transcript}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            early = None if self.transcript.done() else self.interim.transcript.result()
            if early is not None and early.text and not early.low_confidence:
                return early.text, max(self.started_at, self.interim.at)
        transcript = await asyncio.shield(self.transcript)
        return transcript.text, self.transcribed_at or self.started_at

    def cancel(self) -> None:
        """Cancel the tasks that get the transcript and the verdict.

        A queued speech-to-text job leaves its queue. The result of a running job is dropped.
        """
        self.transcript.cancel()
        for task in self.tasks:
            task.cancel()


class EndOfTurn:
    """Starts the end-of-turn requests of one session. Their tasks run in the session's group and never raise."""

    def __init__(self, services: Services, group: asyncio.TaskGroup) -> None:
        self._services = services
        self._group = group
        self._window_order = asyncio.Lock()

    def start(
        self,
        pcm: bytes,
        on_verdict: Callable[[float | None], None] | None,
        audio_until_now: Callable[[], bytes] | None = None,
        prefix_tokens: tuple[int, ...] = (),
        *,
        interim: InterimTranscript | None = None,
        windows: tuple[SpeechWindow, ...] = (),
    ) -> EndOfTurnRequest:
        """Start a request and return it at once.

        Args:
            pcm: The utterance to transcribe, or the part after `windows`, as 16-bit PCM at 16 kHz.
            on_verdict: Called once with the probability that the turn is complete, or with None if it is unknown. If
                this argument is None, no verdict is requested.
            audio_until_now: Returns the utterance and the silence after it, for the turn detector; by default `pcm`.
            prefix_tokens: Tokens of the newest interim transcript, as a guess of the final transcript's beginning.
            interim: An interim transcript of all the speech in `pcm`; None if there is none.
            windows: The windows of the utterance before `pcm`, which are transcribed already or at the moment.
        """
        transcript: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        failures = StageFailures(self._services.metrics)
        request = EndOfTurnRequest(
            self._services.clock(),
            seconds=len(pcm) / SAMPLE_BYTES / STT_RATE,
            failures=failures,
            transcript=transcript,
            interim=interim,
        )
        job = SttJob(pcm, Priority.FINAL, self._services.settings.stt.deadline_s, prefix_tokens)
        request.tasks.append(self._group.create_task(self._transcribe(job, request, windows)))
        if on_verdict is not None:
            request.verdict = VerdictRequest(on_verdict)
            judge = self._judge(audio_until_now or (lambda: pcm), request.verdict, transcript)
            request.tasks.append(self._group.create_task(judge))
        return request

    def transcribe_window(self, pcm: bytes) -> asyncio.Future[Transcript]:
        """Start to transcribe a window of long speech, and return the future of its transcript.

        The future raises BackendError if all attempts failed. Cancelling it cancels the job. The session's windows are
        transcribed one after another, so that minutes of audio sent at once do not fill the stage's queue.
        """
        transcript: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(self._transcribe_in_order(pcm, transcript))
        transcript.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
        return transcript

    async def _transcribe_in_order(self, pcm: bytes, transcript: asyncio.Future[Transcript]) -> None:
        job = SttJob(pcm, Priority.FINAL, self._services.settings.stt.deadline_s)
        async with self._window_order:
            await self._settled(transcript, self._result(job, StageFailures(self._services.metrics)))

    async def _transcribe(self, job: SttJob, request: EndOfTurnRequest, windows: tuple[SpeechWindow, ...]) -> None:
        """Transcribe the rest of the utterance, join it to the transcripts of its windows, and settle the request."""
        await self._settled(request.transcript, self._whole(job, request, windows))
        if request.transcribed:
            self._read_ending(request.transcript.result().text, request)

    async def _whole(self, job: SttJob, request: EndOfTurnRequest, windows: tuple[SpeechWindow, ...]) -> Transcript:
        transcript = await self._result(job, request.failures)
        for window in reversed(windows):
            earlier = await asyncio.shield(window.transcript)
            transcript = _joined(earlier, transcript, overlaps=window.overlaps)
        request.seconds = transcript.audio_ms / 1000 if windows else request.seconds
        request.transcribed_at = self._services.clock()
        return transcript

    async def _result(self, job: SttJob, failures: StageFailures) -> Transcript:
        """Return the transcript of one job. Failed attempts are repeated.

        Raises:
            BackendError: All attempts failed, or the engine refuses the audio.
        """
        settings = self._services.settings
        try:
            return await retry_unary(
                "stt",
                lambda avoid: self._services.stages.stt.transcribe(job, avoid=avoid),
                failures,
                attempt_s=settings.stt.call_timeout_s,
                give_up_s=settings.conversation.give_up_after_s,
            )
        except CallerError as fault:
            raise BackendError(f"speech-to-text refuses the audio: {fault}", stage="stt") from fault

    async def _settled(self, future: asyncio.Future[Transcript], work: Coroutine[Any, Any, Transcript]) -> None:
        """Run `work`, and settle `future` with its transcript or its BackendError."""
        with contained("stt", self._services.metrics) as port:
            try:
                _settle(future, await work)
            except BackendError as fault:
                _settle(future, fault)
        if port.broke:
            _settle(future, BackendError("unexpected exception.", stage="stt"))

    def _read_ending(self, text: str, request: EndOfTurnRequest) -> None:
        """If the transcript looks complete and no verdict is known, answer the verdict and cancel the turn detector."""
        settings, verdict = self._services.settings, request.verdict
        if verdict is None or not verdict.open or not settings.endpointing.finished_probability:
            return
        if classify_ending(text, settings.stt.language) is TranscriptEnding.FINISHED:
            request.decided_by_transcript = True
            verdict.answer(settings.endpointing.finished_probability)
            request.tasks[JUDGING].cancel()

    async def _judge(
        self, audio: Callable[[], bytes], verdict: VerdictRequest, transcript: asyncio.Future[Transcript]
    ) -> None:
        """Wait for the transcript, until `ask_after_ms` of silence at most. Then call the turn detector and answer.

        If this takes longer than `verdict_timeout_ms`, the verdict is None (unknown), and the length of the silence
        decides. Cancelling this task cancels the call.

        Args:
            audio: Returns the utterance and the silence after it.
            verdict: The request to answer.
            transcript: Future of the final transcript.
        """
        settings = self._services.settings
        deadline = asyncio.get_running_loop().time() + settings.endpointing.verdict_timeout_ms / 1000
        early_ms = settings.endpointing.ask_after_ms - settings.speech.soft_end_ms
        probability: float | None = None
        with contained("turn_detector", self._services.metrics):
            try:
                async with asyncio.timeout_at(deadline):
                    if early_ms > 0 and settings.endpointing.finished_probability:
                        await asyncio.wait({transcript}, timeout=early_ms / 1000)
                    async with self._services.turn_detector_queue.slot(deadline):
                        judged = await self._predict(audio()[-VERDICT_SAMPLES * SAMPLE_BYTES :])
                        probability = end_of_turn_probability(judged, self._ending(transcript))
            except (TimeoutError, Overloaded) as fault:
                self._count(fault)
        verdict.answer(probability)

    def _ending(self, transcript: asyncio.Future[Transcript]) -> TranscriptEnding | None:
        """Return if the transcript looks complete, incomplete or unclear. Return None if it is not available."""
        if not transcript.done() or transcript.cancelled() or transcript.exception():
            return None
        return classify_ending(transcript.result().text, self._services.settings.stt.language)

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


def _joined(left: Transcript, right: Transcript, *, overlaps: bool) -> Transcript:
    """Return the transcript of two windows in a row. Its times are sums, its other values those of the worse window."""
    worse = min(left, right, key=lambda transcript: transcript.avg_logprob)
    return replace(
        worse,
        text=merge(left.text, right.text, overlaps=overlaps),
        audio_ms=left.audio_ms + right.audio_ms - (OVERLAP_S * 1000 if overlaps else 0.0),
        queue_ms=left.queue_ms + right.queue_ms,
        decode_ms=left.decode_ms + right.decode_ms,
        tokens=(),
    )


def _settle(future: asyncio.Future[Transcript], outcome: Transcript | BackendError) -> None:
    if future.done():
        return  # the request was cancelled, which also cancelled the future
    if isinstance(outcome, BackendError):
        future.set_exception(outcome)
        future.exception()  # marks the exception as read: asyncio logs a warning for one that nobody reads
    else:
        future.set_result(outcome)
