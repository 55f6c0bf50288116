"""Stable words of an utterance in progress, found by the LocalAgreement-2 method.

Each interim transcript covers the whole utterance so far, and its last words may change in the next transcript. The
first words that two transcripts in a row have in common rarely change later (Macháček, Dabre and Bojar 2023). The last
common word is left out, because it may be cut. Stable words are never removed. Case and punctuation are ignored,
because they change with the words that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

_MARKS = ".,;:!?\u2026\u2013\u2014-\"'()"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The words of an utterance in progress, after its interim transcripts so far.

    Attributes:
        newest: The words of the newest transcript.
        stable: The words that are stable, as a transcript spelled them when they became stable.
    """

    newest: tuple[str, ...] = ()
    stable: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The stable words as a text."""
        return " ".join(self.stable)

    @property
    def likely(self) -> str:
        """The newest transcript without its last word, or the stable words if this transcript contradicts them.

        The last word is left out because it may be cut. This text may contain wrong words, so use it only where a wrong
        word costs nothing but computing time, such as prefill.
        """
        words = self.newest[:-1]
        return " ".join(words if _common(words, self.stable) == len(self.stable) else self.stable)


def agree(before: Agreement, transcript: str) -> Agreement:
    """Return the newest and the stable words after one more interim transcript of the utterance.

    A transcript that contradicts the stable words is an outlier: it becomes `newest`, and the stable words stay.

    Args:
        before: The newest and the stable words before this transcript.
        transcript: The transcript of the whole utterance so far.
    """
    words = tuple(transcript.split())
    stable_count = _common(before.newest, words) - 1  # The last common word is not counted, because it may be cut.
    if stable_count <= len(before.stable) or _common(before.stable, words) < len(before.stable):
        return Agreement(words, before.stable)
    return Agreement(words, before.stable + words[len(before.stable) : stable_count])


@dataclass(frozen=True, slots=True)
class StreamedText:
    """Words of one utterance that were sent to the client before its final transcript. They cannot be taken back.

    Only stable words are sent. If the final transcript begins with other words, no more is sent before it: the final
    transcript is right, and a client replaces what it has shown.

    Attributes:
        words: The words that were sent.
    """

    words: tuple[str, ...] = ()

    def grown(self, stable: tuple[str, ...]) -> tuple[StreamedText, str]:
        """Return the text after `stable`, all stable words so far, and the characters to send for it; "" for none."""
        if len(stable) <= len(self.words):
            return self, ""
        return StreamedText(stable), self._joined(stable[len(self.words) :])

    def rest(self, transcript: str) -> str:
        """Return the characters that the final transcript adds; "" if it adds none or contradicts the words sent."""
        words = tuple(transcript.split())
        if _common(self.words, words) < len(self.words):
            return ""
        return self._joined(words[len(self.words) :])

    def _joined(self, more: tuple[str, ...]) -> str:
        text = " ".join(more)
        return f" {text}" if self.words and text else text


NOTHING_STREAMED = StreamedText()


def same_words(one: str, other: str) -> bool:
    """Return True if two transcripts have the same words, and both or neither end with a question mark.

    Other differences of punctuation, and differences of case, are ignored, because they do not change the meaning.
    """
    mine, theirs = one.split(), other.split()
    same_mark = one.rstrip().endswith("?") is other.rstrip().endswith("?")
    return same_mark and len(mine) == len(theirs) == _common(tuple(mine), tuple(theirs))


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return the number of words at the beginning that are the same, without regard to case and punctuation."""
    for count, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if _bare(mine) != _bare(theirs):
            return count
    return min(len(one), len(other))


def _bare(word: str) -> str:
    return word.strip(_MARKS).lower() or word
