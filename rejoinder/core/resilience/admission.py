"""Admission control of a host: refuses calls when it is full, or when its event loop is overloaded.

The maximum number of calls is configured. The lag of the event loop (how late it runs a timer) shows whether the
machine has capacity now. A measurement is late if the lag exceeds a limit. A single late measurement means little: the
cause may be a garbage collection, or a burst of work in another process. If all measurements within two seconds are
late, the loop is overloaded, and a further call would slow down all others.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

LOOKS = 4
"""Late measurements in a row after which calls are refused. The host measures twice a second, so this is two seconds.
"""


MAX_RETRY_AFTER_S = 60.0
"""Longest time in seconds after which a refused caller is asked to try again."""
ENDS_S = 60.0
"""Seconds of ended calls from which the rate at which places become free is taken."""


class AdmissionRefusal(Enum):
    """Reason why a call is refused. Values are metric labels.

    FULL: the host has its maximum number of calls. LATE: its event loop lags. The others come from `StageAdmission`.
    UTILISATION: a stage would have too few free slots. LATENCY: turns would take too long. QUEUE: requests wait too
    long in a stage. SPEED: answers are written more slowly than they are spoken. GROWTH: there would be many more calls
    than were served before. COLD_START: the load of a call is not known yet. SHARE: the host has used its share of the
    free places until the next report. UNREACHABLE: the host cannot reach a stage (`reachability.Reachability`).
    """

    FULL = "full"
    LATE = "late"
    UTILISATION = "utilisation"
    LATENCY = "latency"
    QUEUE = "queue"
    SPEED = "speed"
    GROWTH = "growth"
    COLD_START = "cold_start"
    SHARE = "share"
    UNREACHABLE = "unreachable"


class Admission:
    """Admission control of one host. Not thread-safe.

    The host calls `note` twice a second with its event loop's lag, and `refusal` for each new call.
    """

    def __init__(self, places: int, lag_limit_s: float) -> None:
        """Create the admission control of one host.

        Args:
            places: Maximum number of concurrent calls.
            lag_limit_s: Lag of the event loop in seconds. Calls are refused if the last LOOKS measured lags exceed it.
        """
        self._places = places
        self._lag_limit_s = lag_limit_s
        self._lags: deque[float] = deque(maxlen=LOOKS)

    def note(self, lag_s: float) -> None:
        """Record one measurement of the event loop's lag, in seconds."""
        self._lags.append(lag_s)

    @property
    def lag_s(self) -> float:
        """The newest measured lag of the event loop in seconds, or 0 before the first measurement."""
        return self._lags[-1] if self._lags else 0.0

    def refusal(self, taken: int, *, resumed: bool = False) -> AdmissionRefusal | None:
        """Return why a new call is refused while the host has `taken` calls, or None if it is admitted.

        A call that was cut off and is `resumed` is only refused if the host has no place: it comes before new calls.
        """
        if taken >= self._places:
            return AdmissionRefusal.FULL
        if resumed:
            return None
        return AdmissionRefusal.LATE if self.late else None

    @property
    def late(self) -> bool:
        """True if all of the last LOOKS measurements of the event loop's lag were above the limit."""
        return len(self._lags) == LOOKS and min(self._lags) > self._lag_limit_s


class FreePlaces:
    """Prediction of when a place of a full host becomes free. Not thread-safe. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=1000)
        self._occupied_since = 0.0

    def occupied(self, now: float) -> None:
        """Record that the first call of an empty host began."""
        self._occupied_since = now
        self._ends.clear()

    def ended(self, now: float) -> None:
        """Record that a call ended, which frees its place."""
        self._ends.append(now)

    def wait_s(self, now: float) -> float:
        """Return the expected time in seconds until a call ends, at most MAX_RETRY_AFTER_S.

        It follows from the calls that ended in the last ENDS_S. If none has ended, it is the time for which this has
        been so, because a wait whose length is unknown lasts about as long again.
        """
        while self._ends and self._ends[0] < now - ENDS_S:
            self._ends.popleft()
        watched_s = min(ENDS_S, now - self._occupied_since)
        return min(MAX_RETRY_AFTER_S, watched_s / max(1, len(self._ends)))
