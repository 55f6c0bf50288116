"""Fake stages for tests, with configurable delays and failures.

Loud audio counts as speech, and its transcript comes from a configured list. While `fault` of a stage is set, every
call of the stage raises it. The first `hangs` calls never return.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actors.stages.ports import (
    ANYWHERE,
    LlmRequest,
    LlmStream,
    LlmUsage,
    Priority,
    SttJob,
    TokenDelta,
    Transcript,
    TtsRequest,
    TurnVerdict,
    VadBatch,
    VadResult,
    WordTime,
)
from actors.stages.replica_health import PROBE
from rejoinder.core.errors import BackendError
from rejoinder.core.resilience.stream_report import StreamReport


@dataclass
class LoudnessVad:
    """Fake voice activity detection: probability 0.95 for a loud window, 0.02 for a quiet one."""

    fault: Exception | None = None
    delay_s: float = 0.0

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fault:
            raise self.fault
        windows = np.frombuffer(batch.windows, np.float32).reshape(batch.n, 512)
        loud = np.sqrt((windows**2).mean(axis=1)) > 0.01
        return VadResult(tuple(0.95 if yes else 0.02 for yes in loud), batch.states)


@dataclass
class ScriptedTurn:
    """Fake turn detector that returns `probabilities` in order, and repeats the last. For None the call never returns.

    `received` has the audio of each call, `withdrawn` counts cancelled calls, and `most_at_once` is the largest number
    of calls that ran at the same time.
    """

    probabilities: deque[float | None] = field(default_factory=lambda: deque([0.98]))
    delay_s: float = 0.04
    fault: Exception | None = None
    received: list[bytes] = field(default_factory=list)
    withdrawn: int = 0
    running: int = 0
    most_at_once: int = 0

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        self.received.append(pcm)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            return await self._judge()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        finally:
            self.running -= 1

    @property
    def calls(self) -> int:
        return len(self.received)

    async def _judge(self) -> TurnVerdict:
        await asyncio.sleep(self.delay_s)
        if self.fault:
            raise self.fault
        value = self.probabilities.popleft() if len(self.probabilities) > 1 else self.probabilities[0]
        if value is None:
            await asyncio.Event().wait()
        return TurnVerdict(value or 0.0, self.delay_s * 1000)


def open_words() -> ScriptedStt:
    """Return a fake speech-to-text whose transcript looks incomplete, so that the turn detector decides."""
    return ScriptedStt(deque(["What time is it and"]))


@dataclass
class ScriptedStt:
    """Fake speech-to-text that returns `texts` in order, and repeats the last. The first `failures` calls fail.

    Interim transcripts have the texts of `interims`, in order, and then the text of the next final one. `logprob` and
    `agreed` are those of the final transcripts (`Transcript.avg_logprob`, `Transcript.agreed`). `partials` has the
    requests for interim transcripts, `jobs` those for final ones.
    """

    texts: deque[str] = field(default_factory=lambda: deque(["What time is it?"]))
    delay_s: float = 0.15
    failures: int = 0
    fault: Exception | None = None
    hangs: int = 0
    jobs: list[SttJob] = field(default_factory=list)
    partials: list[SttJob] = field(default_factory=list)
    avoided: list[frozenset[str]] = field(default_factory=list)
    cancelled: int = 0
    interims: deque[str] = field(default_factory=deque)
    logprob: float = -0.2
    agreed: bool = False

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        if job.priority is Priority.INTERIM:
            self.partials.append(job)
            text = self.interims.popleft() if self.interims else self.texts[0]
            await asyncio.sleep(self.delay_s)
            return Transcript(
                text, audio_ms=len(job.pcm) / 32, queue_ms=0.0, decode_ms=self.delay_s * 1000, avg_logprob=-0.2
            )
        self.avoided.append(avoid)
        try:
            await asyncio.sleep(self.delay_s)
            if self.hangs:
                self.hangs -= 1
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault:
            raise self.fault
        if self.failures:
            self.failures -= 1
            raise BackendError("gone.", stage="stt", replica="stt-1")
        self.jobs.append(job)
        text = self.texts.popleft() if len(self.texts) > 1 else self.texts[0]
        return Transcript(
            text,
            audio_ms=len(job.pcm) / 32,
            queue_ms=0.0,
            decode_ms=self.delay_s * 1000,
            avg_logprob=self.logprob,
            agreed=self.agreed,
            words=_half_seconds(text) if job.word_times else (),
        )


def _half_seconds(text: str) -> tuple[WordTime, ...]:
    """Return the words of a text, each half a second long."""
    return tuple(WordTime(word, number / 2, number / 2 + 0.5) for number, word in enumerate(text.split()))


@dataclass
class _Script:
    replica: str
    words: list[str]
    ttft_s: float
    gap_s: float
    break_after: int | None
    stubborn: bool
    length: bool
    stopped: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    end: float | None = None

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        await self._think()
        for number, word in enumerate(self.words):
            while self.replica in self.stopped | self.paused:  # noqa: ASYNC110  # `stopped` is a plain set that tests change
                await asyncio.sleep(0.01)
            if number == self.break_after:
                raise BackendError("died.", stage="llm", replica=self.replica)
            if number:
                await asyncio.sleep(self.gap_s)
            if number < len(self.words) - 1:
                yield TokenDelta(word)
        finish: Literal["stop", "length"] = "length" if self.length else "stop"
        yield TokenDelta(
            self.words[-1] if self.words else "", 1, finish, LlmUsage(20, len(self.words), end_probability=self.end)
        )

    async def _think(self) -> None:
        try:
            await asyncio.sleep(self.ttft_s)
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
            await asyncio.sleep(5)


ANSWER = "It is noon. The sun stands high, and lunch is ready for everyone who wants some."


@dataclass
class WordyLlm:
    """Fake language model that generates `answer` word by word, on replica a unless the call avoids it.

    `ttft_s` (seconds to the first token) and `break_after` (words before a failure) have a value per replica. A replica
    in `dead` fails each request. A replica in `stubborn` continues for 5 s after cancellation. A replica in `stopped`
    sends nothing until it is removed from the set, like a process after SIGSTOP. A replica in `paused` sends no words
    either, but it still reports. `reports` has the reports of replicas on their streams, and `questions` the replicas
    that were asked for them. `message_end` is the returned probability that the caller's message is complete, for
    requests with `judge_end`.
    """

    answer: str = ANSWER
    ttft_s: dict[str, float] = field(default_factory=lambda: {"a": 0.08, "b": 0.08})
    gap_s: float = 0.02
    break_after: dict[str, int] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    fault: Exception | None = None
    hangs: int = 0
    requests: list[tuple[str, LlmRequest]] = field(default_factory=list)
    prefill_s: float = 0.01
    prefills: list[LlmRequest] = field(default_factory=list)
    probes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    reports: dict[str, StreamReport] = field(default_factory=dict)
    running: int = 0
    queued: int | None = None
    message_end: float | None = None

    def queue(self, avoid: frozenset[str]) -> int | None:
        return self.queued

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        self.questions.append(replica)
        if replica in self.stopped:
            await asyncio.Event().wait()
        if replica in self.dead:
            raise BackendError("actor died.", stage="llm", replica=replica)
        return self.reports.get(replica, StreamReport(0, 0.0))

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        choice = [name for name in self.ttft_s if name not in avoid] or list(self.ttft_s)
        replica = only or choice[0]
        if request.prefill:
            self.prefills.append(request)
            end = self.message_end if request.judge_end else None
            yield _Script(replica, [], self.prefill_s, gap_s=0, break_after=None, stubborn=False, length=False, end=end)
            return
        if request.messages == PROBE:
            self.probes.append(replica)
        else:
            self.requests.append((replica, request))
        if self.fault:
            raise self.fault
        if self.hangs:
            self.hangs -= 1
            await asyncio.Event().wait()
        if replica in self.dead:
            await asyncio.sleep(0.02)
            raise BackendError("actor died.", stage="llm", replica=replica)
        left = self.answer[len(request.prefix) :]
        words = [word + " " for word in left.split(" ") if word]
        if words:
            words[-1] = words[-1].rstrip()
        self.running += 1
        kept = words[: request.max_tokens]
        try:
            yield _Script(
                replica,
                words=kept,
                ttft_s=self.ttft_s[replica],
                gap_s=self.gap_s,
                break_after=self.break_after.get(replica),
                stubborn=replica in self.stubborn,
                length=len(kept) < len(words),
                stopped=self.stopped,
                paused=self.paused,
            )
        finally:
            self.running -= 1


@dataclass
class ToneTts:
    """Fake text-to-speech: 80 ms of quiet tone per character, after `delay_s` seconds.

    The first `failures` attempts fail, each after `fail_after` chunks (of 80 ms) of a segment.
    """

    delay_s: float = 0.05
    failures: int = 0
    fail_after: int = 0
    fault: Exception | None = None
    hangs: int = 0
    texts: list[str] = field(default_factory=list)
    running: int = 0

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.fault:
            raise self.fault
        self.texts.append(request.text)
        if self.hangs:
            self.hangs -= 1
            await asyncio.Event().wait()
        self.running += 1
        try:
            yield self._chunks(request.text)
        finally:
            self.running -= 1

    async def _chunks(self, text: str) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.delay_s)
        for number, _ in enumerate(text):
            if self.failures and number >= self.fail_after:
                self.failures -= 1
                raise BackendError("voice lost.", stage="tts", replica="tts-1")
            yield voice_chunk(number)


CHUNK_SAMPLES = 1920


def voice_chunk(number: int) -> bytes:
    """Return chunk `number` of a segment's tone, 80 ms of 16-bit PCM. All chunks differ, so repetitions are found."""
    at = np.arange(number * CHUNK_SAMPLES, (number + 1) * CHUNK_SAMPLES)
    return bytes((np.sin(at * 0.1) * 3000).astype("<i2").tobytes())


def voice(text: str) -> bytes:
    """Return all audio that `ToneTts` makes of a segment."""
    return b"".join(voice_chunk(number) for number in range(len(text)))


@dataclass
class CountingMetrics:
    """Fake metrics that count each call by its name and labels.

    `turns` has the seconds of each turn, in total and per stage. `stops_s` has the seconds from each barge-in until the
    reply stopped, `round_trips_s` those of each round trip to a caller.
    """

    counts: Counter[str] = field(default_factory=Counter)
    turns: list[dict[str, float]] = field(default_factory=list)
    stops_s: list[float] = field(default_factory=list)
    round_trips_s: list[float] = field(default_factory=list)

    def turn(
        self,
        voice_to_voice_s: float,
        stages_s: dict[str, float],
        *,
        raw_s: dict[str, float],
        engines: dict[str, str],
    ) -> None:
        self.turns.append({"total": voice_to_voice_s, **stages_s})

    def session_opened(self) -> None:
        self.counts["opened"] += 1

    def session_closed(self, duration_s: float) -> None:
        self.counts["closed"] += 1

    def refused(self, reason: str) -> None:
        self.counts[f"refused {reason}"] += 1

    def hedge(self, outcome: Literal["sent", "won", "wasted", "budget_exhausted", "vetoed"]) -> None:
        self.counts[f"hedge {outcome}"] += 1

    def hedge_delay(self, delay_s: float) -> None:
        self.counts["hedge_delay"] += 1

    def interim_transcript(self, outcome: Literal["heard", "failed"]) -> None:
        self.counts[f"partial {outcome}"] += 1

    def draft(self, outcome: str) -> None:
        self.counts[f"draft {outcome}"] += 1

    def breaker(self, outcome: Literal["opened", "closed"]) -> None:
        self.counts[f"breaker {outcome}"] += 1

    def cache(self, outcome: str) -> None:
        self.counts[f"cache {outcome}"] += 1

    def filler(self, after_s: float) -> None:
        self.counts["filler"] += 1

    def degradation(self, measure: str) -> None:
        self.counts[f"degradation {measure}"] += 1

    def interrupted(self, stop_s: float) -> None:
        self.stops_s.append(stop_s)

    def round_trip(self, seconds: float, transport: Literal["websocket", "webrtc"]) -> None:
        self.round_trips_s.append(seconds)

    def repeated_turn(self) -> None:
        self.counts["repeated turn"] += 1

    def hung_up(self, when: str, turns: int) -> None:
        self.counts[f"hung up {when} after {turns}"] += 1

    def dismissed_speech(self, reading: str) -> None:
        self.counts[f"overheard {reading}"] += 1

    def survival(self, outcome: str, count: int = 1) -> None:
        self.counts[f"survival {outcome}"] += count

    def error(self, fault: Literal["caller", "backend", "overload", "internal"], stage: str) -> None:
        self.counts[f"{fault} {stage}"] += 1


class SilentJournal:
    """Journal that drops every record."""

    def write(self, kind: str, fields: dict[str, object]) -> None:
        """Drop the record."""
