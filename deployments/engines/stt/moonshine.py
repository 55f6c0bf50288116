"""Moonshine tiny (English), the first-pass recognizer: a transcript in a third of Whisper's time.

Its encoder reads the samples without padding, so its cost grows with the utterance. The model is small (27 million
parameters, 8-bit). The mean log-probability of its tokens tells which transcripts a larger model should repeat
(`deployments/engines/stt/cascade.py`).

The two ONNX graphs are from the package moonshine-voice: an encoder, and a decoder with a KV cache. Decoding is greedy.
A guess, the tokens of an interim transcript of the same utterance, speeds it up without changing the result: the
decoder checks all of its tokens in one run instead of one run per token, and keeps those that agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.engines.device import CPU, EngineDevice
from deployments.engines.onnx import PULL, open_session
from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.stt.transcript_guards import Hypothesis
from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ModelError

LONGEST_S = 30.0
# Shorter clips are padded to this many samples (0.5 s), because the encoder's convolutions need several windows.
SHORTEST_SAMPLES = STT_RATE // 2

TAIL_SAMPLES = STT_RATE * 64 // 1000
"""Silence appended to each clip (64 ms).

Clips end so soon after the last sound that without it the last word has a lower log-probability, and clips are sent to
Whisper needlessly. For "How do I boil an egg?", synthesized three times and cut at three places, the mean
log-probability was -0.06 to -0.14 without the silence and -0.03 to -0.08 with it. The default limit is -0.12."""

TOKENS_PER_S = 6.5
"""Maximum number of tokens per second of audio: the model card's limit against endless repetition."""
TOKENS_BASE = 6
"""Tokens added to that limit, so that short commands fit."""

_START, _END = 1, 2
_SPACE = "▁"
_UNKNOWN_NO_SPEECH = 0.0
"""Moonshine reports no no-speech probability, so its results count as speech in that respect."""

_ENCODER_INPUTS = ("input_values", "attention_mask")
_CACHED = "past_key_values."

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MoonshineResult:
    """A transcript and its tokens, which are the guess for a later, longer clip of the same utterance."""

    hypothesis: Hypothesis
    tokens: tuple[int, ...]


class Moonshine:
    """The Moonshine model, as two ONNX sessions. Safe to call from several threads."""

    def __init__(self, directory: Path, threads: int = 1, device: EngineDevice = CPU) -> None:
        """Load the model.

        Args:
            directory: Folder that contains encoder_model.ort, decoder_model_merged.ort and tokenizer.bin.
            threads: Threads of one inference.
            device: Where to compute.

        Raises:
            ModelError: A file is missing or damaged.
        """
        self.name = f"{directory.name} int8 (onnxruntime)"
        encoder, decoder = moonshine_files(directory)
        self._encoder = open_session(encoder, threads, _ENCODER_INPUTS, device)
        self._decoder = open_session(decoder, threads, None, device)
        caches = [entry for entry in self._decoder.get_inputs() if entry.name.startswith(_CACHED)]
        self._empty = {entry.name: tuple(size for size in entry.shape if isinstance(size, int)) for entry in caches}
        self._outputs = [output.name.replace("present.", _CACHED) for output in self._decoder.get_outputs()[1:]]
        self._words = read_vocabulary(directory / "tokenizer.bin")

    def warm_up(self) -> None:
        """Transcribe a second of noise, because the first inference is slow."""
        self.transcribe_batch([np.random.default_rng(0).integers(-3000, 3000, STT_RATE, dtype=np.int16)])

    def transcribe_batch(self, clips: Sequence[Pcm], guess: tuple[int, ...] = ()) -> list[MoonshineResult]:
        """Transcribe the clips in one batch. Return a transcript with its tokens for each clip.

        Args:
            clips: 16 kHz audio, at most 30 s each.
            guess: Tokens that a single clip's transcript probably begins with. Ignored for several clips.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: The engine failed.
        """
        audios = [speech_samples(clip, LONGEST_S) for clip in clips]
        if not audios:
            return []
        try:
            return self._transcribe(audios, guess if len(audios) == 1 else ())
        except RuntimeError as error:
            raise BackendError(f"Moonshine failed: {error}.", "Retry on another replica.", stage="stt") from error

    def _transcribe(self, audios: list[Samples], guess: tuple[int, ...]) -> list[MoonshineResult]:
        durations = [audio.size / STT_RATE for audio in audios]
        limits = [int(TOKENS_PER_S * duration) + TOKENS_BASE for duration in durations]
        samples, mask = _padded(audios)
        (encoded,) = self._encoder.run(None, {"input_values": samples, "attention_mask": mask})
        decoding = Decoding(limits)
        self._decode({"encoder_hidden_states": encoded, "encoder_attention_mask": mask}, decoding, guess)
        return [
            MoonshineResult(
                Hypothesis(
                    text=self._text(tokens),
                    avg_logprob=float(np.mean(logprobs)),
                    no_speech_prob=_UNKNOWN_NO_SPEECH,
                    finished=len(tokens) < limit,
                    duration_s=duration,
                ),
                tuple(tokens),
            )
            for tokens, logprobs, limit, duration in zip(
                decoding.tokens, decoding.logprobs, limits, durations, strict=True
            )
        ]

    def _decode(self, encoded: dict[str, Any], decoding: Decoding, guess: tuple[int, ...]) -> None:
        """Decode every clip of a batch to its end, and store the tokens in `decoding`.

        Args:
            encoded: The encoder's outputs, by the names of the decoder's inputs.
            decoding: The new, empty decoding of the batch.
            guess: Tokens that the transcript of a single clip probably begins with.
        """
        rows = len(decoding.tokens)
        caches = {name: np.zeros((rows, heads, 0, width), np.float32) for name, (heads, width) in self._empty.items()}
        newest = np.array([(_START, *guess)] * rows, np.int64)
        while True:
            started = bool(decoding.length)
            feed = {"input_ids": newest, "use_cache_branch": np.array([started]), **encoded, **caches}
            logits, *after = self._decoder.run(None, feed)
            decoding.add(*_best(logits), newest)
            if decoding.ended:
                return
            # Only the first run returns the keys and values of the encoder's output (later runs return empty arrays):
            # keep them. Of the decoder's own keys and values, keep those of accepted tokens.
            for name, cache in zip(self._outputs, after, strict=True):
                if ".encoder." not in name:
                    caches[name] = cache[:, :, : decoding.length]
                elif not started:
                    caches[name] = cache
            newest = decoding.newest[:, np.newaxis]

    def _text(self, tokens: list[int]) -> str:
        spelled = b"".join(self._words[token] for token in tokens)
        return spelled.decode("utf-8", errors="replace").replace(_SPACE, " ").strip()


class Decoding:
    """Greedy decoding of a batch of clips. Each clip is a row, decoded up to its end token or its limit of tokens.

    Call `add` with the result of each run of the decoder, until `ended` is true.

    Attributes:
        tokens: Tokens of each row so far.
        logprobs: Log-probabilities of each row's tokens, the end token included.
        length: Number of tokens that the decoder has read and whose KV cache is valid.
        newest: Last token of each row, not yet read by the decoder; shape (rows,).
    """

    def __init__(self, limits: list[int]) -> None:
        self._limits = limits
        self._ended = [False] * len(limits)
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.logprobs: list[list[float]] = [[] for _ in limits]
        self.length = 0
        self.newest = np.full(len(limits), _START, np.int64)

    @property
    def ended(self) -> bool:
        """True once every clip's transcript has its end token or its maximum number of tokens."""
        return all(self._ended)

    def add(self, best: npt.NDArray[np.int64], logprobs: Logits, read: npt.NDArray[np.int64]) -> None:
        """Add the tokens of one run of the decoder.

        A run reads n tokens of each row, which is one clip. With a guess there is one row, and n exceeds 1: the first
        token read is certain, the others are guessed. A guessed token is accepted if it equals the best token after
        the token before it. The rest is ignored after the first mismatch.

        Args:
            best: Best token after each token read, shape (rows, n).
            logprobs: Log-probabilities of `best`, shape (rows, n).
            read: Tokens that the decoder read in this run, shape (rows, n).
        """
        for position in range(read.shape[1]):
            self.length += 1
            for row, token in enumerate(best[:, position]):
                self._add(row, int(token), float(logprobs[row, position]))
            self.newest = best[:, position]
            if self.ended or position + 1 == read.shape[1] or read[0, position + 1] != best[0, position]:
                return

    def _add(self, row: int, token: int, logprob: float) -> None:
        if self._ended[row]:
            return
        self.logprobs[row].append(logprob)
        if token != _END:
            self.tokens[row].append(token)
        self._ended[row] = token == _END or len(self.tokens[row]) >= self._limits[row]


def moonshine_files(directory: Path) -> tuple[Path, Path]:
    """Return the files of the encoder and of the decoder in a model's folder."""
    return directory / "encoder_model.ort", directory / "decoder_model_merged.ort"


def _padded(audios: list[Samples]) -> tuple[Samples, npt.NDArray[np.int64]]:
    """Return the clips with trailing silence as one array, and its mask: 1 for the samples to read, 0 for padding.

    Both arrays have the shape (clips, samples of the longest clip).
    """
    sizes = [max(audio.size + TAIL_SAMPLES, SHORTEST_SAMPLES) for audio in audios]
    longest = max(sizes)
    samples = np.zeros((len(audios), longest), np.float32)
    mask = np.zeros(samples.shape, np.int64)
    for row, (audio, size) in enumerate(zip(audios, sizes, strict=True)):
        samples[row, : audio.size] = audio
        mask[row, :size] = 1
    return samples, mask


def _best(logits: Logits) -> tuple[npt.NDArray[np.int64], Logits]:
    """Return the most probable token at each position, and its log-probability. Each has the shape (clips, n)."""
    best = logits.argmax(axis=-1)
    highest = logits.max(axis=-1)
    return best, -np.log(np.exp(logits - highest[..., np.newaxis]).sum(axis=-1))


def read_vocabulary(file: Path) -> list[bytes]:
    """Return the UTF-8 bytes of each token; raise ModelError if the file is missing or truncated.

    Each token is stored as its length, then its bytes. A length below 128 takes one byte. A larger length takes two
    bytes, the low seven bits first.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ModelError("is not readable.", PULL, file=str(file), found=str(error)) from error
    words: list[bytes] = []
    offset = 0
    while offset < len(raw):
        size, offset = raw[offset], offset + 1
        if size >= 128 and offset < len(raw):
            size, offset = size - 128 + 128 * raw[offset], offset + 1
        if offset + size > len(raw):
            raise ModelError("is truncated.", PULL, file=str(file), found=f"{len(raw)} bytes")
        words.append(raw[offset : offset + size])
        offset += size
    return words
