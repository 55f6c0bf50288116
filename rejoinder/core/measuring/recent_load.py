"""Recent load of one replica: arrivals, service times and waiting times of the last seconds, in one-second bins.

The autoscaling policies add these counts over all replicas of a stage. Counts can be added, quantiles cannot: the
largest 90th percentile of 50 replicas is high at any load, because each replica sees only a few requests.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

BIN_S = 1.0
"""Length of a bin in seconds."""


@dataclass(slots=True)
class LoadCounts:
    """Counts of a number of seconds.

    Attributes:
        arrived: Requests that arrived. A fraction counts a part of a request, see `RecentLoad.arrived`.
        began: Requests whose service began.
        late: Requests among `began` that had waited longer than the limit.
        ended: Requests whose service ended.
        service_s: Sum of the service times of the requests in `ended`, in seconds.
    """

    arrived: float = 0
    began: int = 0
    late: int = 0
    ended: int = 0
    service_s: float = 0.0


class RecentLoad:
    """Counts of the requests of the last `window_s` seconds. Not thread-safe. Times are monotonic seconds."""

    def __init__(self, window_s: float, wait_limit_s: float) -> None:
        """Create empty counts.

        Args:
            window_s: Seconds that the counts cover.
            wait_limit_s: Waiting time in seconds above which a request counts as late.
        """
        self._window_s = window_s
        self._limit_s = wait_limit_s
        self._bins: deque[tuple[int, LoadCounts]] = deque()
        self._since: float | None = None

    def arrived(self, now: float, part: float = 1.0) -> None:
        """Count a request that arrived, or a part of it (0 to 1) if several replicas count the same request."""
        self._bin(now).arrived += part

    def began(self, wait_s: float, now: float) -> None:
        """Count a request whose service began after it had waited for `wait_s` seconds."""
        counts = self._bin(now)
        counts.began += 1
        counts.late += wait_s > self._limit_s

    def ended(self, service_s: float, now: float) -> None:
        """Count a request whose service ended after `service_s` seconds."""
        counts = self._bin(now)
        counts.ended += 1
        counts.service_s += service_s

    def counts(self, now: float) -> LoadCounts:
        """Return the counts of the last `window_s` seconds."""
        self._forget(now)
        total = LoadCounts()
        for _, counts in self._bins:
            total.arrived += counts.arrived
            total.began += counts.began
            total.late += counts.late
            total.ended += counts.ended
            total.service_s += counts.service_s
        return total

    def arrivals_per_s(self, now: float) -> float:
        """Return the arrivals per second. In the first `window_s` seconds they are divided by the time so far."""
        if self._since is None:
            return 0.0
        covered_s = min(self._window_s, max(BIN_S, now - self._since))
        return self.counts(now).arrived / covered_s

    def _bin(self, now: float) -> LoadCounts:
        if self._since is None:
            self._since = now
        self._forget(now)
        index = math.floor(now / BIN_S)
        if not self._bins or self._bins[-1][0] < index:
            self._bins.append((index, LoadCounts()))
        return self._bins[-1][1]

    def _forget(self, now: float) -> None:
        oldest = math.floor((now - self._window_s) / BIN_S)
        while self._bins and self._bins[0][0] <= oldest:
            self._bins.popleft()
