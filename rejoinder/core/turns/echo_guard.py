"""Echo guard: detects that an utterance is the agent's own voice, by comparing its words with the reply.

Without echo cancellation, the caller's microphone picks up the reply from the loudspeaker. The level of an echo does
not distinguish it from the caller's voice, but its words do. An utterance is an echo if nearly all of its words occur
in the current reply, in the same order and close together. One word in five may differ, because the recognizer makes
errors on an echo. The first and the last word may be cut, because an echo may begin and end within a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SHARE = 0.8
"""Share of the utterance's words that must occur in the reply. Of fewer than five words, all must occur."""

SLACK = 0.5
"""Extra words of the reply that are searched for a match, as a share of the utterance's length."""

FRAGMENT = 3
"""Minimum number of letters of a cut word that may match the beginning or end of a whole word."""


def is_echo(heard: Sequence[str], spoken: Sequence[str]) -> bool:
    """Return True if an utterance repeats a part of the reply.

    Args:
        heard: The words of the utterance, normalized by `wer.words`.
        spoken: The words of the reply, normalized in the same way.
    """
    needed = _needed(len(heard))
    if not heard or needed > len(spoken):
        return False
    width = len(heard) + int(len(heard) * SLACK)
    last = max(1, len(spoken) - needed + 1)
    return any(_in_order(heard, spoken[at : at + width]) >= needed for at in range(last))


def _needed(count: int) -> int:
    """Return how many of an utterance's `count` words must occur in the reply: SHARE, rounded up, at least one."""
    return max(1, math.ceil(count * SHARE))


def _in_order(heard: Sequence[str], spoken: Sequence[str]) -> int:
    """Return the length, in words, of the longest common subsequence of the utterance and a part of the reply.

    The first and the last word of the utterance (`heard`) also match a whole word of which they are a part.
    """
    best = [0] * (len(spoken) + 1)
    for number, word in enumerate(heard):
        diagonal = 0
        for at, spoken_word in enumerate(spoken, start=1):
            above = best[at]
            matches = _same(word, spoken_word, first=number == 0, last=number == len(heard) - 1)
            best[at] = diagonal + 1 if matches else max(above, best[at - 1])
            diagonal = above
    return best[-1]


def _same(heard: str, spoken: str, *, first: bool, last: bool) -> bool:
    """Return True if a word of the utterance matches a word of the reply.

    The utterance's first word may be the end of a longer word of the reply, and its last word the beginning of one. A
    part of a word must have at least FRAGMENT letters.

    Args:
        heard: The word of the utterance.
        spoken: The word of the reply.
        first: True if `heard` is the first word of the utterance.
        last: True if `heard` is the last word of the utterance.
    """
    if heard == spoken:
        return True
    if len(heard) < FRAGMENT:
        return False
    return (first and spoken.endswith(heard)) or (last and spoken.startswith(heard))
