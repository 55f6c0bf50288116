"""Classification of a transcript's ending: does the text look complete?

The punctuation comes from the speech recognizer, which often ends a fragment with a full stop. The ending is therefore
only weak evidence, but it costs no computation. `end_of_turn` combines it with the turn detector's probability. The
list of words that rarely end a sentence is English. In other languages only the punctuation counts.
"""

from __future__ import annotations

from enum import Enum


class TranscriptEnding(Enum):
    """How a transcript ends.

    FINISHED: with a sentence that looks complete. OPEN: with a sentence that must continue ("I would like to").
    UNCLEAR: neither.
    """

    FINISHED = "finished"
    OPEN = "open"
    UNCLEAR = "unclear"


LEAST_WORDS = 3
"""Minimum number of words of a FINISHED text. A shorter text may be only a beginning ("Yes." of "Yes. And then ...").
"""

_END_MARKS = " \t\r\n\"').,;:!?\u2026\u2013\u2014-"
_QUESTION = "?"
_FULL_STOPS = (".", "!")
_TRAILING_OFF = ("...", "\u2026", ",", ";", ":", "-", "\u2013", "\u2014")
# English words that are rarely the last word of a sentence. A transcript that ends with one of them is OPEN.
_OPEN_WORDS = frozenset(
    {"a", "an", "the", "my", "your", "his", "her", "our", "their", "this", "these", "those", "some", "every"}
    | {"and", "or", "but", "nor", "so", "because", "since", "although", "if", "unless", "when", "while", "than", "that"}
    | {"of", "to", "from", "with", "without", "for", "by", "at", "in", "on", "into", "onto", "about", "between", "via"}
    | {"is", "are", "was", "were", "am", "be", "will", "would", "should", "could", "can", "must", "may", "might"}
    | {"i", "we", "they", "he", "she", "it's", "i'm", "i'd", "um", "uh", "er", "erm", "like", "well"}
)


def classify_ending(text: str, language: str = "en") -> TranscriptEnding:
    """Return how a transcript ends. A text without words is UNCLEAR.

    Args:
        text: The transcript so far.
        language: Its language code. The list of words that rarely end a sentence is used for "en" only.
    """
    stripped = text.strip()
    words = [word.strip(".,;:!?\u2026\u2013\u2014-\"'").lower() for word in stripped.split()]
    words = [word for word in words if word]
    if not words:
        return TranscriptEnding.UNCLEAR
    open_word = language == "en" and words[-1] in _OPEN_WORDS and not stripped.endswith(_QUESTION)
    if stripped.endswith(_TRAILING_OFF) or open_word:
        return TranscriptEnding.OPEN
    if len(words) >= LEAST_WORDS and stripped.endswith((_QUESTION, *_FULL_STOPS)):
        return TranscriptEnding.FINISHED
    return TranscriptEnding.UNCLEAR


def bare_words(text: str) -> str:
    """Return a transcript without the punctuation at its end.

    Use the result in prompts for prefill, and for a language model that predicts whether the message ends. The
    recognizer also puts a full stop after half a sentence, which would mislead the model.
    """
    return text.rstrip(_END_MARKS)
