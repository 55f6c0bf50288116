"""Moonshine tiny (English): a transcript in a third of Whisper's time, from as much audio as there is.

Its encoder takes the samples themselves and costs what the utterance is long; nothing is padded to 30 s. It is small
(27 million parameters, 8-bit) and knows when it guesses: the probability of its own words says which transcripts to
repeat with a larger model (`deployments/engines/stt/cascade.py`).

The two graphs are the package's (an encoder, and a decoder with its cache of keys and values), run by the inference
engine that is here already. Decoding is greedy, and a guess helps: the tokens that a partial transcript of the same
utterance had are checked in one run instead of one run a token, and what agrees is kept. The result is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.engines.onnx import PULL, open_session
from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.stt.transcript_guards import Hypothesis
from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ModelError

LONGEST_S = 30.0
# The convolutions of the encoder need a few windows; a click is padded to this.
SHORTEST_SAMPLES = STT_RATE // 2

TAIL_SAMPLES = STT_RATE * 64 // 1000
"""Silence put behind each clip. Work begins so soon after the last sound that without it the model is less sure of the
last word, and Whisper is asked for nothing. "How do I boil an egg?", synthesized three times and cut at three places:
log-probability -0.06 to -0.14 without and -0.03 to -0.08 with it (-0.12 is doubt)."""

TOKENS_PER_S = 6.5
"""The model card's own limit against loops; the base leaves room for short commands."""
TOKENS_BASE = 6

_START, _END = 1, 2
_SPACE = "▁"
_UNKNOWN_NO_SPEECH = 0.0
"""The model has no opinion on whether anybody spoke."""

_ENCODER_INPUTS = ("input_values", "attention_mask")
_CACHED = "past_key_values."

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MoonshineResult:
    """What was heard, and its tokens: a guess for the next, longer part of the same utterance."""

    hypothesis: Hypothesis
    tokens: tuple[int, ...]


class Moonshine:
    """Two ONNX sessions, safe to call from several threads."""

    def __init__(self, directory: Path, threads: int = 1) -> None:
        """`directory` holds the two graphs and the vocabulary; raises ModelError if it does not."""
        self.name = f"{directory.name} int8 (onnxruntime)"
        self._encoder = open_session(directory / "encoder_model.ort", threads, _ENCODER_INPUTS)
        self._decoder = open_session(directory / "decoder_model_merged.ort", threads, None)
        caches = [entry for entry in self._decoder.get_inputs() if entry.name.startswith(_CACHED)]
        self._empty = {entry.name: tuple(size for size in entry.shape if isinstance(size, int)) for entry in caches}
        self._outputs = [output.name.replace("present.", _CACHED) for output in self._decoder.get_outputs()[1:]]
        self._words = read_vocabulary(directory / "tokenizer.bin")

    def warm_up(self) -> None:
        """Transcribe a second of noise, so that no caller pays for first-call allocation."""
        self.transcribe_batch([np.random.default_rng(0).integers(-3000, 3000, STT_RATE, dtype=np.int16)])

    def transcribe_batch(self, clips: Sequence[Pcm], guess: tuple[int, ...] = ()) -> list[MoonshineResult]:
        """What each clip (16 kHz, at most 30 s) says, decoded together; `guess`: tokens that a single clip may have.

        Raises CallerError for malformed PCM or more than 30 s of it, BackendError if the engine fails.
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
        (heard,) = self._encoder.run(None, {"input_values": samples, "attention_mask": mask})
        decoding = Decoding(limits)
        self._decode({"encoder_hidden_states": heard, "encoder_attention_mask": mask}, decoding, guess)
        return [
            MoonshineResult(
                Hypothesis(
                    text=self._text(tokens),
                    avg_logprob=float(np.mean(sure)),
                    no_speech_prob=_UNKNOWN_NO_SPEECH,
                    finished=len(tokens) < limit,
                    duration_s=duration,
                ),
                tuple(tokens),
            )
            for tokens, sure, limit, duration in zip(decoding.tokens, decoding.logprobs, limits, durations, strict=True)
        ]

    def _decode(self, heard: dict[str, Any], decoding: Decoding, guess: tuple[int, ...]) -> None:
        """Decode every row to its end; `heard` is what the encoder made of the audio."""
        rows = len(decoding.tokens)
        caches = {name: np.zeros((rows, heads, 0, width), np.float32) for name, (heads, width) in self._empty.items()}
        newest = np.array([(_START, *guess)] * rows, np.int64)
        while True:
            started = bool(decoding.length)
            feed = {"input_ids": newest, "use_cache_branch": np.array([started]), **heard, **caches}
            logits, *after = self._decoder.run(None, feed)
            decoding.take(*_best(logits), newest)
            if decoding.over:
                return
            # What the decoder reads of the encoder is computed at the first run; later outputs of it are empty. Of its
            # own keys and values only those of tokens that were kept stay.
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
    """The tokens of each row so far, greedy, each up to its end or its limit.

    `length`: how many tokens the decoder has read and may keep. `newest` (rows,): the last of each row, not read yet.
    """

    def __init__(self, limits: list[int]) -> None:
        self._limits = limits
        self._ended = [False] * len(limits)
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.logprobs: list[list[float]] = [[] for _ in limits]
        self.length = 0
        self.newest = np.full(len(limits), _START, np.int64)

    @property
    def over(self) -> bool:
        return all(self._ended)

    def take(self, best: npt.NDArray[np.int64], sure: Logits, read: npt.NDArray[np.int64]) -> None:
        """The best token behind each of those that were `read` (rows, n), and its log-probability.

        Of several tokens the first was known and the others guessed (of one row only): they count up to the first that
        is another than the best behind the one before it.
        """
        for place in range(read.shape[1]):
            self.length += 1
            for row, token in enumerate(best[:, place]):
                self._add(row, int(token), float(sure[row, place]))
            self.newest = best[:, place]
            if self.over or place + 1 == read.shape[1] or read[0, place + 1] != best[0, place]:
                return

    def _add(self, row: int, token: int, sure: float) -> None:
        if self._ended[row]:
            return
        self.logprobs[row].append(sure)
        if token != _END:
            self.tokens[row].append(token)
        self._ended[row] = token == _END or len(self.tokens[row]) >= self._limits[row]


def _padded(audios: list[Samples]) -> tuple[Samples, npt.NDArray[np.int64]]:
    """The clips as one array (n, samples), silence behind each, and which samples are theirs."""
    sizes = [max(audio.size + TAIL_SAMPLES, SHORTEST_SAMPLES) for audio in audios]
    longest = max(sizes)
    samples = np.zeros((len(audios), longest), np.float32)
    mask = np.zeros(samples.shape, np.int64)
    for row, (audio, size) in enumerate(zip(audios, sizes, strict=True)):
        samples[row, : audio.size] = audio
        mask[row, :size] = 1
    return samples, mask


def _best(logits: Logits) -> tuple[npt.NDArray[np.int64], Logits]:
    """The most probable token at each place (rows, n), and its log-probability."""
    best = logits.argmax(axis=-1)
    highest = logits.max(axis=-1)
    return best, -np.log(np.exp(logits - highest[..., np.newaxis]).sum(axis=-1))


def read_vocabulary(file: Path) -> list[bytes]:
    """The bytes of each token; raises ModelError if the file is missing or cut off.

    The format: a length in one byte (from 128 on in two, the low seven bits first), then so many bytes.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ModelError("is not readable.", PULL, file=str(file), found=str(error)) from error
    words: list[bytes] = []
    at = 0
    while at < len(raw):
        size, at = raw[at], at + 1
        if size >= 128 and at < len(raw):
            size, at = size - 128 + 128 * raw[at], at + 1
        if at + size > len(raw):
            raise ModelError("is cut off.", PULL, file=str(file), found=f"{len(raw)} bytes")
        words.append(raw[at : at + size])
        at += size
    return words
