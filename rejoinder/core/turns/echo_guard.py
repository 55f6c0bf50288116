"""Whether the caller's microphone heard us: the words-based echo guard.

A loudspeaker near a microphone without echo cancellation sends our own voice back. Energy cannot tell it from a
caller; its words can. An utterance is an echo if nearly all of its words occur, in their order and close together, in
what we have just been saying. The recognizer may mishear one word in five, and cuts the first and last one in half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SHARE = 0.8
"""Of the utterance's words that must be ours; one of fewer than five words must be ours altogether."""

SLACK = 0.5
"""An echo's words lie together: it may lack this share of the words that we said meanwhile."""

FRAGMENT = 3
"""Letters of a half-heard word that are enough to know it by."""


def is_echo(heard: Sequence[str], spoken: Sequence[str]) -> bool:
    """Whether `heard` repeats a part of `spoken`; both are words in one spelling (`wer.words`)."""
    needed = _needed(len(heard))
    if not heard or needed > len(spoken):
        return False
    width = len(heard) + int(len(heard) * SLACK)
    last = max(1, len(spoken) - needed + 1)
    return any(_in_order(heard, spoken[at : at + width]) >= needed for at in range(last))


def _needed(count: int) -> int:
    """How many of so many words must be ours."""
    return max(1, math.ceil(count * SHARE))


def _in_order(heard: Sequence[str], spoken: Sequence[str]) -> int:
    """The most words of `heard` that occur in `spoken` in the same order (the longest common subsequence)."""
    best = [0] * (len(spoken) + 1)
    for number, word in enumerate(heard):
        before = 0
        for at, said in enumerate(spoken, start=1):
            above = best[at]
            matches = _same(word, said, first=number == 0, last=number == len(heard) - 1)
            best[at] = before + 1 if matches else max(above, best[at - 1])
            before = above
    return best[-1]


def _same(heard: str, said: str, *, first: bool, last: bool) -> bool:
    if heard == said:
        return True
    if len(heard) < FRAGMENT:
        return False
    return (first and said.endswith(heard)) or (last and said.startswith(heard))
