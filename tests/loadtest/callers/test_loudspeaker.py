"""Tests of the simulated loudspeaker: playback times, stalls and flushes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.loudspeaker import Loudspeaker
from rejoinder.core.audio.pcm import WIRE_RATE
from tests.loadtest.callers.scene import silence, tone

ARRIVALS = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20_000)), min_size=1, max_size=10)


@given(ARRIVALS, st.floats(0, 20))
def test_playback_runs_in_real_time_and_never_ahead_of_the_received_audio(
    arrivals: list[tuple[float, int]], until: float
) -> None:
    """The played audio is at most the time since the first arrival, and at most the audio that has arrived."""
    playback, now = Loudspeaker(), 5.0
    received: list[tuple[float, int]] = []
    for gap, samples in arrivals:
        now += gap
        playback.receive(bytes(2 * samples), now)
        received.append((now, samples))
    at = 5.0 + until
    played = playback.played_s(at)
    assert played <= max(0.0, at - received[0][0]) + 1e-9
    assert played <= sum(samples for when, samples in received if when <= at) / WIRE_RATE + 1e-9
    assert playback.played_s(playback.ends_at) == pytest.approx(sum(samples for _, samples in received) / WIRE_RATE)


def test_an_underrun_delays_what_follows() -> None:
    """After an underrun, audio is played from its arrival, and no sample is lost."""
    playback = Loudspeaker()
    playback.receive(silence(0.1), 1.0)
    playback.receive(tone(0.1), 1.5)
    assert playback.began_at == 1.0
    assert playback.audible_at() == pytest.approx(1.5)
    assert not playback.playing(1.65)
    assert playback.ends_at == pytest.approx(1.6)


def test_early_audio_is_queued() -> None:
    """The first audible sample is played at its position in the playback, not at the arrival of its message."""
    playback = Loudspeaker()
    playback.receive(silence(0.5), 1.0)
    playback.receive(tone(0.5), 1.0)
    assert playback.audible_at() == pytest.approx(1.5)


def test_the_search_for_sound_can_start_at_a_position() -> None:
    """`audible_at` returns the time of the first audible sample at or after a position in seconds of audio, or None.

    The time includes stalls (times at which no audio was left to play).
    """
    playback = Loudspeaker()
    playback.receive(tone(0.3), 1.0)
    playback.receive(silence(0.1) + tone(0.2), 4.0)
    assert playback.audible_at() == pytest.approx(1.0, abs=0.001)
    assert playback.audible_at(0.3) == pytest.approx(4.1, abs=0.006)
    assert playback.audible_at(0.6) is None


def test_a_flush_stops_playback_at_once() -> None:
    """A flush stops the audio that is playing at the time of the flush and drops the audio not yet played."""
    playback = Loudspeaker()
    playback.receive(silence(0.2) + tone(1.0), 1.0)
    playback.flush(1.1)
    [chunk] = playback.heard()
    assert len(chunk.pcm) / 2 / WIRE_RATE == pytest.approx(0.1)
    assert playback.played_s(9.0) == pytest.approx(0.1)
    assert playback.audible_at() is None
    assert not playback.playing(1.15)


def test_audio_after_a_flush_is_played_on_arrival() -> None:
    """A resumed reply is played from its arrival. The silence before it does not count as played audio."""
    playback = Loudspeaker()
    playback.receive(tone(1.0), 1.0)
    playback.flush(1.25)
    playback.receive(tone(0.75), 3.0)
    assert playback.played_s(2.9) == pytest.approx(0.25)
    assert playback.played_s(3.5) == pytest.approx(0.75)
    assert playback.ends_at == pytest.approx(3.75)
    assert [chunk.at for chunk in playback.heard()] == [1.0, 3.0]
