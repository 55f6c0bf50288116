"""What is sure of an utterance before it has ended: agreement of two hypotheses.

Each partial transcript is a new guess at all that was said so far; its end changes with every guess. Words on which two
guesses in a row agree, without the newest of them, hardly ever change any more (LocalAgreement-2, Macháček, Dabre and
Bojar 2023). They are only ever added to. Case and punctuation are compared away: they change with what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

_MARKS = ".,;:!?\u2026\u2013\u2014-\"'()"


@dataclass(frozen=True, slots=True)
class Agreement:
    """`stable`: the words that are sure, as the newest guess writes them; `newest`: that guess."""

    newest: tuple[str, ...] = ()
    stable: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sure words."""
        return " ".join(self.stable)

    @property
    def likely(self) -> str:
        """The newest guess without its last word, which may be half of another; the sure words if it contradicts them.

        Good enough for whoever loses nothing by a wrong word but its own time.
        """
        words = self.newest[:-1]
        return " ".join(words if _common(words, self.stable) == len(self.stable) else self.stable)


def agree(known: Agreement, guess: str) -> Agreement:
    """Take a further guess at the whole utterance so far.

    A guess that contradicts what was sure already is an outlier: it is remembered, and changes nothing that was sure.
    """
    words = tuple(guess.split())
    common = _common(known.newest, words)
    sure = common - 1  # the newest word may be half of another
    if sure <= len(known.stable) or _common(known.stable, words) < len(known.stable):
        return Agreement(words, known.stable)
    return Agreement(words, known.stable + words[len(known.stable) : sure])


def same_words(one: str, other: str) -> bool:
    """Whether two transcripts have the same words and both ask, or neither: the rest is spelling, and no other turn."""
    mine, theirs = one.split(), other.split()
    asks = one.rstrip().endswith("?") is other.rstrip().endswith("?")
    return asks and len(mine) == len(theirs) == _common(tuple(mine), tuple(theirs))


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many words both begin with."""
    for count, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if _bare(mine) != _bare(theirs):
            return count
    return min(len(one), len(other))


def _bare(word: str) -> str:
    return word.strip(_MARKS).lower() or word
