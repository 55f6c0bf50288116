"""Moonshine tiny (English): a transcript in a third of Whisper's time, from as much audio as there is.

Its encoder takes the samples themselves and costs what the utterance is long; nothing is padded to 30 s. It is small
(27 million parameters, 8-bit) and knows when it guesses: the probability of its own words says which transcripts to
repeat with a larger model (`deployments/engines/ears.py`).

The two graphs are the package's (an encoder, and a decoder with its cache of keys and values), run by the inference
engine that is here already. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.engines.onnx import PULL, open_session
from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.transcript_guards import Hypothesis
from rejoinder.core.audio import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ModelError

LONGEST_S = 30.0
# The convolutions of the encoder need a few windows; a click is padded to this.
SHORTEST_SAMPLES = STT_RATE // 2

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

    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[Hypothesis]:
        """What each clip (16 kHz, at most 30 s) says, decoded together.

        Raises CallerError for malformed PCM or more than 30 s of it, BackendError if the engine fails.
        """
        audios = [speech_samples(clip, LONGEST_S) for clip in clips]
        if not audios:
            return []
        try:
            return self._transcribe(audios)
        except RuntimeError as error:
            raise BackendError(f"Moonshine failed: {error}.", "Retry on another replica.", stage="stt") from error

    def _transcribe(self, audios: list[Samples]) -> list[Hypothesis]:
        durations = [audio.size / STT_RATE for audio in audios]
        limits = [int(TOKENS_PER_S * duration) + TOKENS_BASE for duration in durations]
        tokens, logprobs = self._decode(*_padded(audios), limits)
        return [
            Hypothesis(
                text=self._text(said),
                avg_logprob=float(np.mean(sure)),
                no_speech_prob=_UNKNOWN_NO_SPEECH,
                finished=len(said) < limit,
                duration_s=duration,
            )
            for said, sure, limit, duration in zip(tokens, logprobs, limits, durations, strict=True)
        ]

    def _decode(
        self, samples: Samples, mask: npt.NDArray[np.int64], limits: list[int]
    ) -> tuple[list[list[int]], list[list[float]]]:
        """The tokens of each row up to its end, and their log-probabilities with the end's."""
        (heard,) = self._encoder.run(None, {"input_values": samples, "attention_mask": mask})
        rows = len(limits)
        feed: dict[str, Any] = {"encoder_hidden_states": heard, "encoder_attention_mask": mask}
        feed |= {name: np.zeros((rows, heads, 0, width), np.float32) for name, (heads, width) in self._empty.items()}
        tokens: list[list[int]] = [[] for _ in limits]
        logprobs: list[list[float]] = [[] for _ in limits]
        ended = [False] * rows
        newest = np.full((rows, 1), _START, np.int64)
        for place in range(max(limits)):
            feed |= {"input_ids": newest, "use_cache_branch": np.array([place > 0])}
            logits, *caches = self._decoder.run(None, feed)
            best, sure = _best(logits[:, -1])
            for row in range(rows):
                ended[row] = ended[row] or place >= limits[row]
                if not ended[row]:
                    logprobs[row].append(float(sure[row]))
                    ended[row] = bool(best[row] == _END)
                    tokens[row] += [] if ended[row] else [int(best[row])]
            if all(ended):
                break
            # What the decoder reads of the encoder is computed at the first token; later outputs of it are empty.
            feed |= {
                name: cache
                for name, cache in zip(self._outputs, caches, strict=True)
                if place == 0 or ".encoder." not in name
            }
            newest = best[:, np.newaxis]
        return tokens, logprobs

    def _text(self, tokens: list[int]) -> str:
        spelled = b"".join(self._words[token] for token in tokens)
        return spelled.decode("utf-8", errors="replace").replace(_SPACE, " ").strip()


def _padded(audios: list[Samples]) -> tuple[Samples, npt.NDArray[np.int64]]:
    """The clips as one array (n, samples), silence behind the shorter ones, and which samples are theirs."""
    longest = max(SHORTEST_SAMPLES, *(audio.size for audio in audios))
    samples = np.zeros((len(audios), longest), np.float32)
    mask = np.zeros(samples.shape, np.int64)
    for row, audio in enumerate(audios):
        samples[row, : audio.size] = audio
        mask[row, : max(audio.size, SHORTEST_SAMPLES)] = 1
    return samples, mask


def _best(logits: Logits) -> tuple[npt.NDArray[np.int64], Logits]:
    """The most probable token of each row, and its log-probability."""
    best = logits.argmax(axis=-1)
    highest = logits.max(axis=-1)
    return best, -np.log(np.exp(logits - highest[:, np.newaxis]).sum(axis=-1))


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
