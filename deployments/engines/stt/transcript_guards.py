"""Which hypotheses of a speech recognizer to believe: did anyone speak, and is this what they said?

Thresholds without another source are Whisper's own (`whisper/transcribe.py`, decode with fallback). The two no-speech
rules separate 130 human clips (probability of no speech at most 0.62, and under 0.2 wherever the average
log-probability was below -1) from silence, hum and noise at three levels (over 0.7, or over 0.45 with an average
log-probability below -1).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

SURELY_NO_SPEECH = 0.7
MAYBE_NO_SPEECH = 0.45
NO_SPEECH_LOGPROB = -1.0
DOUBTFUL_LOGPROB = -0.9
"""Near the border of the second rule the full decode, which hears silence better, has the word."""

MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4

MAX_WORDS_PER_S = 7.0
WORDS_BASE = 3
"""The fastest speakers reach about six words a second; the base is for clips cut tightly around one short phrase."""

PHRASE_WORDS = 3
MAX_WORD_REPEATS = 4
"""People say a phrase of three words twice in a row rarely, and one or two words four times ("no no no no") hardly."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decode. `finished`: it ended by itself rather than at the length limit."""

    text: str
    avg_logprob: float
    no_speech_prob: float
    finished: bool
    duration_s: float


def holds_speech(hypothesis: Hypothesis) -> bool:
    """False for what Whisper invents on silence and noise ("Thank you."), and for text without a letter or digit."""
    if not any(character.isalnum() for character in hypothesis.text):
        return False
    if hypothesis.no_speech_prob > SURELY_NO_SPEECH:
        return False
    return hypothesis.no_speech_prob <= MAYBE_NO_SPEECH or hypothesis.avg_logprob >= NO_SPEECH_LOGPROB


def is_trustworthy(hypothesis: Hypothesis) -> bool:
    """False if the decode ran away or guessed, and should be repeated with full padding."""
    words = hypothesis.text.lower().split()
    return (
        hypothesis.finished
        and hypothesis.avg_logprob >= MIN_AVG_LOGPROB
        and (hypothesis.no_speech_prob <= MAYBE_NO_SPEECH or hypothesis.avg_logprob >= DOUBTFUL_LOGPROB)
        and len(words) <= MAX_WORDS_PER_S * hypothesis.duration_s + WORDS_BASE
        and compression_ratio(hypothesis.text) <= MAX_COMPRESSION_RATIO
        and not repeats_itself(words)
    )


def compression_ratio(text: str) -> float:
    """Bytes of `text` for each byte of its zlib form: high if it repeats."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def repeats_itself(words: list[str]) -> bool:
    """True if a phrase of at least three words follows itself, or a shorter one occurs four times in a row."""
    return any(
        _longest_run(words, size) >= (2 if size >= PHRASE_WORDS else MAX_WORD_REPEATS)
        for size in range(1, len(words) // 2 + 1)
    )


def _longest_run(words: list[str], size: int) -> int:
    """How often in a row a phrase of `size` words occurs at most."""
    longest, equal = 0, 0
    for i in range(size, len(words)):
        equal = equal + 1 if words[i] == words[i - size] else 0
        longest = max(longest, equal)
    return longest // size + 1
