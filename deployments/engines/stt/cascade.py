"""Cascade of two recognizers: a fast first-pass recognizer, and a main recognizer for low-confidence transcripts.

The first-pass recognizer handles most utterances, in a third of the time. An utterance goes to the main recognizer if
the mean log-probability of its tokens is low, or if a transcript guard rejects it. The main recognizer's transcript
then replaces the first one. Interim transcripts use the first-pass recognizer only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from deployments.engines.pcm import Pcm
from deployments.engines.stt.languages import FIRST_PASS_DOUBT_LOGPROB
from deployments.engines.stt.moonshine import Moonshine, MoonshineResult
from deployments.engines.stt.transcript_guards import Hypothesis, agree, identical_words, is_invention, is_trustworthy
from deployments.engines.stt.whisper import TimedWord, WhisperResult

USABLE_LOGPROB = FIRST_PASS_DOUBT_LOGPROB
"""Mean log-probability of a first-pass transcript below which it is not answered without a second opinion: the caller
may speak another language."""


@dataclass(frozen=True, slots=True)
class FirstOpinion:
    """A first-pass transcript with low confidence: its text and the mean log-probability of its tokens."""

    text: str
    avg_logprob: float


class Recognizer(Protocol):
    """Protocol of the main recognizer, which is slower and more accurate than the first pass. `name` is for reports."""

    name: str

    def warm_up(self) -> None:
        """Run the model once, so that the first transcription is as fast as later ones."""
        ...

    def transcribe_batch(self, clips: Sequence[Pcm], doubtful: Sequence[bool] | None = None) -> list[WhisperResult]:
        """Return the transcript of each 16 kHz clip.

        `doubtful` says for each clip whether it may be in another language than the expected one; None if unknown.
        """
        ...

    def word_times(self, clip: Pcm, text: str, language: str = "") -> list[TimedWord]:
        """Return the words of a clip's transcript with their times.

        `language` is the code of the transcript's language, "" for the expected one.
        """
        ...


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """One transcript.

    Attributes:
        text: The transcript without surrounding spaces; empty if the clip contains no speech.
        avg_logprob: Mean log-probability of the tokens.
        repeated: True if this is the main recognizer's transcript, because the first pass had low confidence.
        low_confidence: True if this is a first-pass transcript with low confidence.
        usable: False if a transcript with low confidence is too bad to be answered.
        full_padding: True if Whisper decoded the clip padded to 30 s.
        tokens: The first-pass recognizer's tokens, to pass as `guess` with a longer clip of the same utterance.
        language: Code of the language of `text` if it is not the expected one; "" otherwise.
        agreed: True if both recognizers have heard the same words.
        words: The words with their times, if they were asked for.
    """

    text: str
    avg_logprob: float
    repeated: bool = False
    low_confidence: bool = False
    full_padding: bool = False
    tokens: tuple[int, ...] = ()
    usable: bool = True
    language: str = ""
    agreed: bool = False
    words: tuple[TimedWord, ...] = ()


class SttCascade:
    """A main recognizer, with an optional first-pass recognizer before it."""

    def __init__(self, main: Recognizer, first_pass: Moonshine | None = None, min_logprob: float = 0.0) -> None:
        """Create a cascade.

        Args:
            main: Transcribes clips whose first-pass transcript has low confidence; all clips if there is no first pass.
            first_pass: The fast recognizer.
            min_logprob: Mean log-probability below which a first-pass transcript is repeated.
        """
        self.name = main.name if first_pass is None else f"{first_pass.name}, at low confidence {main.name}"
        self._main = main
        self._first_pass = first_pass
        self._min_logprob = min_logprob

    def warm_up(self) -> None:
        """Warm up the main recognizer and, if there is one, the first-pass recognizer."""
        self._main.warm_up()
        if self._first_pass is not None:
            self._first_pass.warm_up()

    def transcribe_batch(
        self, clips: Sequence[Pcm], *, partial: bool = False, guess: tuple[int, ...] = ()
    ) -> list[CascadeResult]:
        """Return the transcript of each clip.

        Args:
            clips: 16 kHz audio, at most 30 s each.
            partial: True for the first pass only: the main recognizer does not repeat transcripts with low confidence.
            guess: Tokens of an earlier transcript of the beginning of a single clip. They speed up decoding.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: An engine failed.
        """
        if self._first_pass is None:
            return [_main_result(decoded) for decoded in self._main.transcribe_batch(clips)]
        first = self._first_pass.transcribe_batch(clips, guess)
        results = [self._first_result(result) for result in first]
        to_repeat = [] if partial else [index for index, result in enumerate(results) if result.low_confidence]
        opinions = [FirstOpinion(results[index].text, results[index].avg_logprob) for index in to_repeat]
        again = self.second_opinion([clips[index] for index in to_repeat], opinions)
        for index, result in zip(to_repeat, again, strict=True):
            results[index] = result
        return results

    def second_opinion(self, clips: Sequence[Pcm], first: Sequence[FirstOpinion]) -> list[CascadeResult]:
        """Return the main recognizer's transcript of each clip, whose first-pass transcript had low confidence.

        Args:
            clips: 16 kHz audio, at most 30 s each.
            first: The first-pass transcript of each clip.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: The engine failed.
        """
        doubtful = [opinion.avg_logprob < FIRST_PASS_DOUBT_LOGPROB for opinion in first]
        decoded = self._main.transcribe_batch(clips, doubtful) if clips else []
        return [
            replace(
                _main_result(result, repeated=True),
                text=_believed(result, opinion),
                agreed=identical_words(opinion.text, result.text),
            )
            for result, opinion in zip(decoded, first, strict=True)
        ]

    def word_times(self, clip: Pcm, text: str, language: str) -> tuple[TimedWord, ...]:
        """Return the words of a clip's transcript with their times, by either recognizer.

        The main recognizer aligns the text with the audio.

        Args:
            clip: 16 kHz audio, at most 30 s.
            text: The transcript.
            language: Code of its language, "" for the expected one.
        """
        return tuple(self._main.word_times(clip, text, language))

    def _first_result(self, result: MoonshineResult) -> CascadeResult:
        hypothesis = result.hypothesis
        has_words = any(character.isalnum() for character in hypothesis.text)
        return CascadeResult(
            hypothesis.text,
            hypothesis.avg_logprob,
            low_confidence=not self.is_confident(hypothesis),
            tokens=result.tokens,
            usable=has_words and hypothesis.avg_logprob >= USABLE_LOGPROB and is_trustworthy(hypothesis),
        )

    def is_confident(self, hypothesis: Hypothesis) -> bool:
        """Return True if a first-pass transcript has words and a high log-probability, and passes the guards."""
        has_words = any(character.isalnum() for character in hypothesis.text)
        return has_words and hypothesis.avg_logprob >= self._min_logprob and is_trustworthy(hypothesis)


def _believed(result: WhisperResult, opinion: FirstOpinion) -> str:
    """Return the main recognizer's text; "" if it is made up. A text that the first pass confirms is not."""
    if not result.text and agree(opinion.text, result.rejected):
        return result.rejected
    return "" if is_invention(result.text, result.no_speech_prob, opinion.text) else result.text


def _main_result(decoded: WhisperResult, *, repeated: bool = False) -> CascadeResult:
    return CascadeResult(
        decoded.text,
        decoded.avg_logprob,
        repeated=repeated,
        full_padding=decoded.full_padding,
        language=decoded.language,
    )
