"""View of the text for a rule of spoken text: the words read so far, the words to come, and the language.

A rule may look ahead only at words that have arrived. If it needs a later word, `View.word` raises `MoreWordsNeeded`,
and the reader calls the rule again when the next word is complete. No decision therefore depends on how the text was
split into tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.units import WordBoundary

OPENERS = "\"'([{“‘«„‚¿¡"
CLOSERS = "\"')]}”’»“‘"
STOPS = ".,;:!?…"


class MoreWordsNeeded(Exception):  # not named *Error: a signal to wait, not a failure
    """The reading of a word depends on a word that has not arrived yet."""


@dataclass(frozen=True, slots=True)
class Token:
    """A written word, divided into its punctuation and its core.

    Attributes:
        opening: Quotation marks and brackets before the core.
        core: The word itself.
        closing: Punctuation, quotation marks and brackets after the core.
    """

    opening: str
    core: str
    closing: str

    @classmethod
    def of(cls, word: str) -> Token:
        """Divide a written word into opening punctuation, core and closing punctuation."""
        rest = word.lstrip(OPENERS)
        core = rest.rstrip(CLOSERS + STOPS)
        return cls(word[: len(word) - len(rest)], core, rest[len(core) :])

    @property
    def pauses(self) -> bool:
        """True if punctuation other than quotation marks follows the word, so it does not belong to the next word."""
        return bool(self.closing.strip("\"'”’»"))

    @property
    def pause(self) -> str:
        """The last punctuation mark after the word, for the voice; "," for an ellipsis, and "" without punctuation."""
        stops = self.closing.strip(CLOSERS)
        if ".." in stops or "…" in stops:
            return ","
        return stops[-1:]


NOTHING = Token("", "", "")


@dataclass(frozen=True, slots=True)
class Reading:
    """Spoken form of the next one or more written words.

    Attributes:
        spoken: For each written word that the reading covers, the spoken words. "" for a word that is not spoken.
        edge: Kind of boundary after the last word; None if its punctuation decides.
        stop: Whether a full stop after the last word ends the sentence. False if it belongs to an abbreviation.
    """

    spoken: tuple[str, ...]
    edge: WordBoundary | None = None
    stop: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """Words around the position in a line up to which the text has been read.

    Attributes:
        language: Tables of the spoken language.
        words: The unread words of the line that have arrived; there is at least one.
        final: True if no further word of the line follows.
        before: The last words of the line that have been read, at most eight, in the order of the text.
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
        """Return the word at an index, 0 for the one that is read next; NOTHING after the end of the line.

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
        """True if the next word is the first word of a line or of a sentence."""
        previous = self.previous()
        return previous is NOTHING or previous.pause in {".", "!", "?"}

    def say(self, sign: str) -> str:
        """Return the word for a sign ("%") or a joining word ("to"); "" if the language has none."""
        return self.language.words.get(sign, "")
