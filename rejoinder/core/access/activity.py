"""Detects connections that nobody uses: the client sends nothing, or reads nothing."""

from __future__ import annotations

from enum import Enum

from rejoinder.core.settings.access.limits import LimitSettings


class Inactivity(Enum):
    """Why a connection is ended.

    SILENT: the client has sent nothing since it connected. IDLE: it has sent nothing for long. UNREAD: it does not read
    the events that wait for it.
    """

    SILENT = "silent"
    IDLE = "idle"
    UNREAD = "unread"


class ConnectionActivity:
    """Activity of one connection. Call `check` about once a second with the counts of messages until then."""

    __slots__ = ("_limits", "_received", "_received_at", "_sent", "_sent_at")

    def __init__(self, limits: LimitSettings, now: float) -> None:
        """Start at time `now`, in seconds, with no messages."""
        self._limits = limits
        self._received = self._sent = 0
        self._received_at = self._sent_at = now

    def check(self, now: float, received: int, sent: int, *, waiting: bool) -> Inactivity | None:
        """Return why the connection is ended, None if it goes on.

        Args:
            now: Time in seconds.
            received: Number of messages of the client since it connected.
            sent: Number of events that were sent to it.
            waiting: True if further events wait to be sent.
        """
        if received != self._received:
            self._received, self._received_at = received, now
        if sent != self._sent or not waiting:
            self._sent, self._sent_at = sent, now
        if now - self._sent_at >= self._limits.unread_s:
            return Inactivity.UNREAD
        quiet_s = now - self._received_at
        if not received:
            return Inactivity.SILENT if quiet_s >= self._limits.first_event_s else None
        return Inactivity.IDLE if quiet_s >= self._limits.idle_s else None
