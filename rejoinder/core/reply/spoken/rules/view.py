"""View of the words that are read next: the words so far, the words to come, and the language.

A rule may look ahead only at words that have arrived. If it needs a later word, `View.word` raises `MoreWordsNeeded`,
and the reader asks again when the next word is complete. So no decision depends on how the text was split into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.units import WordBoundary

OPENERS = "\"'([{“‘«„‚¿¡"
CLOSERS = "\"')]}”’»“‘"
STOPS = ".,;:!?…"


class MoreWordsNeeded(Exception):  # a signal to wait, not a failure
    """The reading of a word depends on a word that has not arrived yet."""


@dataclass(frozen=True, slots=True)
class Token:
    """A written word, divided into its punctuation and its core.

    Attributes:
        opening: Quotation marks and brackets before the core.
        core: The word itself.
        closing: Punctuation, quotation marks and brackets behind the core.
    """

    opening: str
    core: str
    closing: str

    @classmethod
    def of(cls, word: str) -> Token:
        """Divide a word."""
        rest = word.lstrip(OPENERS)
        core = rest.rstrip(CLOSERS + STOPS)
        return cls(word[: len(word) - len(rest)], core, rest[len(core) :])

    @property
    def pauses(self) -> bool:
        """True if punctuation behind the word separates it from the next word."""
        return bool(self.closing.strip("\"'”’»"))

    @property
    def pause(self) -> str:
        """The last punctuation mark behind the word, for the voice; an ellipsis is a comma."""
        stops = self.closing.strip(CLOSERS)
        if ".." in stops or "…" in stops:
            return ","
        return stops[-1:]


NOTHING = Token("", "", "")


@dataclass(frozen=True, slots=True)
class Reading:
    """How one or more words are spoken.

    Attributes:
        spoken: The spoken words of each written word's core.
        edge: Kind of boundary after the last word; None if its punctuation decides.
        stop: Whether the full stop behind the last word is punctuation. False for an abbreviation.
    """

    spoken: tuple[str, ...]
    edge: WordBoundary | None = None
    stop: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """The words around the one that is read next.

    Attributes:
        language: Tables of the spoken language.
        words: The unread words of the line that have arrived; there is at least one.
        final: True if no further word of the line follows.
        before: The words of the line that have been read, the last one at the end. At most eight.
    """

    language: Language
    words: Sequence[Token]
    final: bool
    before: Sequence[Token]

    @property
    def token(self) -> Token:
        """The word that is read next."""
        return self.words[0]

    def word(self, index: int) -> Token:
        """Return the word at an index, 0 for the one that is read next; NOTHING behind the end of the line.

        Raises:
            MoreWordsNeeded: The word has not arrived yet.
        """
        if index < len(self.words):
            return self.words[index]
        if self.final:
            return NOTHING
        raise MoreWordsNeeded

    def following(self, index: int = 1) -> Token:
        """Return the word at an index if no punctuation separates it from the word before it, else NOTHING.

        Raises:
            MoreWordsNeeded: The word has not arrived yet.
        """
        return NOTHING if self.word(index - 1).pauses else self.word(index)

    def previous(self, back: int = 1) -> Token:
        """Return the word `back` words earlier in the line, or NOTHING."""
        return self.before[-back] if back <= len(self.before) else NOTHING

    @property
    def starts_sentence(self) -> bool:
        """True for the first word of a line or behind the end of a sentence."""
        previous = self.previous()
        return previous is NOTHING or previous.pause in {".", "!", "?"}

    def say(self, sign: str) -> str:
        """Return the word for a sign ("%") or a joining word ("to"); "" if the language has none."""
        return self.language.words.get(sign, "")
