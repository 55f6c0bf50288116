"""The ports of the stages: one Protocol per stage, and the types of its arguments and results.

Read this page first when you add an engine. `deployments` implements each port twice: directly, in one process and
without Ray (`deployments/local/in_process.py`), and behind Ray Serve handles (`deployments/serving/handles.py`). An
engine lives in a Serve deployment behind these classes.

Audio is `bytes`: mono PCM, signed 16-bit little-endian, unless a field says otherwise. Values are frozen and small,
because they are pickled and sent between processes. With Ray, an ndarray would cost 1.6 times as much CPU.

Rules that hold for every port:

- `avoid` names replicas that the call should not use, by the ids that `BackendError.replica` and `LlmStream.replica`
  report. An implementation may ignore it when no other replica exists.
- A port raises `BackendError` (with `stage`, and `replica` where it is known) when a replica failed, died or is too
  late, and `Overloaded` when a bounded queue is full. `StageTimeout` and `DeadlineExceeded` are BackendErrors. The
  session repeats a call after these and after `TimeoutError` (`actors.stages.retry.attempts`).
- A port raises `CallerError` when the request itself is wrong, for example a prompt longer than the context. The
  call is not repeated.
- Any other exception is a bug. The session logs and counts it, and continues (`actors.stages.retry.contained`).
- Cancelling a call, or leaving a stream's context manager, must free the engine soon. The session sets the timeouts;
  a port needs no timeouts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from actors.stages.reporting import Journal as Journal
from actors.stages.reporting import Metrics as Metrics
from actors.stages.reporting import Tracer as Tracer
from actors.stages.reporting import TurnTrace as TurnTrace
from rejoinder.core.reply.answer_cache import CacheHit, CacheQuestion
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import NO_TOOLS, ToolCall, ToolOffer
from rejoinder.core.resilience.stream_report import StreamReport


class Priority(Enum):
    """Rank of a job in the speech-to-text queue. A job runs only while no job of a higher rank waits.

    FINAL: the transcript of a turn. SECOND_OPINION: the transcript of the same audio by the more accurate recognizer,
    because the first one had low confidence. INTERIM: an interim transcript. RECORDING: a part of a recording, for an
    HTTP request: it waits until no call needs the recognizer.
    """

    FINAL = 0
    SECOND_OPINION = 1
    INTERIM = 2
    RECORDING = 3

    @property
    def awaited(self) -> bool:
        """True if a caller waits for the transcript."""
        return self in (Priority.FINAL, Priority.SECOND_OPINION)


@dataclass(frozen=True, slots=True)
class VadBatch:
    """One window of 512 samples at 16 kHz from each of `n` audio streams.

    Attributes:
        n: Number of windows, one per stream.
        windows: float32 values, shape (n, 512), in [-1, 1].
        states: float32 values, shape (n, 320): the state of each stream before its window. A state is 256 recurrent
            values (2 x 128) and the 64 samples that precede the window. All zeros starts a stream.
    """

    n: int
    windows: bytes
    states: bytes


@dataclass(frozen=True, slots=True)
class VadResult:
    """Result for one `VadBatch`, with the streams in the same order.

    Attributes:
        probabilities: Probability of speech in each window; n values in [0, 1].
        states: float32 values, shape (n, 320): the states to send with each stream's next window.
    """

    probabilities: tuple[float, ...]
    states: bytes


@dataclass(frozen=True, slots=True)
class TurnVerdict:
    """The turn detector's verdict.

    Attributes:
        probability: Probability that the caller's turn is complete, in [0, 1].
        inference_ms: Time that the model took, in ms.
    """

    probability: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class SttJob:
    """One utterance to transcribe.

    Attributes:
        pcm: 16-bit PCM at 16 kHz.
        priority: FINAL for a transcript that a turn waits for, SECOND_OPINION to repeat one with low confidence,
            INTERIM for an interim transcript, RECORDING for a part of a recording. The engine itself repeats a
            RECORDING with low confidence.
        deadline_s: A job that has not started within this many seconds is dropped with DeadlineExceeded.
        guess: `Transcript.tokens` of an earlier transcript of the same utterance's beginning, for an engine that can
            use them. Empty if there is none.
        first: For SECOND_OPINION: the transcript with low confidence. None otherwise.
        speech_detected: False if voice activity detection has not found speech in the audio. Then the engine looks for
            speech first, and the transcript of audio without speech is empty.
        word_times: True to get `Transcript.words`.
    """

    pcm: bytes
    priority: Priority = Priority.FINAL
    deadline_s: float = 5.0
    guess: tuple[int, ...] = ()
    first: Transcript | None = None
    speech_detected: bool = True
    word_times: bool = False


@dataclass(frozen=True, slots=True)
class WordTime:
    """One word of a transcript, and when it was spoken.

    Attributes:
        word: The word with its punctuation, without spaces around it.
        start_s: Seconds from the start of the audio to the start of the word.
        end_s: Seconds from the start of the audio to the end of the word.
    """

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """Result of one speech-to-text job.

    Attributes:
        text: The words, without surrounding white space. Empty if there are none.
        audio_ms: Length of the audio, in ms.
        queue_ms: Time that the job spent in the queue, in ms.
        decode_ms: Time that the engine took for the batch with this job, in ms.
        avg_logprob: Mean log-probability of the tokens (natural logarithm).
        full_padding: True if Whisper decoded the audio padded to 30 s.
        repeated: True if the first-pass recognizer had low confidence and the second recognizer decoded the job again.
        low_confidence: True if the text is a first-pass one with low confidence (see `Priority.SECOND_OPINION`).
        tokens: The engine's own token ids, for `SttJob.guess`.
        usable: False if a text with low confidence is too bad to be answered without a second opinion.
        language: Code of the language of `text` if it is not the configured one; "" otherwise.
        agreed: True if two recognizers have heard the same words.
        words: The words of `text` with their times, if `SttJob.word_times` asked for them and the engine knows them.
    """

    text: str
    audio_ms: float
    queue_ms: float
    decode_ms: float
    avg_logprob: float
    full_padding: bool = False
    repeated: bool = False
    low_confidence: bool = False
    tokens: tuple[int, ...] = ()
    usable: bool = True
    language: str = ""
    agreed: bool = False
    words: tuple[WordTime, ...] = ()


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """Request for one generation of the language model.

    Attributes:
        messages: The prompt: system message, then the turns.
        max_tokens: Maximum number of tokens to generate; 0 for a prefill.
        temperature: Sampling temperature; 0 is greedy.
        prefix: Start of the answer that was already received, for example from a replica that failed. The engine
            continues after it and returns only what follows, so no word is spoken twice.
        session: Id of the conversation. The replica that served it before may still hold its KV cache.
        prefill: True to compute the KV cache of `messages` and generate nothing. An engine that cannot do this ignores
            the request.
        whole: For a prefill: True if the last message is complete. Otherwise more words may follow, so the engine must
            not add the end of the message to the prompt.
        judge_end: For a prefill with `whole` False: True to return `LlmUsage.end_probability` as well.
        small: True to send the first attempt to the backup model, if there is one.
        tools: The tools that the model may call. A prefill has them too, because they are a part of the prompt.
        for_call: False for an HTTP request, which is not a part of a call. It does not count as load of the calls.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int = 120
    temperature: float = 0.0
    prefix: str = ""
    session: str = ""
    prefill: bool = False
    whole: bool = False
    judge_end: bool = False
    small: bool = False
    tools: ToolOffer = NO_TOOLS
    for_call: bool = True

    @property
    def answer_tokens(self) -> int:
        """Maximum number of tokens of the text and the tool calls together."""
        return self.max_tokens + (self.tools.call_tokens if self.tools.active else 0)


@dataclass(frozen=True, slots=True)
class LlmUsage:
    """Token counts of one generation.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached ones included.
        completion_tokens: Tokens generated.
        cached_tokens: Prompt tokens that came from the KV cache.
        queue_s: Seconds that the request waited in the engine's queue; None if the engine does not report it.
        end_probability: Answer to `LlmRequest.judge_end`: the probability that the last message, or its last sentence,
            ends where it ends now, in [0, 1]. None if it was not asked, or if the engine cannot tell.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    queue_s: float | None = None
    end_probability: float | None = None


Finish = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why a generation ended: "stop" at the end of the answer, "length" at `max_tokens` or if the model thought too long,
"content_filter" if the server withheld the rest, "tool_calls" if the model called a tool instead of answering."""


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """A piece of a generation; the concatenated texts are the answer.

    A delta without text says that the engine still works, for example that a model thinks before it answers.

    Attributes:
        text: The next characters of the answer; may be empty.
        tokens: Number of tokens in `text`. An engine may send several tokens in one delta.
        finish: Set on the last delta of a stream only. See `Finish`.
        usage: Token counts. Set on the last delta only.
        continues: Set if the engine could not continue `LlmRequest.prefix` and answers anew: the number of characters
            of the prefix that the new answer has too. The new answer goes on after them, with a new sentence. None if
            the text follows the whole prefix.
        calls: The tools that the model calls, with complete arguments. Set on the last delta only, so that a stream
            that breaks off calls nothing, and a repeated or hedged request calls nothing twice. An engine that gets
            calls as text of the answer passes the text on unchanged (`rejoinder.core.reply.tools.written`).
    """

    text: str
    tokens: int = 1
    finish: Finish | None = None
    usage: LlmUsage | None = None
    continues: int | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class TtsRequest:
    """One segment to speak.

    Attributes:
        text: One speakable segment, at most a sentence.
        voice: Name of the voice.
        speed: Speaking rate relative to the voice's own.
        for_call: False for an HTTP request, which is not a part of a call. It does not count as load of the calls.
    """

    text: str
    voice: str = "default"
    speed: float = 1.0
    for_call: bool = True


ANYWHERE: frozenset[str] = frozenset()


class VadPort(Protocol):
    """Interface of voice activity detection for all sessions of a host."""

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        """Return the speech probability of every window of a batch, if possible from a replica not in `avoid`.

        The call has no side effects: the states are part of the batch and of the result. After a failure the session
        repeats it with the same states, on any replica. A result of the wrong size counts as a failure.
        """
        ...


class TurnDetectorPort(Protocol):
    """Interface of the turn detector: semantic end-of-turn detection."""

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Return the probability that the caller's turn is complete.

        The call has no side effects. Cancelling it must remove a queued request from the queue at once.

        Args:
            pcm: At most the last 8 s of the utterance, as 16-bit PCM at 16 kHz. It ends with the silence received so
                far.
            avoid: Ids of replicas that should not be used.
        """
        ...


class SttPort(Protocol):
    """Interface of speech-to-text."""

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Return the transcript of one utterance, if possible from a replica not in `avoid`.

        The call has no side effects. While one call is late, the session may make a second call for the same audio.
        Cancelling removes a queued job at once. A batch that already runs is completed, and the result is dropped.

        Raises:
            DeadlineExceeded: The job did not start within its deadline.
        """
        ...


class LlmStream(Protocol):
    """A running generation. Iterate over it to get its deltas.

    The last delta carries `finish`. A stream that ends without one counts as a failure of its replica.
    """

    @property
    def replica(self) -> str:
        """Id of the replica or backend that serves the request; known before the first token, "" until then."""
        ...

    def __aiter__(self) -> AsyncIterator[TokenDelta]:
        """Return the iterator over the deltas. It may raise BackendError or Overloaded at any delta."""
        ...


class LlmPort(Protocol):
    """Interface of a language model."""

    def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AbstractAsyncContextManager[LlmStream]:
        """Open a generation; leaving the context manager stops the engine.

        The session may read the stream slowly, and then the engine must buffer deltas or wait. The session limits the
        time to the opening and to each delta.

        Args:
            request: What to generate.
            avoid: Ids of replicas that should not be used.
            strict: True to wait until a replica outside `avoid` exists, instead of using a replica in `avoid`. Set for
                hedges, because a hedge is useful only on another replica.
            only: Id of the only replica that may serve the request, for a probe; "" for any.
        """
        ...

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return a replica's own report on the streams of all hosts that have waited for at least `idle_s` seconds.

        The caller sets the timeout: a replica that hangs does not answer.

        Raises:
            BackendError: The replica is gone.
        """
        ...

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return the number of requests in the shortest queue of the replicas outside `avoid`, as last reported.

        None means that the number is not known. The call must not block.
        """
        ...


class TtsPort(Protocol):
    """Interface of text-to-speech."""

    def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the audio of one segment; leaving the context manager stops the engine at its next chunk.

        The iterator yields 16-bit PCM at 24 kHz in chunks of any length. After a failure the session opens the segment
        again and skips as many samples as it already has. So an engine should return the same audio for the same text.
        """
        ...


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A complete answer of the language model, with the question that it answers."""

    question: CacheQuestion
    answer: str


class AnswerCachePort(Protocol):
    """Interface of the answer cache, which all hosts share."""

    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        """Return the stored answer to the same or a similar question; None if there is none. `avoid` names replicas."""
        ...

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        """Store an answer that other sessions may get. `avoid` names replicas of the cache that are not asked."""
        ...


class NoiseSuppressor(Protocol):
    """Noise suppression for the audio of one caller; runs synchronously in the host."""

    def clean(self, pcm: bytes) -> bytes:
        """Return 16-bit PCM at 16 kHz without the noise: as many bytes as `pcm`, delayed by a constant time."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages that a host uses.

    Attributes:
        vad: Voice activity detection.
        turn_detector: End-of-turn detection.
        stt: Speech-to-text.
        llm: The language model.
        tts: Text-to-speech.
        engines: Name of the engine of each stage, for reports.
        answers: The answer cache; None if there is none.
        suppressor: Returns a new noise suppressor for one session; None for no noise suppression.
        llm_backup: A second language model for hedges and retries; None if there is none.
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


class AudioOutput(Protocol):
    """Player of the replies' audio on the server's side of a call. No method may block.

    What it has sent is heard. So it knows where a reply was interrupted, and the client reports nothing.
    """

    def play(self, response_id: str, pcm: bytes) -> None:
        """Append 16-bit PCM at 24 kHz of a response."""
        ...

    def end(self, response_id: str) -> None:
        """Record that the response has no more audio."""
        ...

    def stop(self, response_id: str | None) -> int:
        """Drop the audio of a response (None: of all) that was not sent. Return the number of samples (24 kHz)."""
        ...
