"""Report of a language model replica about its own streams: whether it still sends tokens to anybody.

A session host sees only its own streams. On a large cluster that is about one stream per replica, so a single slow
request looks like a silent replica. The replica sees the streams of all hosts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamReport:
    """Report of a replica.

    Attributes:
        waiting: Number of streams that have waited for a token for at least the time that the question names.
        silent_s: Seconds for which streams have waited and none has got a token; 0 if the replica has no stream.
    """

    waiting: int
    silent_s: float


class StreamWatch:
    """Streams of one replica that wait for their next token. Not thread-safe. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting_since: dict[int, float] = {}
        self._token_at = -math.inf
        self._count = 0

    def opened(self, now: float) -> int:
        """Record a new stream, and return its number."""
        self._count += 1
        self._waiting_since[self._count] = now
        return self._count

    def token(self, stream: int, now: float) -> None:
        """Record that a stream got a token."""
        self._waiting_since[stream] = self._token_at = now

    def closed(self, stream: int) -> None:
        """Record the end of a stream."""
        self._waiting_since.pop(stream, None)

    def report(self, idle_s: float, now: float) -> StreamReport:
        """Return the report on the streams that have waited for at least `idle_s` seconds."""
        if not self._waiting_since:
            return StreamReport(0, 0.0)
        waits = [now - since for since in self._waiting_since.values()]
        return StreamReport(sum(wait_s >= idle_s for wait_s in waits), min(max(waits), now - self._token_at))
