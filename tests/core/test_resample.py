"""The downsampler keeps speech, drops what would fold into it, and does not care how audio is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio import STT_RATE, WIRE_RATE
from rejoinder.core.resample import DELAY_S, Downsampler

AMPLITUDE = 10_000


def _tone(hertz: float, seconds: float = 0.5) -> bytes:
    t = np.arange(round(seconds * WIRE_RATE)) / WIRE_RATE
    return (np.sin(2 * np.pi * hertz * t) * AMPLITUDE).astype("<i2").tobytes()


def _level_db(pcm: bytes) -> float:
    """RMS in decibels against the tone's, without the edges."""
    samples = np.frombuffer(pcm, "<i2")[200:-200].astype(float)
    return float(20 * np.log10(np.sqrt((samples**2).mean()) / (AMPLITUDE / np.sqrt(2)) + 1e-9))


@pytest.mark.parametrize("hertz", [100, 1000, 3400, 6000, 6600])
def test_speech_passes(hertz: float) -> None:
    """Speech's band is kept within 1 dB."""
    assert abs(_level_db(Downsampler()(_tone(hertz)))) < 1


@pytest.mark.parametrize("hertz", [8500, 9500, 10500, 11500])
def test_what_would_alias_is_removed(hertz: float) -> None:
    """Above 8 kHz at least 50 dB are taken away."""
    assert _level_db(Downsampler()(_tone(hertz))) < -50


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 2**32 - 1))
def test_how_audio_is_cut_changes_nothing(sizes: list[int], seed: int) -> None:
    """Any division into messages gives the same samples, and all of them but for a rest of less than one pair."""
    samples = np.random.default_rng(seed).integers(-20000, 20000, sum(sizes)).astype("<i2")
    whole = Downsampler()(samples.tobytes())
    stream, parts, at = Downsampler(), b"", 0
    for size in sizes:
        parts += stream(samples[at : at + size].tobytes())
        at += size
    assert parts == whole
    assert len(whole) // 2 == sum(sizes) // 3 * 2


def test_an_impulse_arrives_after_the_filters_delay() -> None:
    """What goes in comes out one millisecond later, not a block later."""
    pcm = np.zeros(WIRE_RATE // 10, "<i2")
    pcm[1200] = 20000
    peak = int(np.abs(np.frombuffer(Downsampler()(pcm.tobytes()), "<i2").astype(int)).argmax())
    assert peak / STT_RATE - 1200 / WIRE_RATE == pytest.approx(DELAY_S, abs=1 / STT_RATE)
    assert DELAY_S < 0.001
