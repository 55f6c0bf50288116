"""Requests at a tentative end of speech: for the final transcript, and for the verdict whether the turn is over.

The verdict is made in `turn_judge`. A request for an utterance that the client ends asks for the transcript only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from actors.listening.interim_transcripts import InterimTranscript
from actors.listening.long_speech import SpeechWindow
from actors.listening.turn_judge import OpenVerdict, TurnJudge, VerdictRequest
from actors.stages.ports import Priority, SttJob, Transcript, WordTime
from actors.stages.retry import StageFailures, contained, retry_unary
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.audio.windows import OVERLAP_S
from rejoinder.core.errors import BackendError, CallerError
from rejoinder.core.turns.transcript_windows import merge


@dataclass(slots=True)
class EndOfTurnRequest:
    """A request for the transcript and the turn verdict of the utterance so far. Times are monotonic seconds.

    Attributes:
        started_at: When the request was made.
        seconds: Length of the audio, in seconds.
        failures: The stages that currently fail for this request.
        transcript: Future of the final transcript. It raises BackendError if all attempts at speech-to-text failed.
        interim: An interim transcript of all the speech in this audio; None if there is none.
        verdict: The verdict whether the turn is over; None if none was requested.
        tasks: The task that gets the transcript, then the tasks that make the verdict, if one was requested.
        transcribed_at: When the transcript became available; None before.
        correction: Future of the second recognizer's transcript, while it is pending or if it came too late for the
            answer; None otherwise. It may raise BackendError.
    """

    started_at: float
    seconds: float
    failures: StageFailures
    transcript: asyncio.Future[Transcript]
    interim: InterimTranscript | None = None
    verdict: OpenVerdict | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    transcribed_at: float | None = None
    correction: asyncio.Future[Transcript] | None = None

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
        """Cancel the tasks that get the transcript, its correction and the verdict.

        A queued speech-to-text job leaves its queue. The result of a running job is dropped.
        """
        self.transcript.cancel()
        if self.correction:
            self.correction.cancel()
        for task in self.tasks:
            task.cancel()


class EndOfTurn:
    """Starts the end-of-turn requests of one session. Their tasks run in the session's group and never raise."""

    def __init__(
        self,
        services: Services,
        group: asyncio.TaskGroup,
        judge: TurnJudge,
        *,
        word_times: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create it. `word_times` returns True if the client wants the times of the words."""
        self._word_times = word_times
        self._services = services
        self._group = group
        self._judge = judge
        self._window_order = asyncio.Lock()

    def start(
        self,
        pcm: bytes,
        verdict: VerdictRequest | None,
        prefix_tokens: tuple[int, ...] = (),
        *,
        interim: InterimTranscript | None = None,
        windows: tuple[SpeechWindow, ...] = (),
        speech_detected: bool = True,
    ) -> EndOfTurnRequest:
        """Start a request and return it at once.

        Args:
            pcm: The utterance to transcribe, or the part after `windows`, as 16-bit PCM at 16 kHz.
            verdict: What to judge; None for no verdict.
            prefix_tokens: Tokens of the newest interim transcript, as a guess of the final transcript's beginning.
            interim: An interim transcript of all the speech in `pcm`; None if there is none.
            windows: The windows of the utterance before `pcm`, which are transcribed already or at the moment.
            speech_detected: False if voice activity detection has not found speech in the audio.
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
        job = SttJob(
            pcm,
            Priority.FINAL,
            self._services.settings.stt.deadline_s,
            prefix_tokens,
            speech_detected=speech_detected,
            word_times=self._word_times(),
        )
        request.tasks.append(self._group.create_task(self._transcribe(job, request, windows)))
        if verdict is not None:
            request.verdict, tasks = self._judge.start(verdict, transcript)
            request.tasks += tasks
        return request

    def transcribe_window(self, pcm: bytes, speech_detected: bool) -> asyncio.Future[Transcript]:
        """Start to transcribe a window of long speech (`pcm`), and return the future of its transcript.

        The future raises BackendError if all attempts failed. Cancelling it cancels the job. The session's windows are
        transcribed one after another, so that minutes of audio sent at once do not fill the stage's queue.
        `speech_detected` is False if voice activity detection has not found speech in the utterance.
        """
        transcript: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        deadline_s, timed = self._services.settings.stt.deadline_s, self._word_times()
        job = SttJob(pcm, Priority.FINAL, deadline_s, speech_detected=speech_detected, word_times=timed)
        task = self._group.create_task(self._transcribe_in_order(job, transcript))
        transcript.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
        return transcript

    async def _transcribe_in_order(self, job: SttJob, transcript: asyncio.Future[Transcript]) -> None:
        async with self._window_order:
            await self._settled(transcript, self._in_full(job, StageFailures(self._services.metrics)))

    async def _in_full(self, job: SttJob, failures: StageFailures) -> Transcript:
        """Return the first-pass transcript of a job, or the second recognizer's if the first has low confidence.

        There is no time limit for the second recognizer. `failures` records failed attempts.
        """
        first = await self._result(job, failures)
        return await self._result(_second_opinion(job, first), failures) if first.low_confidence else first

    async def _transcribe(self, job: SttJob, request: EndOfTurnRequest, windows: tuple[SpeechWindow, ...]) -> None:
        """Transcribe the end of the utterance, join it to the transcripts of its windows, and settle the request.

        `job` has the audio after `windows`.
        """
        await self._settled(request.transcript, self._whole(job, request, windows))

    async def _whole(self, job: SttJob, request: EndOfTurnRequest, windows: tuple[SpeechWindow, ...]) -> Transcript:
        transcript = await self._in_time(job, request, windows)
        request.seconds = transcript.audio_ms / 1000 if windows else request.seconds
        request.transcribed_at = self._services.clock()
        return transcript

    async def _in_time(self, job: SttJob, request: EndOfTurnRequest, windows: tuple[SpeechWindow, ...]) -> Transcript:
        """Return the joined transcript of the windows and of the job, whose audio follows them.

        If the job's first transcript has low confidence, the second recognizer has `second_opinion_ms` to replace it.
        After that the first transcript is returned, and the second one becomes the request's `correction`. If the
        first transcript is too bad to be answered (`Transcript.usable`), the wait has no limit.
        """
        first = await self._result(job, request.failures)
        if not first.low_confidence:
            return await _with_windows(first, windows)
        failures = StageFailures(self._services.metrics) if first.usable else request.failures
        second: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(self._settled(second, self._second(job, first, failures, windows=windows)))
        # If the caller continues, the request is cancelled and cancels the second recognizer's job with it. After the
        # commit the job continues, for the correction.
        second.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
        request.correction = second
        limit_s = self._services.settings.stt.second_opinion_ms / 1000 if first.usable else None
        await asyncio.wait({second}, timeout=limit_s)
        if not second.done() or (first.usable and second.exception()):
            return await _with_windows(first, windows)
        request.correction = None
        return second.result()

    async def _second(
        self, job: SttJob, first: Transcript, failures: StageFailures, *, windows: tuple[SpeechWindow, ...]
    ) -> Transcript:
        """Return the transcripts of the windows, joined with the second recognizer's transcript of the job.

        If the second recognizer finds no words after windows, a usable `first` transcript is joined instead.
        """
        second = await self._result(_second_opinion(job, first), failures)
        return await _with_windows(first if windows and first.usable and not second.text else second, windows)

    async def _result(self, job: SttJob, failures: StageFailures) -> Transcript:
        """Return the transcript of one job. Failed attempts are recorded in `failures` and repeated.

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


async def _with_windows(rest: Transcript, windows: tuple[SpeechWindow, ...]) -> Transcript:
    """Return the transcript of a whole utterance: those of its windows, in order, joined with `rest`.

    `rest` is the transcript of the audio after the last window.

    Raises:
        BackendError: A window could not be transcribed.
    """
    for window in reversed(windows):
        rest = _joined(await asyncio.shield(window.transcript), rest, overlaps=window.overlaps)
    return rest


def _second_opinion(job: SttJob, first: Transcript) -> SttJob:
    """Return the job that has the second recognizer transcribe the audio of `job` again.

    `first` is the first-pass transcript, which has low confidence.
    """
    return replace(job, priority=Priority.SECOND_OPINION, guess=(), first=first, speech_detected=True)


def _joined(left: Transcript, right: Transcript, *, overlaps: bool) -> Transcript:
    """Return the transcript of two successive windows, `left` before `right`.

    Queue and decoding times are added. Confidence and language are those of the window with the lower confidence.
    With `overlaps` the windows share audio, so the words that both have appear once.
    """
    shared_ms = OVERLAP_S * 1000 if overlaps else 0.0
    worse = min(left, right, key=lambda transcript: transcript.avg_logprob)
    return replace(
        worse,
        text=merge(left.text, right.text, overlaps=overlaps),
        audio_ms=left.audio_ms + right.audio_ms - shared_ms,
        queue_ms=left.queue_ms + right.queue_ms,
        decode_ms=left.decode_ms + right.decode_ms,
        tokens=(),
        words=_joined_words(left, right, shared_ms),
    )


def _joined_words(left: Transcript, right: Transcript, shared_ms: float) -> tuple[WordTime, ...]:
    """Return the words of two windows with their times from the start of the left one; empty if some are not known.

    The windows share `shared_ms` milliseconds. Words count as the left window's up to the middle of what they share.
    """
    if (left.text and not left.words) or (right.text and not right.words):
        return ()
    middle_s, offset_s = (left.audio_ms - shared_ms / 2) / 1000, (left.audio_ms - shared_ms) / 1000
    shifted = (WordTime(word.word, word.start_s + offset_s, word.end_s + offset_s) for word in right.words)
    return (
        *(word for word in left.words if word.start_s + word.end_s <= 2 * middle_s),
        *(word for word in shifted if word.start_s + word.end_s > 2 * middle_s),
    )


def _settle(future: asyncio.Future[Transcript], outcome: Transcript | BackendError) -> None:
    if future.done():
        return  # the request was cancelled, which also cancelled the future
    if isinstance(outcome, BackendError):
        future.set_exception(outcome)
        future.exception()  # marks the exception as read: asyncio logs a warning for one that nobody reads
    else:
        future.set_result(outcome)
