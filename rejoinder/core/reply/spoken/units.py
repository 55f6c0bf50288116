"""Units of spoken text: each written word of a reply with the words that are spoken for it.

The transcript and the conversation keep the written words. The voice gets the spoken words. Each written word has its
own spoken words, so the position in the audio tells which written words were heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class WordBoundary(Enum):
    """Kind of boundary after a word: where a segment may end.

    SENTENCE: a segment ends here. CLAUSE: the first segment ends here; a later segment does so only if it has its
    maximum number of words. BOUND: the word must not be separated from the next word. PLAIN: a segment ends here only
    if it has its maximum number of words.
    """

    PLAIN = "plain"
    BOUND = "bound"
    CLAUSE = "clause"
    SENTENCE = "sentence"


@dataclass(frozen=True, slots=True)
class SpokenUnit:
    """One written word and what is spoken for it.

    Attributes:
        written: The word in the transcript, without Markdown emphasis. May be empty, for words that are only spoken.
        spoken: The words for the voice. Empty if the word is not spoken (an emoji). If a number and its unit are read
            together, each written word has its share of the spoken words.
        edge: Kind of boundary after the word.
        glued: True if no space separates the written word from the one before: the parts of a very long word.
    """

    written: str
    spoken: str
    edge: WordBoundary = WordBoundary.PLAIN
    glued: bool = False

    @property
    def audible(self) -> bool:
        """True if something is spoken: a letter or a digit, not only punctuation."""
        return any(char.isalnum() for char in self.spoken)


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """Consecutive words of a reply that are synthesized together."""

    units: tuple[SpokenUnit, ...]

    @classmethod
    def verbatim(cls, text: str) -> SpeechSegment:
        """Return a segment whose words are spoken as they are written."""
        return cls(tuple(SpokenUnit(word, word) for word in text.split()))

    @property
    def written(self) -> str:
        """The words for the transcript."""
        return join_written(self.units)

    @property
    def spoken(self) -> str:
        """The words for the voice."""
        return join_spoken(unit.spoken for unit in self.units)

    @property
    def glued(self) -> bool:
        """True if no space separates the segment from the one before."""
        return bool(self.units) and self.units[0].glued


def spoken_characters(unit: SpokenUnit) -> int:
    """Return the number of spoken characters of a word, plus one for a space; 0 if nothing is spoken."""
    return len(unit.spoken) + 1 if unit.spoken else 0


def join_written(units: Iterable[SpokenUnit]) -> str:
    """Return the written words of `units`, joined by single spaces where they are separate words."""
    text = ""
    for unit in units:
        text += unit.written if unit.glued or not text or not unit.written else f" {unit.written}"
    return text


def join_spoken(parts: Iterable[str]) -> str:
    """Return spoken parts, joined by spaces, as one text. Punctuation follows the part before it without a space.

    Punctuation at the beginning is left out. Of two punctuation marks in a row, only the second one stays.
    """
    text = ""
    for part in parts:
        if part[:1] in PAUSES and part:
            text = text.rstrip("".join(PAUSES)) + part if text else part.lstrip("".join(PAUSES) + " ")
        elif part:
            text += f" {part}" if text else part
    return text


PAUSES = frozenset(",.;:?!")
"""Punctuation that the voice gets, because it changes the pause or the melody."""
