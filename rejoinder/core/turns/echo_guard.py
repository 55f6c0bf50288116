"""Echo guard: detects by its words that an utterance is the agent's own voice.

Without echo cancellation, the caller's microphone picks up the reply from the loudspeaker. Its level does not
distinguish it from the caller's voice, but its words do. An utterance is an echo if nearly all of its words occur in
the current reply, in the same order and close together. One word in five may differ, because the recognizer makes
errors on an echo. The first and the last word may be cut, because the utterance starts and ends at any point of the
reply.
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
    """Return True if the words `heard` repeat a part of the words `spoken`. Both are normalized by `wer.words`."""
    needed = _needed(len(heard))
    if not heard or needed > len(spoken):
        return False
    width = len(heard) + int(len(heard) * SLACK)
    last = max(1, len(spoken) - needed + 1)
    return any(_in_order(heard, spoken[at : at + width]) >= needed for at in range(last))


def _needed(count: int) -> int:
    """Return how many of `count` words must occur in the reply."""
    return max(1, math.ceil(count * SHARE))


def _in_order(heard: Sequence[str], spoken: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of `heard` and `spoken`."""
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
    """Return True if the words match. The first word may lack its beginning, the last word its end."""
    if heard == spoken:
        return True
    if len(heard) < FRAGMENT:
        return False
    return (first and spoken.endswith(heard)) or (last and spoken.startswith(heard))
