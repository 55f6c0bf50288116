"""Tests of cutting long speech into windows: without overlap in a long pause, with an overlap elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import STT_RATE, float_to_pcm16
from rejoinder.core.audio.windows import CUT_FROM_S, CUT_TO_S, OVERLAP_S, SPLIT_S, SPLIT_SAMPLES, cut_window


def _noise(seconds: float, seed: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * STT_RATE))


def _with_pause(start_s: float, seconds: float) -> bytes:
    """Return 20 s of noise at -20 dBFS with a pause at -60 dBFS that begins at `start_s` and lasts `seconds`."""
    samples = _noise(20.0)
    first = round(start_s * STT_RATE)
    samples[first : first + round(seconds * STT_RATE)] *= 0.01
    return float_to_pcm16(samples)


def test_short_speech_is_not_cut() -> None:
    """Speech that is one sample shorter than SPLIT_S seconds is not cut."""
    assert cut_window(float_to_pcm16(_noise(SPLIT_S))[:-2]) is None


def test_a_long_pause_is_cut_in_its_middle() -> None:
    """A pause of 1.2 s is cut in its middle, to within 110 ms, and the two windows share no audio."""
    cut = cut_window(_with_pause(13.5, 1.2))
    assert cut is not None
    assert not cut.overlaps
    assert cut.end / STT_RATE == pytest.approx(14.1, abs=0.11)


@pytest.mark.parametrize("seconds", [0.1, 0.4])
def test_a_gap_between_words_is_in_both_windows(seconds: float) -> None:
    """Two windows that are cut at a gap of 0.1 or 0.4 s overlap by OVERLAP_S seconds.

    The middle of the overlap is within the gap.
    """
    cut = cut_window(_with_pause(13.5, seconds))
    assert cut is not None
    assert (cut.end - cut.next_start) / STT_RATE == pytest.approx(OVERLAP_S)
    assert (cut.end + cut.next_start) / 2 / STT_RATE == pytest.approx(13.5 + seconds / 2, abs=seconds / 2)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-4, 0.5]))
def test_every_window_ends_in_range(seed: int, level: float) -> None:
    """For any audio, also digital silence, the cut lies between CUT_FROM_S and CUT_TO_S, give or take the overlap.

    The next window never starts after the end of the window before it.
    """
    cut = cut_window(float_to_pcm16(_noise(SPLIT_S, seed) * level))
    assert cut is not None
    assert CUT_FROM_S - OVERLAP_S <= cut.next_start / STT_RATE <= cut.end / STT_RATE <= CUT_TO_S + OVERLAP_S
    assert cut.end < SPLIT_SAMPLES
