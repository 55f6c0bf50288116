"""A few places for work that is worth nothing after its deadline: the newest first, and nobody who would be too late.

First come, first served collapses just above capacity: everybody waits until hardly any time is left, takes a place,
and is cut off in the middle of being served, so that nobody is served at all. The newest has the most time left. Too
late is who has less time than serving takes on average; asking for two deviations more refused so many who would have
been in time that a sixth fewer were served.
"""

from __future__ import annotations

from typing import Generic, TypeVar

# Of the newest service time in the average, as TCP smooths its round trips (RFC 6298).
_GAIN = 1 / 8

Ticket = TypeVar("Ticket")


class DeadlineQueue(Generic[Ticket]):
    """Who is served and who waits. Deadlines and `now` are seconds of one clock."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._served: dict[Ticket, float] = {}
        self._waiting: dict[Ticket, float] = {}
        self._mean_s: float | None = None

    @property
    def expected_s(self) -> float:
        """How long being served takes; 0 until somebody was."""
        return self._mean_s or 0.0

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
        self._mean_s = seconds if self._mean_s is None else self._mean_s + _GAIN * (seconds - self._mean_s)
