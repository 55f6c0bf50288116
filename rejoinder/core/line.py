"""A few places for work that is worth nothing after its deadline: the newest first, and nobody who would be too late.

First come, first served collapses just above capacity: everybody waits until hardly any time is left, takes a place,
and is cut off in the middle of being served, so that nobody is served at all. The newest has the most time left. How
long serving takes is estimated as TCP estimates its round trips (RFC 6298): the smoothed mean and twice the smoothed
deviation.
"""

from __future__ import annotations

from typing import Generic, TypeVar

_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
_DEVIATIONS = 2.0

Ticket = TypeVar("Ticket")


class Line(Generic[Ticket]):
    """Who is served and who waits. Deadlines and `now` are seconds of one clock."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._served: dict[Ticket, float] = {}
        self._waiting: dict[Ticket, float] = {}
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    @property
    def expected_s(self) -> float:
        """What being served is expected to take at most; 0 until somebody was."""
        return (self._mean_s or 0.0) + _DEVIATIONS * self._deviation_s

    def join(self, ticket: Ticket, deadline: float) -> None:
        """Wait for a place; the caller then asks for `calls`."""
        self._waiting[ticket] = deadline

    def leave(self, ticket: Ticket, now: float, *, learn: bool = True) -> None:
        """Give up the place in the line, or the place itself. `learn`: how long it was held says how long serving
        takes, if only at least.
        """
        self._waiting.pop(ticket, None)
        began = self._served.pop(ticket, None)
        if began is not None and learn:
            self._took(now - began)

    def calls(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Those who are served from now on, and those who would be too late and have left the line.

        While nobody is served the newest is in any case: an estimate that nobody tests would hold for ever.
        """
        served: list[Ticket] = []
        late: list[Ticket] = []
        while self._waiting and len(self._served) < self._places:
            ticket, deadline = self._waiting.popitem()
            if self._served and now + self.expected_s > deadline:
                late.append(ticket)
            else:
                self._served[ticket] = now
                served.append(ticket)
        return served, late

    def _took(self, seconds: float) -> None:
        if self._mean_s is None:
            self._mean_s, self._deviation_s = seconds, seconds / 2
            return
        self._deviation_s += _DEVIATION_GAIN * (abs(seconds - self._mean_s) - self._deviation_s)
        self._mean_s += _MEAN_GAIN * (seconds - self._mean_s)
