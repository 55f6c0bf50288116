"""Whisper in CTranslate2, with no more audio context than the utterance needs.

Whisper was trained on 30 s windows, and faster-whisper pads every input to 30 s. The encoder then spends most of a
short turn's time on silence. CTranslate2's encoder accepts fewer frames. With little padding, however, the decoder
often does not stop at the end of the speech and repeats the sentence. Therefore a short decode

1. uses timestamps, and is cut at the first timestamp within END_MARK_SLACK_S of the audio's end;
2. is limited to as many tokens as speech of that duration can have;
3. must pass the guards in `transcript_guards`, or is repeated once with full padding.

CTranslate2 has no per-token callback for Whisper, so the cut is made after decoding. That costs little: on 98 human
clips, 98% of the decoded tokens were before the cut.
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
from deployments.engines.stt.log_mel import HOP, log_mel
from deployments.engines.stt.transcript_guards import Hypothesis, holds_speech, is_trustworthy
from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ConfigError, ModelError

LONGEST_S = 30.0
FULL_FRAMES = 3000
"""30 s of 10 ms frames, which Whisper was trained on."""

END_MARK_SLACK_S = 0.4
"""Seconds before the end of the audio from which a timestamp counts as the end: Whisper rounds timestamps, and sets
them at the end of the voice, not of the audio.
"""

TOKENS_PER_S = 7.0
TOKENS_BASE = 8
"""A short decode may have TOKENS_PER_S tokens per second of audio plus TOKENS_BASE. Fast speech has 5 tokens a second;
TOKENS_BASE allows for timestamps and short commands.
"""

_TIMESTAMP_S = 0.02
_DEFAULT_SUPPRESSED = -1
# CTranslate2 decodes at most half of `max_length`: Whisper reserves the other half of its 448 positions for a prompt.
_MAX_LENGTH_FACTOR = 2


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """Options of the Whisper engine.

    A short decode has less than 30 s of audio context. Its number of 10 ms frames is max(min_frames,
    frames of the audio + pad_frames).

    Attributes:
        language: Code such as "en".
        compute_type: Precision of the weights.
        threads: Threads of one inference.
        short_context: Decode short clips with less than 30 s of audio context.
        min_frames: Minimum number of frames of a short decode.
        pad_frames: Frames of silence after the audio in a short decode.
    """

    language: str = "en"
    compute_type: Literal["int8", "float32"] = "int8"
    threads: int = 2
    short_context: bool = True
    min_frames: int = 500
    pad_frames: int = 100


@dataclass(frozen=True, slots=True)
class WhisperResult:
    """One transcript.

    Attributes:
        text: The transcript without surrounding spaces; empty if the clip contains no speech.
        avg_logprob: Mean log-probability of the tokens.
        full_padding: True if the clip was decoded padded to 30 s.
    """

    text: str
    avg_logprob: float
    full_padding: bool = False


class Whisper:
    """One Whisper model in memory. Calls from several threads run one after another."""

    def __init__(self, directory: Path, options: WhisperOptions = WhisperOptions()) -> None:
        """Load the faster-whisper model in `directory`.

        Raises:
            ModelError: `directory` does not contain a Whisper model for CTranslate2.
            ConfigError: The model does not support the language.
        """
        self.name = f"{directory.name} {options.compute_type} (ctranslate2)"
        self._options = options
        if not directory.is_dir():  # faster-whisper would treat a missing folder as the name of a hub repository
            raise ModelError("is not a folder.", "Run `rejoinder models pull whisper-base`.", file=str(directory))
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
            raise ModelError("is not a Whisper model.", remedy, file=str(directory), found=str(error)) from error
        self._model: Any = model.model
        if not self._model.is_multilingual and options.language != "en":
            message = f"the model {directory.name} knows English only."
            raise ConfigError(message, "Set stt.language to en, or stt.model to another model.", field="stt.language")
        try:
            self._tokens = Tokenizer(model.hf_tokenizer, self._model.is_multilingual, "transcribe", options.language)
        except ValueError as error:
            raise ConfigError(f"{error}.", "Use a code such as en or de.", field="stt.language") from error

    def warm_up(self) -> None:
        """Decode noise once with short context and once padded to 30 s, because the first inference is slow."""
        noise = np.random.default_rng(0).integers(-3000, 3000, STT_RATE, dtype=np.int16)
        audio = speech_samples(noise, LONGEST_S)
        self._decode([audio], self._options.min_frames)
        self._decode([audio], FULL_FRAMES)

    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[WhisperResult]:
        """Return the transcript of each clip (16 kHz, at most 30 s), decoded in one batch.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: The engine failed.
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
        to_repeat = [i for i, h in enumerate(hypotheses) if not full[i] and holds_speech(h) and not is_trustworthy(h)]
        if to_repeat:
            again = self._decode([audios[i] for i in to_repeat], FULL_FRAMES)
            for i, hypothesis in zip(to_repeat, again, strict=True):
                hypotheses[i], full[i] = hypothesis, True
        return [
            WhisperResult(h.text if holds_speech(h) else "", h.avg_logprob, padded)
            for h, padded in zip(hypotheses, full, strict=True)
        ]

    def _frames(self, samples: int) -> int:
        if not self._options.short_context:
            return FULL_FRAMES
        needed = max(self._options.min_frames, -(-samples // HOP) + self._options.pad_frames)
        return min(FULL_FRAMES, needed + needed % 2)  # rounded up to an even number, because the encoder halves it

    def _decode(self, audios: Sequence[Samples], frames: int) -> list[Hypothesis]:
        """Decode all `audios` greedily with timestamps, each padded with silence to `frames` frames."""
        features = np.stack([log_mel(audio, frames, bands=self._model.n_mels) for audio in audios])
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
            # CTranslate2's score is the mean log-probability over the tokens. Whisper's mean counts the end token too.
            avg_logprob=float(result.scores[0]) * len(ids) / (len(ids) + 1),
            no_speech_prob=float(result.no_speech_prob),
            finished=finished,
            duration_s=duration_s,
        )

    def _until_end_mark(self, ids: list[int], duration_s: float) -> list[int]:
        """Return the tokens before the first timestamp that is at most END_MARK_SLACK_S before the end of the audio.

        Without such a timestamp all of `ids` are returned. `duration_s` is the duration of the audio in seconds.
        """
        begin = self._tokens.timestamp_begin
        threshold_s = duration_s - END_MARK_SLACK_S
        for index, token in enumerate(ids[1:], start=1):  # token 0 is the timestamp of the start
            if token >= begin and (token - begin) * _TIMESTAMP_S >= threshold_s:
                return ids[:index]
        return ids


def _token_limit(audio: Samples) -> int:
    return int(TOKENS_PER_S * audio.size / STT_RATE) + TOKENS_BASE
