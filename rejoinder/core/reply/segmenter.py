"""Segmenter: splits the token stream of a reply into segments for speech synthesis.

The first segment decides when the caller hears something, so it is short. Later segments are synthesized while earlier
audio plays, so they are whole sentences, which sound better. Text arrives in pieces of any size. A word is complete
when whitespace or the end of the text follows it, and decisions use complete words only. So the segments do not depend
on how the text was split into tokens, and a number ("3.5", "1,000") is never split. A segment is complete as soon as
the whitespace after its last word arrives.

Each complete word has a boundary after it:

    SENTENCE   . ! ? at its end         a segment ends here
    CLAUSE     , ; : dashes, ellipsis   the first segment ends here; a later one only if it has its maximum of words
    BOUND      Dr.  e.g.  J.  U.S.      the word belongs to the next word: a segment does not end here
    PLAIN      anything else            a segment ends here if it has its maximum of words and contains no CLAUSE

A newline always ends a sentence (list items, headings). Words without anything to speak, such as a dash or a stray
quotation mark, are joined to a neighbour and are never a separate segment. Markdown is removed: emphasis, code marks,
headings and bullets. Text in scripts without spaces between words becomes one segment at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

MIN_CLAUSE_WORDS = 2
"""Minimum words of a clause that becomes a segment. "Sure," plays for 0.3 s, too short to prepare the next segment."""

ABBREVIATIONS = """
    mr mrs ms mx dr prof rev gen col capt lt sgt hon gov sen rep pres st sr jr vs cf approx
    fig vol dept inc ltd corp ave blvd mt ft jan feb apr aug sept oct nov dec
"""
"""Words whose full stop does not end a sentence. "no." is not among them, because it usually ends one."""

_ABBREVIATIONS = frozenset(ABBREVIATIONS.split())
_OPENERS = "\"'([{“‘«"
_CLOSERS = "\"')]}”’»"
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")
_LIST_NUMBER = re.compile(r"\d{1,3}[.)]")
_LINE_MARK = re.compile(r"[-+•–]|#+")
_SPOKEN_SIGNS = frozenset("%&@+=$€£¥°")
# An asterisk between two digits is a multiplication; any other is emphasis or a bullet.
_EMPHASIS = re.compile(r"(?<!\d)\*+|\*+(?!\d)|`+|(?<!\w)_+|_+(?!\w)")


class WordBoundary(Enum):
    """Kind of boundary after a word: where a segment may end.

    SENTENCE: a segment ends. CLAUSE: the first segment ends; a later one only at its maximum of words. BOUND: the word
    must not be separated from the next word. PLAIN: a segment ends only at its maximum of words.
    """

    PLAIN = "plain"
    BOUND = "bound"
    CLAUSE = "clause"
    SENTENCE = "sentence"


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    edge: WordBoundary

    @property
    def spoken(self) -> bool:
        """True if the word contains a letter, a digit or a sign that is spoken, such as "%"."""
        return any(char.isalnum() or char in _SPOKEN_SIGNS for char in self.text)


class Segmenter:
    """Splitter of the text of one reply into segments for speech synthesis. Not thread-safe.

    A segment exceeds its maximum number of words only if its words must not be separated (BOUND). The segments joined
    by spaces are the text with single spaces and without markdown. Signs that are not spoken may be missing at the end.
    """

    def __init__(self, first_words: int, words: int, *, clauses: bool = False) -> None:
        """Create a segmenter.

        Args:
            first_words: Maximum words of the first segment.
            words: Maximum words of later segments.
            clauses: Whether later segments also end at their first clause.
        """
        self._first_words = first_words
        self._words = words
        self._clauses = clauses
        self._emitted = 0
        self._partial = ""
        self._line_start = True
        self._open: list[_Word] = []

    def push(self, text: str) -> list[str]:
        """Add the next piece of text, and return the segments that this piece completes."""
        segments: list[str] = []
        for char in text:
            if not char.isspace():
                self._partial += char
                continue
            segments += self._end_word()
            if char == "\n":
                segments += self._end_line()
        return segments

    def take(self, least_words: int) -> list[str]:
        """Return the complete words so far as a segment, although it could be longer; [] if they are too few.

        Use this if the listener has nothing to hear, because the text arrives more slowly than it is spoken.
        """
        size = next((n for n in range(len(self._open), 0, -1) if self._open[n - 1].edge is not WordBoundary.BOUND), 0)
        return [self._cut(size)] if self._spoken(size) >= least_words else []

    def discard(self) -> None:
        """Drop the text that is not in a segment yet. More text may follow, as if at the beginning of a line."""
        self._partial = ""
        self._line_start = True
        self._open.clear()

    def flush(self) -> list[str]:
        """End the text, and return the remaining segments. More text of the same reply may follow."""
        segments = self._end_word() + self._end_line()
        self._open.clear()
        return segments

    def _end_word(self) -> list[str]:
        word = _EMPHASIS.sub("", self._partial)
        self._partial = ""
        if not word or (self._line_start and _LINE_MARK.fullmatch(word)):
            return []
        self._open.append(_Word(word, edge_of(word, line_start=self._line_start)))
        self._line_start = False
        segments: list[str] = []
        while size := self._size():
            segments.append(self._cut(size))
        return segments

    def _end_line(self) -> list[str]:
        self._line_start = True
        return [self._cut(len(self._open))] if self._spoken(len(self._open)) else []

    def _size(self) -> int:
        """Return how many of the words collected so far form a segment, or 0 if more words are needed."""
        whole = len(self._open)
        spoken = self._spoken(whole)
        if not spoken:
            return 0
        edge = self._open[-1].edge
        if edge is WordBoundary.SENTENCE:
            return whole
        if (self._clauses or not self._emitted) and edge is WordBoundary.CLAUSE and spoken >= MIN_CLAUSE_WORDS:
            return whole
        return self._forced_size() if spoken >= (self._words if self._emitted else self._first_words) else 0

    def _forced_size(self) -> int:
        """Return the number of words of a segment that has reached its maximum number of words.

        The segment ends at its last clause, or without a clause at its last word that is not BOUND. Return 0 if all
        words are BOUND.
        """
        sizes = range(len(self._open), 0, -1)
        clauses = (
            n for n in sizes if self._open[n - 1].edge is WordBoundary.CLAUSE and self._spoken(n) >= MIN_CLAUSE_WORDS
        )
        words = (n for n in sizes if self._open[n - 1].edge is not WordBoundary.BOUND and self._spoken(n))
        return next(clauses, 0) or next(words, 0)

    def _spoken(self, size: int) -> int:
        return sum(word.spoken for word in self._open[:size])

    def _cut(self, size: int) -> str:
        segment = " ".join(word.text for word in self._open[:size])
        del self._open[:size]
        self._emitted += 1
        return segment


def edge_of(word: str, *, line_start: bool) -> WordBoundary:
    """Return the kind of boundary after a complete word.

    Args:
        word: The word, with its punctuation.
        line_start: Whether it is the first word of a line. If so, a number such as "1." or "1)" is a list number and
            belongs to the next word.
    """
    core = word.strip(_OPENERS).rstrip(_CLOSERS)
    if line_start and _LIST_NUMBER.fullmatch(word):
        return WordBoundary.BOUND
    stem = core.rstrip(",;:")
    if _INITIALS.fullmatch(stem) or (stem.endswith(".") and stem[:-1].lower() in _ABBREVIATIONS):
        return WordBoundary.BOUND
    if core.endswith(("..", "…", ",", ";", ":", "—", "–", "--")) or core == "-":
        return WordBoundary.CLAUSE
    return WordBoundary.SENTENCE if core.endswith((".", "!", "?")) else WordBoundary.PLAIN
