"""Continuation of an answer that broke off: which part of a second answer follows what the caller already has.

A server that cannot continue a message answers the question again. The second answer may repeat the first one and go
on, or it may use other words. Text of it is used only from a place where both agree: the end of the first answer, or
the end of its last sentence that the second answer has too. Half a sentence is never joined to another one.
"""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.english import ABBREVIATIONS
from rejoinder.core.reply.spoken.reader import edge_of
from rejoinder.core.reply.spoken.rules.prose import INITIALS
from rejoinder.core.reply.spoken.units import WordBoundary

_WORD = re.compile(r"(\S+)(\s+)")
# A second answer that begins like the first one is compared with it, even if the server was asked to continue.
SAME_BEGINNING = 12
# Abbreviations whose meaning depends on the words around them. The table of abbreviations lacks them.
_TITLES = dict.fromkeys(("dr", "st", "no"), "")


def ends_sentence(text: str) -> bool:
    """Return True if the text ends where a sentence may end, white space ignored. An empty text does not."""
    return bool(re.search(r"[.!?…。！？][\"'”’)\]]*$", text.rstrip()))


def _ends_sentence(word: str) -> bool:
    """Return True if a word with its punctuation ends a sentence. English abbreviations and initials do not."""
    stem = word.strip("\"'“”‘’([")
    abbreviated = INITIALS.fullmatch(stem) or stem[:-1].lower() in ABBREVIATIONS | _TITLES
    return edge_of(word, line_start=False) is WordBoundary.SENTENCE and not (stem.endswith(".") and abbreviated)


def _last_sentence_start(text: str) -> int:
    """Return the position at which the last sentence of the text starts, which may be the text's end."""
    starts = (word.end() for word in _WORD.finditer(text) if "\n" in word[2] or _ends_sentence(word[1]))
    return max(starts, default=0)


class Continuation:
    """Filter of the text of a second answer. `push` returns what to add to the first `kept` characters of the first.

    Attributes:
        kept: Number of characters of the first answer that stay. It is final once text was returned. The first answer
            was continued if it is the answer's length; otherwise the second one goes on with a new sentence.
    """

    def __init__(self, prefix: str, *, asked: bool) -> None:
        """Create a filter.

        Args:
            prefix: The first answer, as far as it was received.
            asked: True if the server was asked to send only what follows, False if it sends the answer again.
        """
        self._prefix = prefix
        self._asked = asked
        self._text = ""
        self._decided = not prefix
        self.kept = len(prefix)

    @property
    def restarted(self) -> bool:
        """True if the second answer does not continue the first one."""
        return self._decided and self.kept < len(self._prefix)

    @property
    def ends_alike(self) -> bool:
        """True if the second answer, which has ended, ended where the first one did."""
        text = self._text.strip()
        return not self._decided and (text == self._prefix.strip() or (self._asked and not text))

    def push(self, text: str) -> str:
        """Add text of the second answer, and return the part of it that is new; "" while that is undecided."""
        if self._decided:
            return text
        self._text += text
        return self._decide(ended=False)

    def end(self) -> str:
        """End the second answer, and return the rest of its text that is new."""
        return "" if self._decided else self._decide(ended=True)

    def _decide(self, *, ended: bool) -> str:
        text, prefix = self._text, self._prefix
        if self._asked and not self._repeats(ended=ended):
            return self._decide_next() if text.strip() or (ended and text) else ""
        if text.startswith(prefix):
            return self._use(len(prefix), len(prefix)) if len(text) > len(prefix) else ""
        if prefix.startswith(text) and not ended:
            return ""
        same = next((at for at, (new, old) in enumerate(zip(text, prefix, strict=False)) if new != old), len(text))
        if same == len(text):
            return ""  # the second answer ended within the first one: it has nothing new
        at = _last_sentence_start(prefix[:same])
        return self._use(at, at)

    def _repeats(self, *, ended: bool) -> bool:
        """Return True if a server that was asked to continue seems to repeat the first answer, or may still do so."""
        beginning = self._prefix.lstrip()[:SAME_BEGINNING]
        text = self._text.lstrip()
        if len(text) < len(beginning) and not ended:
            return bool(text) and beginning.startswith(text)
        return bool(beginning) and text.startswith(beginning)

    def _decide_next(self) -> str:
        """Return the text of a server that was asked to continue, from the place that it really goes on from.

        After a whole sentence anything may follow. Inside a sentence, the next token begins with white space or goes on
        with the word. A capital letter at the beginning shows that the server began a new message.
        """
        first = self._text[0]
        anew = first.isupper() and not ends_sentence(self._prefix)
        if not anew:
            return self._use(len(self._prefix), 0)
        at = _last_sentence_start(self._prefix)
        return self._use(at, 0)

    def _use(self, kept: int, start: int) -> str:
        """Keep `kept` characters of the first answer, and use the second one from character `start`."""
        self._decided = True
        self.kept = kept
        return self._text[start:]
