"""Decision of a client that its server is silent. The current time is an argument.

A host whose machine has vanished, or whose process hangs, closes no connection. So a client asks for a sign of life
when it has heard nothing for a while, and leaves the connection if none comes. Any frame of the server is a sign.
"""

from __future__ import annotations

from enum import Enum

PING_S = 2.0
"""Seconds between two requests for a sign of life."""

SILENT_S = 3.0
"""Seconds without any frame of the server, although it was asked, after which the connection counts as lost."""

LOOK_S = 1.0
"""Longest time between two checks, in seconds. What is longer was the client's own pause (a suspended machine), and is
not held against the server."""


class SilenceStep(Enum):
    """What a client does after a check: nothing, ask for a sign of life, or leave the connection."""

    NOTHING = "nothing"
    PING = "ping"
    LOST = "lost"


class ServerWatch:
    """Watch over one connection. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        """Begin to watch a connection that is open at `now`."""
        self._looked = self._pinged = now
        self._silent_s = 0.0

    def heard(self) -> None:
        """Record a frame of the server."""
        self._silent_s = 0.0

    def check(self, now: float) -> SilenceStep:
        """Return what to do at `now`. Call this at least every LOOK_S."""
        self._silent_s += min(LOOK_S, now - self._looked)
        self._looked = now
        if self._silent_s >= SILENT_S and self._pinged <= now - (SILENT_S - PING_S):
            return SilenceStep.LOST
        if now - self._pinged >= PING_S:
            self._pinged = now
            return SilenceStep.PING
        return SilenceStep.NOTHING
