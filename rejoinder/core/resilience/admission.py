"""When a host takes no more calls: all places are taken, or its loop is late for so long that all would suffer.

The count of places is a plan; lateness is the truth about this machine, today, with these neighbours. One late look is
noise (a collection, a neighbour's burst); a loop that is late at every look for two seconds has no capacity left, and
every further call would be paid for by all.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

LOOKS = 4
"""Looks in a row that must be late; the host looks twice a second."""


class AdmissionRefusal(Enum):
    """Why a call is not taken."""

    FULL = "full"
    LATE = "late"


class Admission:
    """Tell it each look's lag with `note`; ask `refusal` before a call is taken."""

    def __init__(self, places: int, lag_limit_s: float) -> None:
        self._places = places
        self._lag_limit_s = lag_limit_s
        self._lags: deque[float] = deque(maxlen=LOOKS)

    def note(self, lag_s: float) -> None:
        """How late the loop was at this look."""
        self._lags.append(lag_s)

    @property
    def lag_s(self) -> float:
        """The newest lag; 0 before the first look."""
        return self._lags[-1] if self._lags else 0.0

    def refusal(self, taken: int) -> AdmissionRefusal | None:
        """Why the next call cannot be taken while `taken` are live; None if it can."""
        if taken >= self._places:
            return AdmissionRefusal.FULL
        late = len(self._lags) == LOOKS and min(self._lags) > self._lag_limit_s
        return AdmissionRefusal.LATE if late else None
