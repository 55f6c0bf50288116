"""The simulated loudspeaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.loudspeaker import Loudspeaker
from rejoinder.core.audio.pcm import WIRE_RATE
from tests.loadtest.callers.scene import silence, tone

ARRIVALS = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20_000)), min_size=1, max_size=10)


@given(ARRIVALS, st.floats(0, 20))
def test_playback_runs_in_real_time_and_never_ahead_of_what_arrived(
    arrivals: list[tuple[float, int]], until: float
) -> None:
    """What was played by an instant is at most the time since the first arrival, and at most what had arrived."""
    playback, now = Loudspeaker(), 5.0
    came: list[tuple[float, int]] = []
    for gap, samples in arrivals:
        now += gap
        playback.receive(bytes(2 * samples), now)
        came.append((now, samples))
    at = 5.0 + until
    played = playback.played_s(at)
    assert played <= max(0.0, at - came[0][0]) + 1e-9
    assert played <= sum(samples for when, samples in came if when <= at) / WIRE_RATE + 1e-9
    assert playback.played_s(playback.ends_at) == pytest.approx(sum(samples for _, samples in came) / WIRE_RATE)


def test_an_underrun_delays_what_follows() -> None:
    """Audio that comes after all was played sounds when it comes, and no sample of it is lost."""
    playback = Loudspeaker()
    playback.receive(silence(0.1), 1.0)
    playback.receive(tone(0.1), 1.5)
    assert playback.began_at == 1.0
    assert playback.audible_at() == pytest.approx(1.5)
    assert not playback.playing(1.65)
    assert playback.ends_at == pytest.approx(1.6)


def test_audio_that_is_early_waits_its_turn() -> None:
    """The first audible sample sounds at its place in the playback, not when its message came."""
    playback = Loudspeaker()
    playback.receive(silence(0.5), 1.0)
    playback.receive(tone(0.5), 1.0)
    assert playback.audible_at() == pytest.approx(1.5)


def test_sound_may_be_looked_for_behind_a_clip() -> None:
    """The first audible sample of what begins 300 ms into the audio, after a stall."""
    playback = Loudspeaker()
    playback.receive(tone(0.3), 1.0)
    playback.receive(silence(0.1) + tone(0.2), 4.0)
    assert playback.audible_at() == pytest.approx(1.0, abs=0.001)
    assert playback.audible_at(0.3) == pytest.approx(4.1, abs=0.006)
    assert playback.audible_at(0.6) is None


def test_a_flush_ends_the_sound_at_once() -> None:
    """What sounded is cut there, and of the rest nothing sounds."""
    playback = Loudspeaker()
    playback.receive(silence(0.2) + tone(1.0), 1.0)
    playback.flush(1.1)
    [heard] = playback.heard()
    assert len(heard.pcm) / 2 / WIRE_RATE == pytest.approx(0.1)
    assert playback.played_s(9.0) == pytest.approx(0.1)
    assert playback.audible_at() is None
    assert not playback.playing(1.15)


def test_what_comes_behind_a_flush_sounds_when_it_comes() -> None:
    """A reply that is resumed is heard from there on; the silence between counts as no audio."""
    playback = Loudspeaker()
    playback.receive(tone(1.0), 1.0)
    playback.flush(1.25)
    playback.receive(tone(0.75), 3.0)
    assert playback.played_s(2.9) == pytest.approx(0.25)
    assert playback.played_s(3.5) == pytest.approx(0.75)
    assert playback.ends_at == pytest.approx(3.75)
    assert [chunk.at for chunk in playback.heard()] == [1.0, 3.0]
