"""Classification of a transcript's ending: does the text read as if the turn is over?

Speech recognition punctuates as in written sentences. A finished ending is weak evidence by itself, but it comes for
free, and the silence after it adds to it. An open or unclear ending decides nothing: the turn detector is asked then.
The word list is English. In other languages only the punctuation counts.
"""

from __future__ import annotations

from enum import Enum


class TranscriptEnding(Enum):
    """Ending of a transcript: a complete sentence, a sentence that must continue, or neither for certain."""

    FINISHED = "finished"
    OPEN = "open"
    UNCLEAR = "unclear"


LEAST_WORDS = 3
"""Minimum words of a FINISHED ending. A shorter text may be only a beginning ("Yes." of "Yes. And then ...")."""

_QUESTION = "?"
_FULL_STOPS = (".", "!")
_TRAILING_OFF = ("...", "\u2026", ",", ";", ":", "-", "\u2013", "\u2014")
# Words that are rarely the last word of a sentence.
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
        language: Its language code. The list of open words is used for "en" only.
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
