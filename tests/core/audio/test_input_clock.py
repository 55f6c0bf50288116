"""Tests of the clock of incoming real-time audio, which inserts silence for what a client does not send."""

from __future__ import annotations

import pytest

from rejoinder.core.audio.input_clock import GAP_S, LAG_S, LONGEST_S, InputClock

RATE = 48_000
FRAME = 960


def test_audio_in_time_needs_no_silence() -> None:
    """Frames of 20 ms, of which each is up to 30 ms late, get no silence."""
    clock, inserted = InputClock(RATE), 0
    for number in range(500):
        inserted += clock.silence(number * 0.02 + (number % 4) * 0.01)
        clock.heard(FRAME, number * 0.02 + (number % 4) * 0.01)
    assert inserted == 0


def test_a_pause_is_filled_while_it_lasts() -> None:
    """If no audio comes for a second, silence of as much is inserted, at most GAP_S late."""
    clock, inserted = InputClock(RATE), 0
    assert clock.silence(3.0) == 0
    clock.heard(FRAME, 0.02)
    for tick in range(1, 51):
        inserted += clock.silence(0.02 + tick * 0.02)
        assert tick * 0.02 - inserted / RATE < GAP_S + 1e-6
    assert inserted / RATE == pytest.approx(1.0, abs=GAP_S)


def test_every_pause_of_a_client_with_dtx_is_filled() -> None:
    """Half a second of speech and of nothing in turn, for a minute: the audio is as long as the time, within GAP_S."""
    clock, samples = InputClock(RATE), 0
    for step in range(3000):
        now = step * 0.02
        samples += clock.silence(now)
        if step % 50 < 25:
            clock.heard(FRAME, now)
            samples += FRAME
    assert samples / RATE == pytest.approx(60.0, abs=GAP_S + LAG_S)


def test_a_burst_after_a_stall_does_not_hide_the_next_pause() -> None:
    """The network holds 10 frames back for 200 ms and delivers them at once. The next pause is noticed in GAP_S."""
    clock = InputClock(RATE)
    clock.heard(FRAME, 0.02)
    clock.silence(0.22)
    for _ in range(10):
        clock.heard(FRAME, 0.22)
    assert clock.silence(0.22 + GAP_S - 0.01) == 0
    assert clock.silence(0.22 + GAP_S + 0.01) > 0


def test_one_insertion_is_bounded() -> None:
    """After a minute without a check at most LONGEST_S are inserted at once, and no more afterwards."""
    clock = InputClock(RATE)
    clock.heard(FRAME, 0.02)
    assert clock.silence(60.0) / RATE <= LONGEST_S
    assert clock.silence(60.0) == 0
