"""What a call shows about the caller's satisfaction without asking: repeated questions, and when the caller hangs up.

A repeated question: the caller was not understood, or not answered. A hang-up while the agent speaks or soon after:
the answer did not help, or it was the last one. Such figures say little about one call and are meant to be compared
over time.
"""

from __future__ import annotations

from enum import Enum

from rejoinder.core.reply.question_matching import content_words, tells

SOON_S = 5.0
"""A hang-up this many seconds or less after the end of a reply counts as soon after it."""

# Content words with which callers mark a repetition ("I said", "Again", "My question was"). They do not count.
_MARKERS = frozenset(content_words("said say asked ask again repeat sorry question was my no once more just"))


class HangUp(Enum):
    """When a caller hangs up.

    Attributes:
        BEFORE_REPLY: Before the agent has spoken.
        DURING_REPLY: While the agent speaks.
        SOON: At most SOON_S after the end of a reply.
        LATER: Later.
    """

    BEFORE_REPLY = "before_reply"
    DURING_REPLY = "during_reply"
    SOON = "within_5s"
    LATER = "later"


def repeats(earlier: str, later: str) -> bool:
    """Return True if a turn of the caller repeats the caller's turn before it.

    Both have the same content words in the same order (`question_matching.content_words`), and at least two of them.
    Words that mark a repetition, such as "I said" or "again", do not count.
    """
    words = _words(later)
    return tells(words) and words == _words(earlier)


def hang_up(now: float, *, speaking: bool, reply_ended_at: float | None) -> HangUp:
    """Return when a caller hangs up who does so now.

    Args:
        now: Monotonic time in seconds.
        speaking: True if the agent is being heard.
        reply_ended_at: Monotonic time at which the newest reply ended; None if there was none.
    """
    if speaking:
        return HangUp.DURING_REPLY
    if reply_ended_at is None:
        return HangUp.BEFORE_REPLY
    return HangUp.SOON if now - reply_ended_at <= SOON_S else HangUp.LATER


def _words(turn: str) -> tuple[str, ...]:
    return tuple(word for word in content_words(turn) if word not in _MARKERS)
