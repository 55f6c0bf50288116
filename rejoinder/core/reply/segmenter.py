"""Segmenter: splits the token stream of a reply into segments for speech synthesis.

The first segment decides when the caller hears something, so it is short. Later segments are synthesized while earlier
audio plays, so they are whole sentences, which sound better. Text arrives in pieces of any size. A word is complete
when whitespace or the end of the text follows it, and decisions use complete words only. The segments therefore do not
depend on how the text was split into tokens, and a number ("3.5", "1,000") is never split. The reader
(`spoken/reader.py`) returns the spoken words of each word. It keeps a word back only while its spoken form depends on
the next word. A segment is complete as soon as the spoken form of its last word is known.

Each complete word has a boundary after it:

    SENTENCE   . ! ? at its end         a segment ends here
    CLAUSE     , ; : dashes, ellipsis   the first segment ends here; a later one only if it has its maximum of words
    BOUND      Dr.  e.g.  J.  U.S.      the word belongs to the next word: a segment does not end here
    PLAIN      anything else            a segment ends here if it has its maximum of words and contains no CLAUSE

The first segment also ends before a number if it has BEFORE_NUMBER_WORDS words.
A newline always ends a sentence (list items, headings). Words of which nothing is spoken, such as an emoji or a stray
quotation mark, are joined to a neighbour and are never a separate segment. Text in scripts without spaces between words
is divided at its own punctuation.
"""

from __future__ import annotations

from rejoinder.core.reply.spoken.languages.choice import language_of
from rejoinder.core.reply.spoken.reader import WordReader
from rejoinder.core.reply.spoken.units import SpeechSegment, SpokenUnit, WordBoundary

MIN_CLAUSE_WORDS = 2
"""Minimum words of a clause that becomes a segment. "Sure," plays for 0.3 s, too short to prepare the next segment."""

BEFORE_NUMBER_WORDS = 4
"""Words of the first segment after which it ends before a number. A number is complete only after many tokens, and the
caller need not wait for it: "Your phone number is" plays meanwhile.
"""

MAX_SPOKEN_CHARACTERS = 400
"""Spoken characters after which a segment ends like one with its maximum of words: about 27 s of speech."""

MAX_WORD_CHARACTERS = 256
"""Characters after which a word without whitespace is divided."""

MAX_FOREIGN_CHARACTERS = 48
"""The same for words with characters outside ASCII, because some scripts have no spaces."""

WIDE_STOPS = frozenset("。！？，、；：")
"""Punctuation that ends a word without whitespace behind it."""


class Segmenter:
    """Splitter of the text of one reply into segments for speech synthesis. Not thread-safe.

    A segment exceeds its maximum number of words only if its words must not be separated (BOUND). The written words of
    the segments, joined by spaces, are the text with single spaces and without Markdown emphasis, code marks, headings
    and bullets. Words that are not spoken may be missing at the end.
    """

    def __init__(self, first_words: int, words: int, *, clauses: bool = False, language: str = "en") -> None:
        """Create a segmenter.

        Args:
            first_words: Maximum words of the first segment.
            words: Maximum words of later segments.
            clauses: Whether later segments also end at their first clause.
            language: ISO 639-1 code of the voice's language.
        """
        self._first_words = first_words
        self._words = words
        self._clauses = clauses
        self._emitted = 0
        self._partial = ""
        self._limit = MAX_WORD_CHARACTERS
        self._glued = False
        self._reader = WordReader(language_of(language))
        self._open: list[SpokenUnit] = []

    def push(self, text: str) -> list[SpeechSegment]:
        """Add the next piece of text, and return the segments that this piece completes."""
        segments: list[SpeechSegment] = []
        for char in text:
            if char.isspace():
                segments += self._end_word(glued=False)
                if char == "\n":
                    segments += self._end_line()
                continue
            if not self._partial and char.isdigit() and self._ends_before_number():
                segments.append(self._cut(len(self._open)))
            self._partial += char
            if not char.isascii():
                self._limit = MAX_FOREIGN_CHARACTERS
            if char in WIDE_STOPS or len(self._partial) >= self._limit:
                segments += self._end_word(glued=True)
        return segments

    def take(self, least_words: int) -> list[SpeechSegment]:
        """Return the complete words so far as one segment, before its normal end.

        Use this if the text arrives so slowly that the listener would otherwise hear a gap. The result is [] if fewer
        than `least_words` spoken words are complete.
        """
        size = next((n for n in range(len(self._open), 0, -1) if self._open[n - 1].edge is not WordBoundary.BOUND), 0)
        return [self._cut(size)] if self._audible(size) >= least_words else []

    def discard(self) -> None:
        """Drop the text that is not in a segment yet. The next `push` starts a new line."""
        self._partial = ""
        self._glued = False
        self._reader.discard()
        self._open.clear()

    def flush(self) -> list[SpeechSegment]:
        """Return all remaining text as segments, at the end of a text.

        If the same reply has another text, `push` may be called again. The new text starts a new line.
        """
        segments = self._end_word(glued=False) + self._end_line()
        self._open.clear()
        return segments

    def _end_word(self, *, glued: bool) -> list[SpeechSegment]:
        """End the current word, and return the segments that it completes. `glued`: no whitespace follows the word."""
        word, self._partial, self._limit = self._partial, "", MAX_WORD_CHARACTERS
        continues, self._glued = self._glued, glued
        return self._collect(self._reader.push(word, glued=continues)) if word else []

    def _end_line(self) -> list[SpeechSegment]:
        segments = self._collect(self._reader.end_line())
        return [*segments, self._cut(len(self._open))] if self._audible(len(self._open)) else segments

    def _collect(self, units: list[SpokenUnit]) -> list[SpeechSegment]:
        segments: list[SpeechSegment] = []
        for unit in units:
            self._open.append(unit)
            while size := self._size():
                segments.append(self._cut(size))
        return segments

    def _size(self) -> int:
        """Return how many of the words collected so far form a segment, or 0 if more words are needed."""
        whole = len(self._open)
        audible = self._audible(whole)
        if not audible:
            return 0
        edge = self._open[-1].edge
        if edge is WordBoundary.SENTENCE:
            return whole
        if (self._clauses or not self._emitted) and edge is WordBoundary.CLAUSE and audible >= MIN_CLAUSE_WORDS:
            return whole
        long = sum(len(unit.spoken) + 1 for unit in self._open) > MAX_SPOKEN_CHARACTERS
        limit = self._words if self._emitted else self._first_words
        return self._forced_size() if long or audible >= limit else 0

    def _ends_before_number(self) -> bool:
        """Return True if the next word begins a number and the first segment is to end before it.

        It is if it has at least BEFORE_NUMBER_WORDS words: the number is spoken only once all its words have come, and
        the words before it need not wait.
        """
        settled = bool(self._open) and not self._emitted and not self._reader.waiting
        return (
            settled
            and self._open[-1].edge is WordBoundary.PLAIN
            and self._audible(len(self._open)) >= BEFORE_NUMBER_WORDS
        )

    def _forced_size(self) -> int:
        """Return the number of words of a segment that has reached its maximum number of words.

        The segment ends at its last clause, or without a clause at its last word that is not BOUND. Return 0 if all
        words are BOUND.
        """
        sizes = range(len(self._open), 0, -1)
        clauses = (
            n for n in sizes if self._open[n - 1].edge is WordBoundary.CLAUSE and self._audible(n) >= MIN_CLAUSE_WORDS
        )
        words = (n for n in sizes if self._open[n - 1].edge is not WordBoundary.BOUND and self._audible(n))
        return next(clauses, 0) or next(words, 0)

    def _audible(self, size: int) -> int:
        return sum(unit.audible for unit in self._open[:size])

    def _cut(self, size: int) -> SpeechSegment:
        segment = SpeechSegment(tuple(self._open[:size]))
        del self._open[:size]
        self._emitted += 1
        return segment


def segment_of(text: str, language: str) -> SpeechSegment:
    """Return a text that is known as a whole, such as a greeting, as one segment with its spoken words."""
    segmenter = Segmenter(len(text) + 1, len(text) + 1, language=language)
    parts = [*segmenter.push(text), *segmenter.flush()]
    return SpeechSegment(tuple(unit for part in parts for unit in part.units))
