"""Cascade of two recognizers: a fast first-pass recognizer, and a main recognizer for low-confidence transcripts.

The first-pass recognizer handles most utterances, in a third of the time. An utterance goes to the main recognizer if
the mean log-probability of its tokens is low, or if a transcript guard rejects it. The main recognizer's transcript
then replaces the first one. Interim transcripts use the first-pass recognizer only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.engines.pcm import Pcm
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.transcript_guards import Hypothesis, is_trustworthy
from deployments.engines.stt.whisper import WhisperResult


class Recognizer(Protocol):
    """Protocol of the main recognizer, which is slower and more accurate than the first pass. `name` is for reports."""

    name: str

    def warm_up(self) -> None:
        """Run the model once, so that the first transcription is as fast as later ones."""
        ...

    def transcribe_batch(self, clips: Sequence[Pcm]) -> list[WhisperResult]:
        """Return the transcript of each 16 kHz clip."""
        ...


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """One transcript.

    Attributes:
        text: The transcript without surrounding spaces; empty if the clip contains no speech.
        avg_logprob: Mean log-probability of the tokens.
        repeated: True if this is the main recognizer's transcript, because the first pass had low confidence.
        low_confidence: True if this is a first-pass transcript with low confidence, of an interim request.
        full_padding: True if Whisper decoded the clip padded to 30 s.
        tokens: The first-pass recognizer's tokens, to pass as `guess` with a longer clip of the same utterance.
    """

    text: str
    avg_logprob: float
    repeated: bool = False
    low_confidence: bool = False
    full_padding: bool = False
    tokens: tuple[int, ...] = ()


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
            partial: True if the clips are for interim transcripts, which are not repeated by the main recognizer.
            guess: Tokens of an earlier transcript of the beginning of a single clip. They speed up decoding.

        Raises:
            CallerError: A clip is malformed or longer than 30 s.
            BackendError: An engine failed.
        """
        if self._first_pass is None:
            return [_main_result(decoded) for decoded in self._main.transcribe_batch(clips)]
        first = self._first_pass.transcribe_batch(clips, guess)
        results = [
            CascadeResult(
                result.hypothesis.text,
                result.hypothesis.avg_logprob,
                low_confidence=not self.is_confident(result.hypothesis),
                tokens=result.tokens,
            )
            for result in first
        ]
        to_repeat = [] if partial else [index for index, result in enumerate(results) if result.low_confidence]
        again = self._main.transcribe_batch([clips[index] for index in to_repeat])
        for index, decoded in zip(to_repeat, again, strict=True):
            results[index] = _main_result(decoded, repeated=True)
        return results

    def is_confident(self, hypothesis: Hypothesis) -> bool:
        """Return True if a first-pass transcript has words and a high log-probability, and passes the guards."""
        has_words = any(character.isalnum() for character in hypothesis.text)
        return has_words and hypothesis.avg_logprob >= self._min_logprob and is_trustworthy(hypothesis)


def _main_result(decoded: WhisperResult, *, repeated: bool = False) -> CascadeResult:
    return CascadeResult(decoded.text, decoded.avg_logprob, repeated=repeated, full_padding=decoded.full_padding)
