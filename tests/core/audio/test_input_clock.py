"""Tests of the clock of incoming audio, which says where silence belongs."""

from __future__ import annotations

import pytest

from rejoinder.core.audio.input_clock import GAP_S, LAG_S, LONGEST_S, InputClock


def test_a_gap_is_filled_up_to_the_lag() -> None:
    """Nothing is inserted for jitter. After a gap, the audio in total lags behind by no more than `LAG_S`."""
    clock = InputClock(1000)
    assert clock.silence(9.0) == 0
    clock.heard(20, 10.0)
    assert clock.silence(10.0 + GAP_S - 0.01) == 0
    assert clock.silence(11.0) == pytest.approx(1000 * (1.0 - LAG_S), abs=1)
    assert clock.silence(11.0) == 0


def test_a_long_gap_is_limited() -> None:
    """One insertion is at most `LONGEST_S` long, and the time before it counts no more."""
    clock = InputClock(1000)
    clock.heard(20, 0.0)
    assert clock.silence(3600.0) <= LONGEST_S * 1000
    assert clock.silence(3600.0) == 0
