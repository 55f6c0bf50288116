"""What a conversation needs from the outside: one Protocol per stage, and the values that cross it.

`deployments/` implements the stage ports twice with the same classes: directly (one process, no Ray) and behind
Serve handles. Values are frozen and small: they travel as pickles between processes, audio always as `bytes`
(PCM, signed 16-bit little-endian, mono), because an ndarray costs 1.6 times the CPU on Ray's path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from rejoinder.core.reply.answer_cache import CacheHit, CacheQuestion
from rejoinder.core.reply.prompt_window import ChatMessage


class Priority(Enum):
    """Order inside the speech-to-text queue: finals first, partials only when none waits."""

    FINAL = 0
    PARTIAL = 1


@dataclass(frozen=True, slots=True)
class VadBatch:
    """`n` windows of 512 samples at 16 kHz and the state of each stream before it.

    `windows`: float32 bytes, shape (n, 512), in [-1, 1]. `states`: float32 bytes, shape (n, 320): 256 recurrent
    values (2 x 128) and the 64 samples that precede the window. All zeros starts a stream.
    """

    n: int
    windows: bytes
    states: bytes


@dataclass(frozen=True, slots=True)
class VadResult:
    """Speech probability of each window (`n` values in [0, 1]) and the states to send with the next windows."""

    probabilities: tuple[float, ...]
    states: bytes


@dataclass(frozen=True, slots=True)
class TurnVerdict:
    """`probability` that the caller's turn is complete, in [0, 1], and the inference time."""

    probability: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class SttJob:
    """One utterance: 16 kHz PCM. Dropped with DeadlineExceeded if it has not started within `deadline_s`.

    `guess`: the `tokens` of a transcript of its beginning, for an engine that can use them.
    """

    pcm: bytes
    priority: Priority = Priority.FINAL
    deadline_s: float = 5.0
    guess: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """`text` is stripped and may be empty. `full_padding`: a guard repeated the decode with 30 s of frames.

    `repeated`: a small model heard it first and was in doubt. `doubted`: so it is, but a partial is heard only once.
    `tokens`: the engine's own (`SttJob.guess`).
    """

    text: str
    audio_ms: float
    queue_ms: float
    decode_ms: float
    avg_logprob: float
    full_padding: bool = False
    repeated: bool = False
    doubted: bool = False
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """One generation. Temperature 0 is greedy.

    `prefix` is the start of the answer that was already received (from a replica that then failed): the engine goes
    on behind it and returns only what follows, so nothing is spoken twice.

    `session`: whose conversation it is; the replica that served it before may still hold its state. `prefill`: nothing
    is to be said; the engine computes the state of the messages, whose last may go on unless they are `whole`, or does
    nothing.

    `small`: the backup is to answer first, if there is one.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int = 120
    temperature: float = 0.0
    prefix: str = ""
    session: str = ""
    prefill: bool = False
    whole: bool = False
    small: bool = False


@dataclass(frozen=True, slots=True)
class LlmUsage:
    """`queue_s`: how long the request waited for the engine to begin; None if the engine does not say."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    queue_s: float | None = None


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """`tokens` tokens of text, coalesced. The last delta of a stream carries `finish` and `usage`."""

    text: str
    tokens: int = 1
    finish: Literal["stop", "length"] | None = None
    usage: LlmUsage | None = None


@dataclass(frozen=True, slots=True)
class TtsRequest:
    """`text` is one speakable segment; audio comes back as PCM at 24 kHz."""

    text: str
    voice: str = "default"
    speed: float = 1.0


ANYWHERE: frozenset[str] = frozenset()


class VadPort(Protocol):
    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        """One batched tick; pure, so a failed one is repeated with the same states on any replica."""
        ...


class TurnDetectorPort(Protocol):
    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Judge up to the last 8 s of 16 kHz PCM, ending in the silence just heard."""
        ...


class SttPort(Protocol):
    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Cancelling removes a queued job at once; a running batch finishes and its result is dropped."""
        ...


class LlmStream(Protocol):
    """A running generation: iterate it for deltas; leaving its context manager stops the engine."""

    @property
    def replica(self) -> str:
        """Which replica (or backend) serves it; known before the first token, "" while none is chosen."""
        ...

    def __aiter__(self) -> AsyncIterator[TokenDelta]: ...


class LlmPort(Protocol):
    def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False
    ) -> AbstractAsyncContextManager[LlmStream]:
        """Start generating on a replica not in `avoid`; `strict` waits for one to exist (a hedge needs another)."""
        ...

    def queue(self, avoid: frozenset[str]) -> int | None:
        """The least number of requests that a replica not in `avoid` was last known to have; None: nothing is known."""
        ...


class TtsPort(Protocol):
    def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the segment's audio; leaving the context manager stops it at the next chunk."""
        ...


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A complete answer to a question."""

    question: CacheQuestion
    answer: str


class AnswerCachePort(Protocol):
    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        """An answer that was given before, or None."""
        ...

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        """Keep an answer; whether it may be kept was decided before."""
        ...


class NoiseSuppressor(Protocol):
    """Takes the noise out of one caller's audio, in the host and at once."""

    def clean(self, pcm: bytes) -> bytes:
        """16 kHz PCM of any length in; the same audio, a constant time behind, out."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """The five stages of one deployment, its answer cache and its second language model if it has them, by port, and
    which engine stands behind each (for reports).
    """

    vad: VadPort
    turn_detector: TurnDetectorPort
    stt: SttPort
    llm: LlmPort
    tts: TtsPort
    engines: dict[str, str] = field(default_factory=dict)
    answers: AnswerCachePort | None = None
    suppressor: Callable[[], NoiseSuppressor] | None = None
    llm_backup: LlmPort | None = None


class Metrics(Protocol):
    """Where a conversation's numbers go. Labels are closed sets; no caller text ever becomes one."""

    def turn(
        self,
        voice_to_voice_s: float,
        stages_s: dict[str, float],
        *,
        raw_s: dict[str, float],
        engines: dict[str, str],
    ) -> None:
        """A turn was answered; `stages_s`: shares that sum to it, `raw_s`: the stages' own durations."""
        ...

    def session_opened(self) -> None: ...
    def session_closed(self, duration_s: float) -> None: ...
    def refused(self, reason: str) -> None: ...
    def hedge(self, outcome: Literal["sent", "won", "wasted", "budget_exhausted", "vetoed"]) -> None: ...
    def hedge_delay(self, delay_s: float) -> None:
        """How long this request waits for its first token before it is hedged."""
        ...

    def partial(self, outcome: Literal["heard", "failed"]) -> None:
        """A transcript of an utterance that is still going on."""
        ...

    def draft(self, outcome: str) -> None:
        """A reply was begun before its turn was taken (begun), and then kept or discarded; or there was to be none
        (declined_...: rejoinder/core/reply/draft_budget.py).
        """
        ...

    def breaker(self, outcome: Literal["opened", "closed"]) -> None:
        """A language model replica was taken out, or brought back."""
        ...

    def cache(self, outcome: str) -> None:
        """A question was looked up in the answer cache, or was not to be, or its answer was kept
        (actors/stages/answer_cache.py).
        """
        ...

    def filler(self, after_s: float) -> None:
        """A filler began so long after the caller's last speech."""
        ...

    def degradation(self, measure: str) -> None:
        """A session does without something because a stage is slow (rejoinder/core/reply/degradation.py)."""
        ...

    def interrupted(self, stop_s: float) -> None: ...
    def overheard(self, reading: str) -> None:
        """Speech over or just behind a reply was no turn (why: rejoinder/core/turns/barge_in.py)."""
        ...

    def error(self, fault: Literal["caller", "backend", "overload", "internal"], stage: str) -> None: ...


class Journal(Protocol):
    """The session's own record of its turns, for the operator; never holds audio."""

    def write(self, kind: str, fields: dict[str, object]) -> None: ...
