"""Health of a remote server, judged by the requests that it gets anyway.

A health check with requests of its own costs a request a second for each replica, and says little about the route that
real requests take.
"""

from __future__ import annotations

LEAST_FAILURES = 5
"""Number of requests in a row that must get no response before the server counts as unreachable."""

UNREACHABLE_S = 30.0
"""Seconds for which requests must get no response before the server counts as unreachable."""


class RequestHealth:
    """Whether a remote server responds. Not thread-safe. Times are monotonic seconds.

    A response with an error status is a response. A server that gets no requests is healthy.
    """

    def __init__(self, unreachable_s: float = UNREACHABLE_S) -> None:
        """Create the health of a server that responds. It is unreachable after `unreachable_s` without a response."""
        self._unreachable_s = unreachable_s
        self._failures = 0
        self._failing_since = 0.0

    def responded(self) -> None:
        """Record a response of any status."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Record a request without a response."""
        if not self._failures:
            self._failing_since = now
        self._failures += 1

    def unreachable_s(self, now: float) -> float:
        """Return for how many seconds the server has been unreachable, 0 if it is not.

        It is unreachable if the last LEAST_FAILURES requests got no response, the first of them at least
        `unreachable_s` ago.
        """
        silent_s = now - self._failing_since
        return silent_s if self._failures >= LEAST_FAILURES and silent_s >= self._unreachable_s else 0.0
