"""Whisper through CTranslate2, with only as much audio context as the utterance needs.

Whisper was trained on 30 s windows and faster-whisper pads every input to that; the encoder then spends most of a short
turn's time on silence. CTranslate2's encoder accepts fewer frames. The trap: with little padding the decoder does not
know where to stop and says the sentence again. So a short decode

1. runs with timestamps, whose end marks tell where the speech ends, and is cut at the first end mark that lies within
   END_MARK_SLACK_S of the audio's end;
2. may not be longer than speech of that duration can be;
3. passes guards (see `transcript_guards`), or is repeated once with full padding.

CTranslate2 offers Whisper no per-token callback, so the cut is made afterwards. That costs little: with timestamps
98% of the tokens decoded on 98 human clips lay before the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer

from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.stt.log_mel import HOP, MEL_BANDS, log_mel
from deployments.engines.stt.transcript_guards import Hypothesis, holds_speech, is_trustworthy
from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ConfigError, ModelError

LONGEST_S = 30.0
FULL_FRAMES = 3000
"""30 s of 10 ms frames: what Whisper was trained on."""

END_MARK_SLACK_S = 0.4
"""Whisper rounds end marks and puts them at the end of the voice, not of the audio; measured with the rest."""

TOKENS_PER_S = 7.0
TOKENS_BASE = 8
"""Fast speech is 5 tokens a second; the base leaves room for timestamps and short commands."""

_TIMESTAMP_S = 0.02
_DEFAULT_SUPPRESSED = -1
# CTranslate2 decodes at most half of `max_length`, as Whisper keeps the other half of its 448 positions for a prompt.
_MAX_LENGTH_FACTOR = 2


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """`min_frames` and `pad_frames`: a short decode has max(min_frames, frames of the audio + pad_frames) frames."""

    language: str = "en"
    compute_type: Literal["int8", "float32"] = "int8"
    threads: int = 2
    short_context: bool = True
    min_frames: int = 500
    pad_frames: int = 100


@dataclass(frozen=True, slots=True)
class WhisperResult:
    """`text` is stripped, and empty if nobody spoke. `full_padding`: it was decoded with 30 s of frames."""

    text: str
    avg_logprob: float
    full_padding: bool = False


class Whisper:
    """One CTranslate2 Whisper; calls from several threads run one after another."""

    def __init__(self, directory: Path, options: WhisperOptions = WhisperOptions()) -> None:
        """`directory`: a faster-whisper model. Raises ModelError if it is none, ConfigError for the language."""
        self.name = f"{directory.name} {options.compute_type} (ctranslate2)"
        self._options = options
        if not directory.is_dir():  # faster-whisper would take it for a hub repository
            raise ModelError("is no folder.", "Run `rejoinder models pull whisper-base`.", file=str(directory))
        try:
            model = WhisperModel(
                str(directory),
                device="cpu",
                compute_type=options.compute_type,
                cpu_threads=options.threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            remedy = "Run `rejoinder models verify`."
            raise ModelError("is no Whisper model.", remedy, file=str(directory), found=str(error)) from error
        self._model: Any = model.model
        if self._model.n_mels != MEL_BANDS:
            found = f"{self._model.n_mels} mel bands"
            raise ModelError(
                "is another Whisper.", "Use tiny to medium.", file=str(directory), expected=f"{MEL_BANDS}", found=found
            )
        try:
            self._tokens = Tokenizer(model.hf_tokenizer, self._model.is_multilingual, "transcribe", options.language)
        except ValueError as error:
            raise ConfigError(f"{error}.", "Use a code such as en or de.", field="stt.language") from error

    def warm_up(self) -> None:
        """Decode noise once short and once in full, so that no caller pays for first-call allocation."""
        noise = np.random.default_rng(0).integers(-3000, 3000, STT_RATE, dtype=np.int16)
        audio = speech_samples(noise, LONGEST_S)
        self._decode([audio], self._options.min_frames)
        self._decode([audio], FULL_FRAMES)

    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[WhisperResult]:
        """The transcript of each clip (16 kHz, at most 30 s), decoded together.

        Raises CallerError for malformed PCM or more than 30 s of it, BackendError if the engine fails.
        """
        audios = [speech_samples(clip, LONGEST_S) for clip in clips]
        if not audios:
            return []
        try:
            return self._transcribe(audios)
        except RuntimeError as error:
            raise BackendError(f"Whisper failed: {error}.", "Retry on another replica.", stage="stt") from error

    def _transcribe(self, audios: list[Samples]) -> list[WhisperResult]:
        frames = self._frames(max(audio.size for audio in audios))
        hypotheses = self._decode(audios, frames)
        full = [frames == FULL_FRAMES] * len(audios)
        doubtful = [i for i, h in enumerate(hypotheses) if not full[i] and holds_speech(h) and not is_trustworthy(h)]
        if doubtful:
            again = self._decode([audios[i] for i in doubtful], FULL_FRAMES)
            for i, hypothesis in zip(doubtful, again, strict=True):
                hypotheses[i], full[i] = hypothesis, True
        return [
            WhisperResult(h.text if holds_speech(h) else "", h.avg_logprob, padded)
            for h, padded in zip(hypotheses, full, strict=True)
        ]

    def _frames(self, samples: int) -> int:
        if not self._options.short_context:
            return FULL_FRAMES
        needed = max(self._options.min_frames, -(-samples // HOP) + self._options.pad_frames)
        return min(FULL_FRAMES, needed + needed % 2)  # the encoder halves them

    def _decode(self, audios: Sequence[Samples], frames: int) -> list[Hypothesis]:
        """Greedy decode with timestamps of all `audios`, each padded with silence to `frames`."""
        features = np.stack([log_mel(audio, frames) for audio in audios])
        prompt = list(self._tokens.sot_sequence)
        limits = [_token_limit(audio) for audio in audios]
        results = self._model.generate(
            ctranslate2.StorageView.from_array(features),
            [prompt] * len(audios),
            beam_size=1,
            max_length=_MAX_LENGTH_FACTOR * max(limits),
            suppress_tokens=[_DEFAULT_SUPPRESSED],
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            self._hypothesis(result, audio.size / STT_RATE, limit)
            for result, audio, limit in zip(results, audios, limits, strict=True)
        ]

    def _hypothesis(self, result: Any, duration_s: float, limit: int) -> Hypothesis:
        ids: list[int] = result.sequences_ids[0]
        kept = self._until_end_mark(ids, duration_s)
        finished = len(kept) < len(ids) or len(ids) < limit
        return Hypothesis(
            text=self._tokens.decode(kept[:limit]).strip(),
            # CTranslate2's score is the mean over the tokens; the end of text counts as one more.
            avg_logprob=float(result.scores[0]) * len(ids) / (len(ids) + 1),
            no_speech_prob=float(result.no_speech_prob),
            finished=finished,
            duration_s=duration_s,
        )

    def _until_end_mark(self, ids: list[int], duration_s: float) -> list[int]:
        """The tokens before the first end mark that lies at the end of the audio or beyond it."""
        begin = self._tokens.timestamp_begin
        threshold_s = duration_s - END_MARK_SLACK_S
        for at, token in enumerate(ids[1:], start=1):  # the first is the start mark
            if token >= begin and (token - begin) * _TIMESTAMP_S >= threshold_s:
                return ids[:at]
        return ids


def _token_limit(audio: Samples) -> int:
    return int(TOKENS_PER_S * audio.size / STT_RATE) + TOKENS_BASE
