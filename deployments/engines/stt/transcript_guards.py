"""Guards that reject a recognizer's hypothesis: for audio without speech, and for runaway or guessed text.

Thresholds without a comment are Whisper's own (`whisper/transcribe.py`, decode with fallback). The two no-speech rules
separate 130 human clips from silence, hum and noise at three levels. The clips had a no-speech probability of at most
0.62, and below 0.2 where the average log-probability was below -1. The audio without speech had more than 0.7, or more
than 0.45 with an average log-probability below -1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

NO_SPEECH_PROB = 0.7
"""If the no-speech probability is above this, the audio contains no speech."""
POSSIBLE_NO_SPEECH_PROB = 0.45
NO_SPEECH_LOGPROB = -1.0
"""If the average log-probability is below this and the no-speech probability is above POSSIBLE_NO_SPEECH_PROB, the
audio contains no speech.
"""
BORDERLINE_LOGPROB = -0.9
"""If the average log-probability is below this and the no-speech probability is above POSSIBLE_NO_SPEECH_PROB, the
audio is decoded again with full padding, which detects silence better.
"""

MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4

MAX_WORDS_PER_S = 7.0
WORDS_BASE = 3
"""A transcript may have MAX_WORDS_PER_S words per second of audio plus WORDS_BASE. The fastest speakers reach about six
words a second; WORDS_BASE allows for clips cut tightly around a short phrase.
"""

PHRASE_WORDS = 3
MAX_WORD_REPEATS = 4
"""Limits of repetition: people rarely say a phrase of PHRASE_WORDS words twice in a row, or one or two words
MAX_WORD_REPEATS times ("no no no no").
"""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Result of one decode.

    Attributes:
        text: The transcript.
        avg_logprob: Mean log-probability of the tokens.
        no_speech_prob: Probability that the audio contains no speech.
        finished: True if the decode ended by itself, False if it ended at the length limit.
        duration_s: Duration of the audio in seconds.
    """

    text: str
    avg_logprob: float
    no_speech_prob: float
    finished: bool
    duration_s: float


def holds_speech(hypothesis: Hypothesis) -> bool:
    """Return False for text that Whisper makes up on silence and noise ("Thank you."), and for text without words."""
    if not any(character.isalnum() for character in hypothesis.text):
        return False
    if hypothesis.no_speech_prob > NO_SPEECH_PROB:
        return False
    return hypothesis.no_speech_prob <= POSSIBLE_NO_SPEECH_PROB or hypothesis.avg_logprob >= NO_SPEECH_LOGPROB


def is_trustworthy(hypothesis: Hypothesis) -> bool:
    """Return False if the transcript looks like runaway repetition or a guess. The clip should be decoded again."""
    words = hypothesis.text.lower().split()
    return (
        hypothesis.finished
        and hypothesis.avg_logprob >= MIN_AVG_LOGPROB
        and (hypothesis.no_speech_prob <= POSSIBLE_NO_SPEECH_PROB or hypothesis.avg_logprob >= BORDERLINE_LOGPROB)
        and len(words) <= MAX_WORDS_PER_S * hypothesis.duration_s + WORDS_BASE
        and compression_ratio(hypothesis.text) <= MAX_COMPRESSION_RATIO
        and not repeats_itself(words)
    )


def compression_ratio(text: str) -> float:
    """Return the size of `text` in bytes divided by its zlib-compressed size. Repetitive text has a high ratio."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def repeats_itself(words: list[str]) -> bool:
    """Return True for a phrase of three or more words twice in a row, or of one or two words four times in a row."""
    return any(
        _longest_run(words, size) >= (2 if size >= PHRASE_WORDS else MAX_WORD_REPEATS)
        for size in range(1, len(words) // 2 + 1)
    )


def _longest_run(words: list[str], size: int) -> int:
    """Return the largest number of times that a phrase of `size` words occurs in a row, at least 1."""
    longest, equal = 0, 0
    for i in range(size, len(words)):
        equal = equal + 1 if words[i] == words[i - size] else 0
        longest = max(longest, equal)
    return longest // size + 1
