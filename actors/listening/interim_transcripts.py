"""Hearing while the caller speaks: guesses at the utterance so far, and the words on which two of them agree.

A guess is taken now and then, and as soon as the voice dips (`rejoinder/core/turns/speech_detector.py`): if the dip
was the end, its
words are known before the silence is, and the reply can begin with them. The final transcript judges that.

One guess is under way at a time, each takes the audio as it is when it starts, and the pause behind it grows with what
it took: so a loaded speech-to-text stage is asked less often by itself, and one that refuses is left alone for longer.
Nothing depends on a guess. The language model reads ahead what is likely (by a wrong word it only loses the reading);
and while a reply is paused, what was said over it is guessed at more often, since words end the reply.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from actors.listening.audio_input import AudioInput
from actors.stages.degradation import SessionDegradation
from actors.stages.ports import Priority, SttJob, Transcript
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.turns.local_agreement import Agreement, agree

CREDIT_S = 0.15
"""Rest that a dip may put off: the last dip is worth more than the guess before it. While speech-to-text answers in 50
ms that is two guesses at once; when it takes 300, most of the rest is kept."""


@dataclass(slots=True, eq=False)
class InterimTranscript:
    """At what was said before sample `until`. `heard` resolves to None if it fails or is cancelled; `at`: when it was
    there (monotonic).
    """

    until: int
    transcript: asyncio.Future[Transcript | None]
    at: float = 0.0


class InterimReader(Protocol):
    """Who has the language model read ahead."""

    degradation: SessionDegradation

    def read_ahead(self, said: str, *, whole: bool) -> None:
        """The words that are likely have changed; with `whole` they may be all."""
        ...


class InterimJudge(Protocol):
    """Who draws conclusions from guesses."""

    def interim_transcribed(self, latest: str, stable: str) -> None:
        """Each guess while a reply waits for the words, and what is sure."""
        ...


class InterimTranscripts:
    """Of one session. `begin` with an utterance, `settle` at a soft end, `resume` when it was none, `end` with it."""

    def __init__(
        self,
        services: Services,
        audio_input: AudioInput,
        group: asyncio.TaskGroup,
        reader: InterimReader,
        *,
        barge_in: InterimJudge,
    ) -> None:
        self._services = services
        self._settings = services.settings.interim_transcripts
        self._reads_ahead = services.settings.llm.reads_ahead
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
    def tokens(self) -> tuple[int, ...]:
        """The engine's own of the newest guess: the final transcript mostly begins with them."""
        return self._tokens

    def begin(self, start: int) -> None:
        """An utterance has begun; its audio is that from sample `start` on."""
        self.end()
        self._start = start
        self.resume()

    def prioritize(self) -> None:
        """A reply waits for the words of this utterance."""
        self._reply_waits = True
        self.pause()
        self.resume()

    def dip_started(self) -> None:
        """The voice has dipped: guess now, if the share of time that guesses may take allows it."""
        if self._settings.at_dips:
            self._dip_seen.set()

    def settle(self, dip: int | None) -> InterimTranscript | None:
        """The caller has stopped, and the final transcript goes first. Returns the guess at all that was said before
        the voice dipped at sample `dip` (None: it did not), if there is one; if it is under way, it goes on.
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
        """The caller goes on after a pause; what is sure of the utterance stays so."""
        self._final_pending = False
        self._dip_seen.clear()
        useful = self._reply_waits or (self._reads_ahead and self._prefill_reader.degradation.speculates)
        if self._settings.enabled and useful and self._task is None:
            self._task = self._group.create_task(self._run())

    def pause(self) -> None:
        """Stop guessing, and drop the guess that is under way."""
        if self._task:
            self._task.cancel()
            self._task = None

    def end(self) -> None:
        """The utterance is over."""
        self.pause()
        self._agreement = Agreement()
        self._tokens = ()
        self._last_read = ("", False)
        self._newest = None
        self._reply_waits = False

    async def _run(self) -> None:
        """Guess again and again, until the last one or cancelled; a bug in the port ends it, and not the session."""
        with contained("stt", self._services.metrics):
            await self._transcribe_repeatedly()
            self._task = None

    async def _transcribe_repeatedly(self) -> None:
        barge_in_settings = self._services.settings.barge_in
        interval_ms = barge_in_settings.interim_every_ms if self._reply_waits else self._settings.every_ms
        interval_s = interval_ms / 1000
        least_s, pause_s = 0.0, interval_s
        while not self._final_pending:
            skipped_s = await self._pause(least_s, pause_s)
            self._dip_seen.clear()
            in_dip = self._settings.at_dips and self._audio_input.dip is not None
            started_at = self._services.clock()
            try:
                transcript = await self._transcribe(interval_s)
            except (BackendError, Overloaded, TimeoutError):
                least_s = pause_s = min(2 * pause_s, self._settings.max_interval_ms / 1000)
                self._services.metrics.partial("failed")
                continue
            took_s = self._services.clock() - started_at
            least_s = skipped_s + took_s * (1 / self._settings.share - 1)
            pause_s = max(interval_s - took_s, least_s)
            self._services.metrics.partial("heard")
            self._use(transcript, whole=in_dip and not transcript.doubted)

    async def _pause(self, least_s: float, pause_s: float) -> float:
        """Pause, at least so long if the voice dips meanwhile, but for CREDIT_S; returns what is owed of that then."""
        due = self._services.clock() + least_s
        strict_s = max(0.0, least_s - CREDIT_S)
        await asyncio.sleep(strict_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s - strict_s):
                await self._dip_seen.wait()
        return max(0.0, due - self._services.clock())

    async def _transcribe(self, deadline_s: float) -> Transcript:
        """One guess at the utterance as it is now."""
        self._newest = interim = InterimTranscript(
            self._audio_input.received, asyncio.get_running_loop().create_future()
        )
        job = SttJob(self._audio_input.pcm(self._start, interim.until), Priority.PARTIAL, deadline_s, self._tokens)
        transcript: Transcript | None = None
        try:
            async with asyncio.timeout(self._services.settings.stt.call_timeout_s):
                transcript = await self._services.stages.stt.transcribe(job)
        finally:
            interim.at = self._services.clock()
            interim.transcript.set_result(transcript)
        return transcript

    def _use(self, transcript: Transcript, *, whole: bool) -> None:
        """`whole`: its last word is no half of another."""
        self._tokens = transcript.tokens
        self._agreement = agree(self._agreement, transcript.text)
        likely = transcript.text if whole else self._agreement.likely
        if self._reads_ahead and (likely, whole) != self._last_read:
            self._last_read = (likely, whole)
            self._prefill_reader.read_ahead(likely, whole=whole)
        if self._reply_waits:
            self._barge_in.interim_transcribed(transcript.text, self._agreement.text)
