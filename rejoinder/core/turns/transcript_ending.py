"""What a transcript's own ending says about the turn: a second, cheap opinion beside the turn model's.

Speech recognition punctuates as it was taught by written sentences. An ending that reads finished is weak evidence
alone, but the silence behind it adds to it, and it costs nothing; one that reads open, or leaves doubt, decides
nothing: then the turn model has the word. The words are English; of another language only the punctuation counts.
"""

from __future__ import annotations

from enum import Enum


class TranscriptEnding(Enum):
    """How the words end."""

    FINISHED = "finished"
    OPEN = "open"
    DOUBTFUL = "doubtful"


LEAST_WORDS = 3
"""A shorter remark may be the start of anything ("Yes." of "Yes. And then ...")."""

_QUESTION = "?"
_FULL_STOPS = (".", "!")
_TRAILING_OFF = ("...", "\u2026", ",", ";", ":", "-", "\u2013", "\u2014")
# Words that want another one behind them.
_OPEN_WORDS = frozenset(
    {"a", "an", "the", "my", "your", "his", "her", "our", "their", "this", "these", "those", "some", "every"}
    | {"and", "or", "but", "nor", "so", "because", "since", "although", "if", "unless", "when", "while", "than", "that"}
    | {"of", "to", "from", "with", "without", "for", "by", "at", "in", "on", "into", "onto", "about", "between", "via"}
    | {"is", "are", "was", "were", "am", "be", "will", "would", "should", "could", "can", "must", "may", "might"}
    | {"i", "we", "they", "he", "she", "it's", "i'm", "i'd", "um", "uh", "er", "erm", "like", "well"}
)


def ending(text: str, language: str = "en") -> TranscriptEnding:
    """How a transcript ends; a text without words is doubtful."""
    said = text.strip()
    words = [word.strip(".,;:!?\u2026\u2013\u2014-\"'").lower() for word in said.split()]
    words = [word for word in words if word]
    if not words:
        return TranscriptEnding.DOUBTFUL
    if said.endswith(_TRAILING_OFF) or (language == "en" and words[-1] in _OPEN_WORDS and not said.endswith(_QUESTION)):
        return TranscriptEnding.OPEN
    if len(words) >= LEAST_WORDS and said.endswith((_QUESTION, *_FULL_STOPS)):
        return TranscriptEnding.FINISHED
    return TranscriptEnding.DOUBTFUL
