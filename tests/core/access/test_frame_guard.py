"""Tests of the limits of a connection that sends short audio messages, which are counted in groups."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.access.frame_guard import CREDIT, OWN_BYTES, OWN_BYTES_PER_S, FrameGuard, shared_rate
from rejoinder.core.settings.access.limits import LimitSettings

LIMITS = LimitSettings(
    messages_per_s=100, message_burst=200, audio_bytes_per_s=200_000, audio_bytes_burst=1_000_000, message_bytes=4096
)
ARRIVALS = st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 60_000)), min_size=1, max_size=600)


@given(ARRIVALS)
def test_a_connection_never_gets_more_than_its_rate(arrivals: list[tuple[float, int]]) -> None:
    """In all the time since the start, a client gets its burst and its rate, and at most one message more."""
    guard, now, frames, size, largest = FrameGuard(LIMITS), 0.0, 0, 0, 0
    for pause_s, payload in arrivals:
        now += pause_s
        if guard.wait_s(now):
            continue
        guard.admit_audio(now, payload)
        frames, size, largest = frames + 1, size + payload, max(largest, payload)
        assert frames <= LIMITS.message_burst + LIMITS.messages_per_s * now + 1
        assert size <= LIMITS.audio_bytes_burst + LIMITS.audio_bytes_per_s * now + largest


def test_a_caller_never_waits() -> None:
    """A caller who speaks for an hour, fifty messages a second, never waits, also if the host answers in between."""
    guard = FrameGuard(LimitSettings())
    for number in range(3600 * 50):
        now = number / 50
        assert guard.wait_s(now) == 0
        guard.admit_audio(now, 1_310)
        if number % 500 == 0:
            guard.answered(now, 2_000)


def test_a_debt_of_other_messages_stops_audio_at_once() -> None:
    """A large answer counts at once, also between audio messages that are counted together."""
    guard = FrameGuard(LimitSettings())
    for _ in range(CREDIT // 2):
        assert guard.wait_s(1.0) == 0
        guard.admit_audio(1.0, 1_310)
    guard.answered(1.0, LimitSettings().message_bytes_burst + 262_144)
    assert guard.wait_s(1.0) > 0.9


def test_a_small_burst_is_exact() -> None:
    """Limits below what is counted together are kept exactly."""
    guard = FrameGuard(LimitSettings(message_burst=3, messages_per_s=1))
    admitted = 0
    while not guard.wait_s(5.0):
        guard.admit_audio(5.0, 10)
        admitted += 1
    assert admitted == 3


def test_all_connections_together_keep_the_hosts_rate() -> None:
    """Two hundred connections that send as fast as they may get the host's burst and rate, and what each may alone."""
    limits, size, seconds = LimitSettings(), 90_000, 20
    shared = shared_rate(limits)
    guards = [FrameGuard(limits, shared) for _ in range(200)]
    admitted = 0
    for tick in range(seconds * 20):
        for guard in guards:
            if not guard.wait_s(tick / 20):
                guard.admit(tick / 20, size, first=True)
                admitted += size
    own = 200 * (OWN_BYTES + OWN_BYTES_PER_S * seconds + size)
    rates = limits.host_message_bytes_per_s * seconds + limits.host_message_bytes_burst
    assert rates - size < admitted <= rates + own
    assert own + rates < 200 * limits.message_bytes_per_s * seconds / 5


def test_a_caller_does_not_wait_for_others() -> None:
    """While others have used up the host's rate, a caller with 100 kB of settings and 10 kB a second is read."""
    limits = LimitSettings()
    shared = shared_rate(limits)
    attacker, caller = FrameGuard(limits, shared), FrameGuard(limits, shared)
    attacker.answered(0.0, 3 * limits.host_message_bytes_burst)
    caller.admit(0.0, 100_000, first=True)
    for number in range(100):
        assert caller.wait_s(number / 10) == 0
        caller.admit(number / 10, 1_000, first=True)
