"""Join the transcripts of overlapping windows of long speech (`rejoinder.core.audio.windows`)."""

from __future__ import annotations

OVERLAP_WORDS = 9
"""Most words that two windows may share: OVERLAP_S (1.5 s) at six words a second, which is fast speech."""

LONE_WORD_LETTERS = 4
"""A single common word joins two transcripts only if it has at least this many letters. "The" is common by chance."""

_MARKS = ".,;:!?\u2026\u2013\u2014-\"'()"


def merge(left: str, right: str, *, overlaps: bool) -> str:
    """Return the transcript of two windows in a row, with the words around the cut once.

    The end of the first transcript and the beginning of the second have the words of the overlap in common. A window
    may begin or end within a word, so words between the common words and the cut may be wrong and are dropped. Without
    common words, the result is both transcripts in full, one after the other.

    Args:
        left: Transcript of the first window.
        right: Transcript of the second window.
        overlaps: False if the windows were cut in a pause and share no audio.
    """
    if not left or not right:
        return left or right
    before, after = left.split(), right.split()
    common = _common_run(before[-OVERLAP_WORDS:], after[:OVERLAP_WORDS]) if overlaps else None
    if common is None:
        if after[0][0].islower():  # a sentence goes on in the second window, so the full stop before it is wrong
            before[-1] = before[-1].rstrip(".") or before[-1]
        return " ".join(before + after)
    at, to, size = common
    kept = len(before) - min(OVERLAP_WORDS, len(before)) + at + size
    # The last common word comes from the second transcript, because its punctuation depends on the words that follow.
    return " ".join(before[: kept - 1] + after[to + size - 1 :])


def _common_run(tail: list[str], head: list[str]) -> tuple[int, int, int] | None:
    """Return the longest run of words that occurs in both lists, or None.

    Of several runs of the same length, the one nearest to the cut counts: near the end of `tail` and the start of
    `head`. Case and punctuation are ignored. A single word counts only if it has LONE_WORD_LETTERS letters.

    Args:
        tail: The last words before the cut.
        head: The first words after the cut.

    Returns:
        The index of the run's first word in `tail`, its index in `head`, and the number of words.
    """
    mine, theirs = [_bare(word) for word in tail], [_bare(word) for word in head]
    runs = [
        (size, -(len(mine) - at - size + to), at, to)
        for at in range(len(mine))
        for to in range(len(theirs))
        if (size := _run(mine[at:], theirs[to:]))
    ]
    if not runs:
        return None
    size, _, at, to = max(runs)
    if size == 1 and len(mine[at]) < LONE_WORD_LETTERS:
        return None
    return at, to, size


def _run(one: list[str], other: list[str]) -> int:
    """Return the number of equal words at the beginning of two lists."""
    for count, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return count
    return min(len(one), len(other))


def _bare(word: str) -> str:
    return word.strip(_MARKS).casefold() or word
