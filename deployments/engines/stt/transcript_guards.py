"""Guards that reject a recognizer's hypothesis: for audio without speech, and for runaway or guessed text.

Thresholds without a comment are Whisper's own (`whisper/transcribe.py`, decode with fallback). The two no-speech rules
separate 130 human clips from silence, hum and noise at three levels. The clips had a no-speech probability of at most
0.62, and below 0.2 where the average log-probability was below -1. The audio without speech had more than 0.7, or more
than 0.45 with an average log-probability below -1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from difflib import SequenceMatcher

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

GUESSED_NO_SPEECH_PROB = 0.2
"""If the average log-probability of a second decode is below MIN_AVG_LOGPROB and the no-speech probability is above
this, the text is a guess on babble or noise. No human clip had more than 0.2 with such a log-probability.
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
MAX_PHRASE_REPEATS = 3
"""Maximum number of times in a row that a person says a phrase of PHRASE_WORDS words. A text with more is made up, even
if two decodes agree on it.
"""

INVENTIONS = frozenset(
    {
        "you",
        "thank you",
        "thank you very much",
        "thank you for watching",
        "thanks for watching",
        "please subscribe",
        "bye",
        "im sorry",
        "so",
        "okay",
    }
)
"""Texts that Whisper often makes up on noise, in small letters without punctuation."""
INVENTION_NO_SPEECH_PROB = 0.3
"""A text in INVENTIONS is made up if the no-speech probability is above this and the first pass heard other words."""

DIGITS = dict(
    zip(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], "0123456789", strict=True)
)
"""Digit of each number word."""
AGREED_SHARE = 0.5
"""Share of letters, in the same order, that two transcripts must have in common to agree: twice the common letters,
divided by all letters of both.
"""
MIN_AGREED_LETTERS = 4
"""A shorter text proves nothing: "you" and "so" are often made up."""


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
    return (
        hypothesis.finished
        and hypothesis.avg_logprob >= MIN_AVG_LOGPROB
        and (hypothesis.no_speech_prob <= POSSIBLE_NO_SPEECH_PROB or hypothesis.avg_logprob >= BORDERLINE_LOGPROB)
        and is_plausible(hypothesis)
    )


def settled_text(before: Hypothesis, again: Hypothesis) -> str:
    """Return the text of a clip's second decode: all of it, without its repetitions, or "" if it is made up.

    Babble and clicks can make both decodes repeat a sentence that nobody said. So a repetition is kept only if both
    decodes have the same words and at most MAX_PHRASE_REPEATS repetitions of a phrase.

    Args:
        before: The first decode, which is not trustworthy.
        again: The second decode, with full padding.
    """
    if not holds_speech(again):
        return ""
    if is_trustworthy(again):
        return again.text
    if again.avg_logprob < MIN_AVG_LOGPROB and again.no_speech_prob > GUESSED_NO_SPEECH_PROB:
        return ""
    words = _bare(again.text)
    if not repeats_itself(words):
        return again.text
    if words == _bare(before.text) and _phrase_runs(words) <= MAX_PHRASE_REPEATS:
        return again.text  # both decodes hear the repetition: the caller said it
    kept = _without_runs(again.text.split())
    return " ".join(kept) if len(kept) > len(words) / 2 else ""


def is_invention(hypothesis_text: str, no_speech_prob: float, first_pass_text: str) -> bool:
    """Return True for a text that Whisper often makes up (INVENTIONS), if the first pass heard none of its words.

    Args:
        hypothesis_text: Whisper's text.
        no_speech_prob: Whisper's probability that the audio contains no speech.
        first_pass_text: The first-pass recognizer's text.
    """
    typical = _is_typical(hypothesis_text) and no_speech_prob > INVENTION_NO_SPEECH_PROB
    return typical and not set(_bare(hypothesis_text)) & set(_bare(first_pass_text))


def _is_typical(text: str) -> bool:
    return " ".join(_bare(text)) in INVENTIONS


def agree(first_pass_text: str, hypothesis_text: str) -> bool:
    """Return True if two recognizers have heard the same words, so that there was speech, whatever one of them says.

    Whisper takes digits that a synthetic voice reads for noise. Two recognizers seldom make up the same words on noise,
    except those in INVENTIONS: on hiss one hears "Thank you." and the other "Thank you for watching!". Number words
    count as digits, because one recognizer writes "four" and the other "4".
    """
    if _is_typical(hypothesis_text):
        return False
    first, second = (_letters(text) for text in (first_pass_text, hypothesis_text))
    matches = SequenceMatcher(None, first, second, autojunk=False)
    return min(len(first), len(second)) >= MIN_AGREED_LETTERS and matches.ratio() >= AGREED_SHARE


def identical_words(first_pass_text: str, hypothesis_text: str) -> bool:
    """Return True if two transcripts have the same words, at least one."""
    first = _bare(first_pass_text)
    return bool(first) and first == _bare(hypothesis_text)


def _letters(text: str) -> str:
    return "".join(DIGITS.get(word, word) for word in _bare(text))


def is_plausible(hypothesis: Hypothesis) -> bool:
    """Return False for runaway repetition, and for more words than speech of this length can have.

    The log-probability does not count: it is low for a language that the model knows less well.
    """
    words = _bare(hypothesis.text)
    return (
        len(words) <= MAX_WORDS_PER_S * hypothesis.duration_s + WORDS_BASE
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


def _phrase_runs(words: list[str]) -> int:
    """Return the largest number of times that a phrase of at least PHRASE_WORDS words occurs in a row."""
    return max((_longest_run(words, size) for size in range(PHRASE_WORDS, len(words) // 2 + 1)), default=1)


def _without_runs(words: list[str]) -> list[str]:
    """Return the words with each phrase that occurs several times in a row once. Shorter phrases are searched first."""
    for size in range(1, len(words) // 2 + 1):
        least = 2 if size >= PHRASE_WORDS else MAX_WORD_REPEATS
        at = 0
        while at + size * least <= len(words):
            phrase = _bare(" ".join(words[at : at + size]))
            times = 1
            while phrase and _bare(" ".join(words[at + times * size : at + (times + 1) * size])) == phrase:
                times += 1
            if times >= least:
                del words[at + size : at + times * size]
            at += 1
    return words


def _bare(text: str) -> list[str]:
    """Return the words in small letters without punctuation."""
    kept = "".join(character for character in text.lower() if character.isalnum() or character.isspace())
    return kept.split()
