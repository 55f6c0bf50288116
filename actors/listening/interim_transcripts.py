"""Interim transcripts: what the caller has said so far, while the caller still speaks.

Speech-to-text transcribes the utterance so far at intervals, and as soon as the voice dips: falls by 20 dB
(`rejoinder/core/turns/speech_detector.py`). If the dip is the end of the turn, the words of the turn are known before
the silence is over, and a speculative reply can begin with them. The final transcript then confirms or replaces them.

One interim transcript is under way at a time. It covers the audio received before it was requested. The pause after it
grows with the time that it took, so a loaded speech-to-text stage gets fewer requests. After a failure the pause
doubles. A missing interim transcript breaks nothing. The language model prefills the words that two interim transcripts
agree on, and a wrong word costs only that prefill. A client that gets transcripts gets these words too. While a reply
is paused, interim transcripts are requested more often, because words addressed to the agent end the reply.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from actors.listening.audio_input import AudioInput
from actors.listening.transcript_deltas import TranscriptDeltas
from actors.stages.degradation import SessionDegradation
from actors.stages.ports import Priority, SttJob, Transcript
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.audio.windows import SPLIT_SAMPLES
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.turns.local_agreement import Agreement, agree

CREDIT_S = 0.15
"""How much of the pause between two interim transcripts a dip may skip, in seconds. The skipped part is added to the
next pause. The transcript at the last dip of a turn is the most useful one, because it may have all words of the turn.
If speech-to-text takes 50 ms, this allows two transcripts in a row; if it takes 300 ms, most of the pause remains."""


@dataclass(slots=True, eq=False)
class InterimTranscript:
    """Transcript of an utterance that still continues; requested or complete.

    Attributes:
        until: Sample (16 kHz) at which the transcribed audio ends.
        transcript: Future of the transcript. Its result is None if the request failed or was cancelled.
        at: Monotonic time at which the future got its result; 0 before.
    """

    until: int
    transcript: asyncio.Future[Transcript | None]
    at: float = 0.0


class InterimReader(Protocol):
    """What interim transcripts need from the session's replies: a method that prefills a prompt with the words."""

    degradation: SessionDegradation

    def read_ahead(self, transcript: str, *, whole: bool) -> None:
        """Let the language model prefill a prompt that ends with the caller's words so far.

        Args:
            transcript: The words.
            whole: True if the caller may have said all words of the turn; False if the last word may be cut off.
        """
        ...


class InterimJudge(Protocol):
    """What interim transcripts need from the barge-in detector: a method that receives each transcript."""

    def interim_transcribed(self, latest: str, stable: str) -> None:
        """Handle an interim transcript while a paused reply waits for the caller's words.

        Args:
            latest: All words of the transcript.
            stable: The words at the beginning of the utterance that two transcripts in a row agreed on.
        """
        ...


class InterimTranscripts:
    """Interim transcripts of one session.

    Call `begin` when an utterance starts, `dip_started` when the voice dips, `settle` at a tentative end of speech,
    `resume` when the caller continues, and `end` when the utterance is over. `prioritize` makes them more frequent.
    """

    def __init__(
        self,
        services: Services,
        audio_input: AudioInput,
        group: asyncio.TaskGroup,
        reader: InterimReader,
        *,
        barge_in: InterimJudge,
        deltas: TranscriptDeltas,
    ) -> None:
        self._deltas = deltas
        self._services = services
        self._settings = services.settings.interim_transcripts
        self._reads_ahead = services.settings.llm.supports_prefill
        self._audio_input = audio_input
        self._group = group
        self._prefill_reader = reader
        self._barge_in = barge_in
        self._reply_waits = False
        self._agreement = Agreement()
        self._tokens: tuple[int, ...] = ()
        self._start = 0
        self._last_read = ("", False)
        self._newest: InterimTranscript | None = None
        self._dip_seen = asyncio.Event()
        self._final_pending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def _too_long(self) -> bool:
        """True if the utterance is too long for one transcript. Its windows are then transcribed (`LongSpeech`)."""
        return self._audio_input.received - self._start > SPLIT_SAMPLES

    @property
    def _useful(self) -> bool:
        """True if a paused reply waits for the words, or if the language model may prefill or the client get them."""
        reads = self._reads_ahead or self._deltas.wanted
        return self._reply_waits or (reads and self._prefill_reader.degradation.speculates)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids of the newest interim transcript, for `SttJob.guess`; empty if there is none.

        The final transcript usually begins with these tokens.
        """
        return self._tokens

    def begin(self, start: int) -> None:
        """Start interim transcripts of an utterance whose audio begins at sample `start` (16 kHz)."""
        self.end()
        self._start = start
        self.resume()

    def prioritize(self) -> None:
        """Transcribe more often, because a paused reply waits for the words of this utterance."""
        self._reply_waits = True
        self.pause()
        self.resume()

    def dip_started(self) -> None:
        """Transcribe sooner, because the voice dipped: a dip may skip CREDIT_S (0.15 s) of the pause."""
        if self._settings.at_dips:
            self._dip_seen.set()

    def settle(self, dip: int | None) -> InterimTranscript | None:
        """Start no more interim transcripts, because the caller paused and the final transcript has priority.

        Args:
            dip: The sample at which the voice dipped; None if it did not.

        Returns:
            The interim transcript of all speech before the dip, which may still be under way. None if there is none;
            then an interim transcript that is under way is cancelled.
        """
        interim = self._newest
        if not self._settings.at_dips or dip is None or interim is None or interim.until < dip:
            self.pause()
            return None
        if interim.transcript.done():
            self.pause()
        self._final_pending = True
        return interim

    def resume(self) -> None:
        """Continue interim transcripts, because the caller continues after a pause.

        Words that two transcripts agreed on before the pause remain agreed.
        """
        self._final_pending = False
        self._dip_seen.clear()
        if self._settings.enabled and self._useful and self._task is None:
            self._task = self._group.create_task(self._run())

    def pause(self) -> None:
        """Stop interim transcripts, and cancel one that is under way. `resume` continues."""
        if self._task:
            self._task.cancel()
            self._task = None

    def end(self) -> None:
        """Stop interim transcripts and forget the utterance, because it is over."""
        self.pause()
        self._agreement = Agreement()
        self._tokens = ()
        self._last_read = ("", False)
        self._newest = None
        self._reply_waits = False

    async def _run(self) -> None:
        """Transcribe repeatedly, until `settle` is called or the task is cancelled.

        An unexpected exception of the port (a bug) ends the interim transcripts, but not the session.
        """
        with contained("stt", self._services.metrics):
            await self._transcribe_repeatedly()
            self._task = None

    async def _transcribe_repeatedly(self) -> None:
        barge_in_settings = self._services.settings.barge_in
        interval_ms = barge_in_settings.interim_every_ms if self._reply_waits else self._settings.every_ms
        interval_s = interval_ms / 1000
        least_s, pause_s = 0.0, interval_s
        while not self._final_pending and (self._reply_waits or not self._too_long):
            skipped_s = await self._pause(least_s, pause_s)
            self._dip_seen.clear()
            if not self._useful:  # the stages became loaded meanwhile
                continue
            in_dip = self._settings.at_dips and self._audio_input.dip is not None
            started_at = self._services.clock()
            try:
                transcript = await self._transcribe(interval_s)
            except (BackendError, Overloaded, TimeoutError):
                least_s = pause_s = min(2 * pause_s, self._settings.max_interval_ms / 1000)
                self._services.metrics.interim_transcript("failed")
                continue
            took_s = self._services.clock() - started_at
            least_s = skipped_s + took_s * (1 / self._settings.share - 1)
            pause_s = max(interval_s - took_s, least_s)
            self._services.metrics.interim_transcript("heard")
            if self._too_long:  # the transcript covers only the newest audio, so its words are no prompt for a prefill
                self._barge_in.interim_transcribed(transcript.text, self._agreement.text)
            else:
                self._use(transcript, whole=in_dip and not transcript.low_confidence)

    async def _pause(self, least_s: float, pause_s: float) -> float:
        """Sleep for `pause_s` seconds. A dip of the voice may end the sleep earlier.

        Args:
            least_s: Shortest pause, in seconds, with which interim transcripts use no more than their share of the
                time. A dip may end it at most CREDIT_S (0.15 s) early.
            pause_s: Pause without a dip, in seconds; at least `least_s`.

        Returns:
            The seconds by which the pause was shorter than `least_s`; 0 if it was not.
        """
        due = self._services.clock() + least_s
        strict_s = max(0.0, least_s - CREDIT_S)
        await asyncio.sleep(strict_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s - strict_s):
                await self._dip_seen.wait()
        return max(0.0, due - self._services.clock())

    async def _transcribe(self, deadline_s: float) -> Transcript:
        """Return a transcript of the utterance so far, or of its newest part if the utterance is too long.

        The transcript becomes the session's newest interim transcript. `deadline_s` is the longest wait in the
        speech-to-text queue, in seconds.
        """
        self._newest = interim = InterimTranscript(
            self._audio_input.received, asyncio.get_running_loop().create_future()
        )
        pcm = self._audio_input.pcm(max(self._start, interim.until - SPLIT_SAMPLES), interim.until)
        job = SttJob(pcm, Priority.INTERIM, deadline_s, self._tokens)
        transcript: Transcript | None = None
        try:
            async with asyncio.timeout(self._services.settings.stt.call_timeout_s):
                transcript = await self._services.stages.stt.transcribe(job)
        finally:
            interim.at = self._services.clock()
            interim.transcript.set_result(transcript)
        return transcript

    def _use(self, transcript: Transcript, *, whole: bool) -> None:
        """Pass the words to the prefill, to the client and, if a paused reply waits, to the barge-in detector.

        `whole` is True if the audio ends in a dip, so the last word is not cut off.
        """
        self._tokens = transcript.tokens
        self._agreement = agree(self._agreement, transcript.text)
        likely = transcript.text if whole else self._agreement.likely
        if self._reads_ahead and (likely, whole) != self._last_read:
            self._last_read = (likely, whole)
            self._prefill_reader.read_ahead(likely, whole=whole)
        if self._reply_waits:
            self._barge_in.interim_transcribed(transcript.text, self._agreement.text)
        self._deltas.advance(self._agreement.stable)
