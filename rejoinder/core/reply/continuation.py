"""Continuation of an answer that broke off: which part of a second answer is added to the first one.

The caller already has the beginning of the first answer. A server that cannot continue a message answers the question
again. The second answer may repeat the first one and go on, or it may use other words. The second answer is used only
from a place up to which both answers are equal: the end of the first answer, or the end of the last sentence that both
have in common. Half a sentence of one answer is never joined to half a sentence of the other.
"""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.english import ABBREVIATIONS
from rejoinder.core.reply.spoken.reader import edge_of
from rejoinder.core.reply.spoken.rules.prose import INITIALS
from rejoinder.core.reply.spoken.units import WordBoundary

_WORD = re.compile(r"(\S+)(\s+)")
# Number of characters. A server that was asked to continue an answer may repeat it from its start instead. It is
# assumed to do so if its text begins with the same SAME_BEGINNING characters as the answer.
SAME_BEGINNING = 12
# Abbreviations whose full stop does not end a sentence. "dr", "st" and "no" are added, because ABBREVIATIONS leaves out
# those whose meaning depends on the words around them.
_ABBREVIATED = frozenset({*ABBREVIATIONS, "dr", "st", "no"})


def ends_sentence(text: str) -> bool:
    """Return True if the text ends with a sentence mark, quotation marks and brackets after it included.

    White space at the end is ignored. An empty text returns False.
    """
    return bool(re.search(r"[.!?…。！？][\"'”’)\]]*$", text.rstrip()))


def _ends_sentence(word: str) -> bool:
    """Return True if a word with its punctuation ends a sentence. The full stop of an abbreviation does not."""
    stem = word.strip("\"'“”‘’([")
    abbreviated = INITIALS.fullmatch(stem) or stem[:-1].lower() in _ABBREVIATED
    return edge_of(word, line_start=False) is WordBoundary.SENTENCE and not (stem.endswith(".") and abbreviated)


def _last_sentence_start(text: str) -> int:
    """Return the index at which the last sentence of `text` starts; len(text) after a sentence and white space."""
    starts = (word.end() for word in _WORD.finditer(text) if "\n" in word[2] or _ends_sentence(word[1]))
    return max(starts, default=0)


class Continuation:
    """Filter of the answer that a server streams after an earlier answer to the same question broke off.

    The earlier answer is the first one, the streamed answer is the second one. The text that the filter returns follows
    the first `kept` characters of the first answer.

    Attributes:
        kept: Number of characters of the first answer that stay. It is final once `push` or `end` has returned text. If
            it is smaller than the length of the first answer, the first answer's last sentence is replaced.
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
        """True if the end of the first answer is replaced, because the second answer does not continue it."""
        return self._decided and self.kept < len(self._prefix)

    @property
    def ends_alike(self) -> bool:
        """True if the second answer has the same text as the first, or nothing to add. Valid after `end`."""
        text = self._text.strip()
        return not self._decided and (text == self._prefix.strip() or (self._asked and not text))

    def push(self, text: str) -> str:
        """Add a piece of the second answer, and return the text to append; "" while that is undecided."""
        if self._decided:
            return text
        self._text += text
        return self._decide(ended=False)

    def end(self) -> str:
        """End the second answer, and return the rest of the text to append."""
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
            return ""  # the second answer is a beginning of the first one, so it adds nothing
        at = _last_sentence_start(prefix[:same])
        return self._use(at, at)

    def _repeats(self, *, ended: bool) -> bool:
        """Return True if the second answer begins like the first one (SAME_BEGINNING), or is too short to tell.

        `ended`: True if the second answer is complete.
        """
        beginning = self._prefix.lstrip()[:SAME_BEGINNING]
        text = self._text.lstrip()
        if len(text) < len(beginning) and not ended:
            return bool(text) and beginning.startswith(text)
        return bool(beginning) and text.startswith(beginning)

    def _decide_next(self) -> str:
        """Decide how the second answer of a server that was asked to continue joins the first, and return its text.

        If the first answer broke off within a sentence and the second one begins with a capital letter, the server has
        begun a new message. The unfinished sentence is then dropped. Otherwise the second answer follows directly.
        """
        first = self._text[0]
        anew = first.isupper() and not ends_sentence(self._prefix)
        if not anew:
            return self._use(len(self._prefix), 0)
        at = _last_sentence_start(self._prefix)
        return self._use(at, 0)

    def _use(self, kept: int, start: int) -> str:
        """Set `kept`, and return the second answer from its character `start`."""
        self._decided = True
        self.kept = kept
        return self._text[start:]
