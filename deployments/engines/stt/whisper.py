"""Whisper in CTranslate2, with no more audio context than the utterance needs.

Whisper was trained on 30 s windows, and faster-whisper pads every input to 30 s. The encoder then spends most of a
short turn's time on silence. CTranslate2's encoder accepts fewer frames. With little padding, however, the decoder
often does not stop at the end of the speech and repeats the sentence. Therefore a short decode

1. uses timestamps, and is cut at the first timestamp within END_MARK_SLACK_S of the audio's end;
2. is limited to as many tokens as speech of that duration can have;
3. must pass the guards in `transcript_guards`, or is repeated once with full padding.

If a clip is doubtful, its language is checked (`languages`). A clip in another language is transcribed in it, because
a decoder that is told the wrong language makes up words.

CTranslate2 has no per-token callback for Whisper, so the cut is made after decoding. That costs little: on 98 human
clips, 98% of the decoded tokens were before the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer

from deployments.engines.device import CPU, EngineDevice
from deployments.engines.pcm import Pcm, speech_samples
from deployments.engines.stt.languages import MAIN_DOUBT_LOGPROB, best, candidates, shares
from deployments.engines.stt.log_mel import HOP, log_mel
from deployments.engines.stt.transcript_guards import (
    Hypothesis,
    holds_speech,
    is_plausible,
    is_trustworthy,
    settled_text,
)
from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.errors import BackendError, ConfigError, ModelError

LONGEST_S = 30.0
FULL_FRAMES = 3000
"""30 s of 10 ms frames, which Whisper was trained on."""

END_MARK_SLACK_S = 0.4
"""A timestamp in this last part of the audio (in seconds) counts as the end of the speech. Whisper rounds timestamps,
and sets them at the end of the voice, not of the audio.
"""

TOKENS_PER_S = 7.0
TOKENS_BASE = 8
"""A short decode may have TOKENS_PER_S tokens per second of audio plus TOKENS_BASE. Fast speech has 5 tokens a second;
TOKENS_BASE allows for timestamps and short commands.
"""

AUTO = "auto"
EXPECTED_WITH_AUTO = "en"
"""The language to try first if the setting is AUTO, so that the language is detected."""

_TIMESTAMP_S = 0.02
_DEFAULT_SUPPRESSED = -1
# CTranslate2 decodes at most half of `max_length`: Whisper reserves the other half of its 448 positions for a prompt.
_MAX_LENGTH_FACTOR = 2
# Maximum number of tokens of a text that is aligned with its audio: Whisper's decoder has 448 positions.
_MOST_ALIGNED = 440


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """Options of the Whisper engine.

    A short decode has less than 30 s of audio context. Its number of 10 ms frames is max(min_frames,
    frames of the audio + pad_frames).

    Attributes:
        language: Code of the expected language, such as "en". AUTO expects English, as a first guess.
        compute_type: Precision of the weights, such as "int8".
        threads: Threads of one inference.
        short_context: Decode short clips with less than 30 s of audio context.
        min_frames: Minimum number of frames of a short decode.
        pad_frames: Frames of silence after the audio in a short decode.
        device: Where to compute.
    """

    language: str = "en"
    compute_type: str = "int8"
    threads: int = 2
    short_context: bool = True
    min_frames: int = 500
    pad_frames: int = 100
    device: EngineDevice = CPU


@dataclass(frozen=True, slots=True)
class WhisperResult:
    """One transcript.

    Attributes:
        text: The transcript without surrounding spaces; empty if the clip contains no speech.
        avg_logprob: Mean log-probability of the tokens.
        full_padding: True if the clip was decoded padded to 30 s.
        no_speech_prob: Probability that the clip contains no speech.
        language: Code of the language of `text` if it is not the expected one; "" otherwise.
        rejected: What was decoded although the clip seems to contain no speech; "" if `text` is not empty, or if the
            decode cannot be what a person said.
    """

    text: str
    avg_logprob: float
    full_padding: bool = False
    no_speech_prob: float = 0.0
    language: str = ""
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class LanguageCheck:
    """Probabilities of the languages of one clip, detected on one or two encodings of it with different padding."""

    found: tuple[dict[str, float], ...]

    def joined(self, other: LanguageCheck) -> LanguageCheck:
        """Return a check with the probabilities from this check's encodings and from those of `other`."""
        return LanguageCheck(self.found + other.found)

    @property
    def shared(self) -> dict[str, float]:
        """Mean probability of each language over the encodings, by language code."""
        return {code: sum(each[code] for each in self.found) / len(self.found) for code in self.found[0]}


Encoded = npt.NDArray[np.floating[Any]]
"""Output of the encoder, shape (clips, frames / 2, width): float32, or float16 if the computation is in float16."""


TimedWord = tuple[str, float, float]
"""A word without spaces around it, and the seconds from the start of the audio to its start and its end."""


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
        self._expected = EXPECTED_WITH_AUTO if options.language == AUTO else options.language
        if not directory.is_dir():  # faster-whisper would treat a missing folder as the name of a hub repository
            raise ModelError("is not a folder.", "Run `rejoinder models pull whisper-base`.", file=str(directory))
        try:
            model = WhisperModel(
                str(directory),
                device=options.device.name,
                compute_type=options.compute_type,
                cpu_threads=options.threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            remedy = "Run `rejoinder models verify`."
            raise ModelError("is not a Whisper model.", remedy, file=str(directory), found=str(error)) from error
        self._model: Any = model.model
        if not self._model.is_multilingual and self._expected != "en":
            message = f"the model {directory.name} knows English only."
            raise ConfigError(message, "Set stt.language to en, or stt.model to another model.", field="stt.language")
        try:
            self._tokens = Tokenizer(model.hf_tokenizer, self._model.is_multilingual, "transcribe", self._expected)
        except ValueError as error:
            raise ConfigError(f"{error}.", "Use a code such as en or de.", field="stt.language") from error

    def warm_up(self) -> None:
        """Decode noise once with short context and once padded to 30 s, because the first inference is slow."""
        noise = np.random.default_rng(0).integers(-3000, 3000, STT_RATE, dtype=np.int16)
        audio = speech_samples(noise, LONGEST_S)
        for frames in (self._options.min_frames, FULL_FRAMES):
            self._decode([audio], self._encode([audio], frames))

    def transcribe_batch(self, clips: Sequence[Pcm], doubtful: Sequence[bool] | None = None) -> list[WhisperResult]:
        """Return the transcript of each clip (16 kHz, at most 30 s), decoded in one batch.

        Args:
            clips: The audio.
            doubtful: For each clip, whether it may be in another language than the expected one. None: the clips with
                a low log-probability may.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: The engine failed.
        """
        audios = [speech_samples(clip, LONGEST_S) for clip in clips]
        if not audios:
            return []
        try:
            return self._transcribe(audios, doubtful)
        except RuntimeError as error:
            raise BackendError(f"Whisper failed: {error}.", "Retry on another replica.", stage="stt") from error

    def word_times(self, clip: Pcm, text: str, language: str = "") -> list[TimedWord]:
        """Return the words of a transcript of the clip with their times, which never decrease.

        The decoder's attention tells which part of the audio each token of the text belongs to (`CTranslate2`'s
        alignment, https://opennmt.net/CTranslate2/python/ctranslate2.models.Whisper.html). The text may come from
        another recognizer.

        Args:
            clip: 16 kHz audio, at most 30 s.
            text: The transcript.
            language: Code of its language, "" for the expected one.

        Raises:
            BackendError: The engine failed.
        """
        audio = speech_samples(clip, LONGEST_S)
        tokens = self._tokens.encode(f" {text.strip()}")[:_MOST_ALIGNED]
        try:
            encoded = ctranslate2.StorageView.from_array(self._encode([audio], FULL_FRAMES))
            frames = min(FULL_FRAMES, audio.size // HOP)
            (found,) = self._model.align(encoded, self._prompt(language or self._expected), [tokens], frames)
        except RuntimeError as error:
            raise BackendError(f"Whisper failed: {error}.", "Retry on another replica.", stage="stt") from error
        before = [self._tokens.decode(tokens[:count]) for count in range(len(tokens) + 1)]
        return timed_words(text, before, found.alignments)

    def _transcribe(self, audios: list[Samples], doubtful: Sequence[bool] | None) -> list[WhisperResult]:
        frames = self._frames(max(audio.size for audio in audios))
        encoded = self._encode(audios, frames)
        hypotheses = self._decode(audios, encoded)
        if doubtful is None:
            doubtful = [hypothesis.avg_logprob < MAIN_DOUBT_LOGPROB for hypothesis in hypotheses]
        checked = [self._language_check(encoded[i : i + 1]) if doubtful[i] else None for i in range(len(audios))]
        results: list[WhisperResult] = []
        for i, (audio, first) in enumerate(zip(audios, hypotheses, strict=True)):
            own, check, last, full = encoded[i : i + 1], checked[i], first, frames == FULL_FRAMES
            # A clip that may be in another language (`check`) is decoded again even if the first decode found no
            # speech: with little padding, such speech may look like noise.
            if not full and not is_trustworthy(first) and (check or holds_speech(first)):
                own, full = self._encode([audio], FULL_FRAMES), True
                (last,) = self._decode([audio], own)
                check = check and check.joined(self._language_check(own))
            foreign = self._in_other_language(audio, own, check) if check and holds_speech(last) else None
            results.append(foreign or self._result(first, last, full))
        return results

    def _result(self, first: Hypothesis, last: Hypothesis, full: bool) -> WhisperResult:
        """Return the result of a clip in the expected language.

        Args:
            first: The first decode.
            last: The last decode; the same object if there was only one.
            full: True if the last decode was padded to 30 s.
        """
        text = (first.text if is_trustworthy(first) else settled_text(first, last)) if holds_speech(first) else ""
        rejected = last.text if not text and last.finished and is_plausible(last) else ""
        return WhisperResult(text, last.avg_logprob, full, last.no_speech_prob, rejected=rejected)

    def _in_other_language(self, audio: Samples, encoded: Encoded, check: LanguageCheck) -> WhisperResult | None:
        """Return the transcript of a clip in another language; None if it is in the expected one, or has no speech.

        Args:
            audio: The clip's samples.
            encoded: The encoder's output for the clip.
            check: Probabilities of the clip's languages.
        """
        shared = check.shared
        codes = candidates(shared, self._expected)
        if not codes:
            return None
        repeated = np.repeat(encoded, len(codes), axis=0)
        decoded = dict(zip(codes, self._decode([audio] * len(codes), repeated, codes), strict=True))
        language = best(decoded, shared)
        chosen = decoded[language]
        if not holds_speech(chosen) or not is_plausible(chosen):
            return None
        return WhisperResult(chosen.text, chosen.avg_logprob, no_speech_prob=chosen.no_speech_prob, language=language)

    def _language_check(self, encoded: Encoded) -> LanguageCheck:
        """Return Whisper's probabilities of the languages for one encoded clip."""
        if not self._model.is_multilingual:
            return LanguageCheck(({self._expected: 1.0},))
        (found,) = self._model.detect_language(ctranslate2.StorageView.from_array(encoded))
        return LanguageCheck((shares({token[2:-2]: probability for token, probability in found}, self._expected),))

    def _frames(self, samples: int) -> int:
        if not self._options.short_context:
            return FULL_FRAMES
        needed = max(self._options.min_frames, -(-samples // HOP) + self._options.pad_frames)
        return min(FULL_FRAMES, needed + needed % 2)  # rounded up to an even number, because the encoder halves it

    def _encode(self, audios: Sequence[Samples], frames: int) -> Encoded:
        """Return the encoder's output for each clip, padded with silence to `frames` frames."""
        features = np.stack([log_mel(audio, frames, bands=self._model.n_mels) for audio in audios])
        # `to_cpu` copies the result from a GPU, whose memory NumPy cannot read.
        encoded: Encoded = np.array(self._model.encode(ctranslate2.StorageView.from_array(features), to_cpu=True))
        return encoded

    def _decode(
        self, audios: Sequence[Samples], encoded: Encoded, languages: Sequence[str] | None = None
    ) -> list[Hypothesis]:
        """Decode encoded clips greedily with timestamps, each in its language; by default in the expected one."""
        limits = [_token_limit(audio) for audio in audios]
        results = self._model.generate(
            ctranslate2.StorageView.from_array(encoded),
            [self._prompt(language) for language in languages or [self._expected] * len(audios)],
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

    def _prompt(self, language: str) -> list[int]:
        """Return the tokens that start a transcript in this language."""
        prompt = list(self._tokens.sot_sequence)
        if language != self._expected:  # the sequence is: start, language, task
            prompt[1] = self._tokens.tokenizer.token_to_id(f"<|{language}|>")
        return prompt

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


def timed_words(text: str, before: Sequence[str], alignments: Sequence[tuple[int, int]]) -> list[TimedWord]:
    """Return the words of a text with their times.

    Args:
        text: The text. Its words are separated by spaces.
        before: The text before each token, and all of it. A character whose bytes are in several tokens counts for the
            last one. A word begins with the token that has its first character.
        alignments: Pairs (index of a token, index of a frame of 20 ms), in order. Every token has at least one.
    """
    starts: dict[int, float] = {}
    for token, frame in alignments:
        starts.setdefault(token, frame * _TIMESTAMP_S)
    end_s = alignments[-1][1] * _TIMESTAMP_S if alignments else 0.0
    begins: list[float] = []
    position = 0
    for index, after in enumerate(before[1:]):
        letters = len(after.replace(" ", "").rstrip("\ufffd"))
        begins += [starts.get(index, end_s)] * (letters - len(begins))
    words: list[TimedWord] = []
    for word in text.split():
        start_s = begins[position] if position < len(begins) else end_s
        position += len(word)
        words.append((word, start_s, max(start_s, begins[position] if position < len(begins) else end_s)))
    return words


def _token_limit(audio: Samples) -> int:
    return int(TOKENS_PER_S * audio.size / STT_RATE) + TOKENS_BASE
