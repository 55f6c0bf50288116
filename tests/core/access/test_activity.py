"""Tests of the detection of connections that nobody uses."""

from __future__ import annotations

from rejoinder.core.access.activity import ConnectionActivity, Inactivity
from rejoinder.core.settings.access.limits import LimitSettings

LIMITS = LimitSettings(first_event_s=30, idle_s=600, unread_s=10)


def test_a_client_that_never_sends_anything_is_ended() -> None:
    """A connection without any message ends after `first_event_s`, and not before."""
    activity = ConnectionActivity(LIMITS, 100.0)
    assert activity.check(129.9, 0, 1, waiting=False) is None
    assert activity.check(130.0, 0, 1, waiting=False) is Inactivity.SILENT


def test_each_message_starts_the_idle_time_again() -> None:
    """A connection ends `idle_s` after the last check that saw a new message."""
    activity = ConnectionActivity(LIMITS, 0.0)
    assert activity.check(20.0, 1, 1, waiting=False) is None
    assert activity.check(610.0, 2, 1, waiting=False) is None
    assert activity.check(1209.0, 2, 1, waiting=False) is None
    assert activity.check(1210.0, 2, 1, waiting=False) is Inactivity.IDLE


def test_a_client_that_reads_nothing_is_ended() -> None:
    """While events wait, a connection ends if none was sent for `unread_s`. Without events it goes on."""
    activity = ConnectionActivity(LIMITS, 0.0)
    assert activity.check(25.0, 1, 5, waiting=False) is None
    assert activity.check(26.0, 2, 5, waiting=True) is None
    assert activity.check(34.0, 3, 6, waiting=True) is None
    assert activity.check(43.9, 4, 6, waiting=True) is None
    assert activity.check(44.0, 5, 6, waiting=True) is Inactivity.UNREAD
