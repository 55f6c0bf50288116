"""Tests of the resamplers: speech passes, aliases are removed, and the split into messages does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.resample import TELEPHONE_TO_STT, WIRE_TO_STT, WIRE_TO_TELEPHONE, LowPassFilter, Resampler

AMPLITUDE = 10_000
FILTERS = {"24 to 16": WIRE_TO_STT, "8 to 16": TELEPHONE_TO_STT, "24 to 8": WIRE_TO_TELEPHONE}
every_filter = pytest.mark.parametrize("by", FILTERS.values(), ids=list(FILTERS))


def _tone(hertz: float, rate: int, seconds: float = 0.5) -> bytes:
    t = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * np.pi * hertz * t) * AMPLITUDE).astype("<i2").tobytes()


def _level_db(pcm: bytes) -> float:
    """Return the level of 16-bit PCM in dB relative to the test tone (amplitude AMPLITUDE).

    The first and the last 200 samples, where the filter starts and ends, are left out.
    """
    samples = np.frombuffer(pcm, "<i2")[200:-200].astype(float)
    return float(20 * np.log10(np.sqrt((samples**2).mean()) / (AMPLITUDE / np.sqrt(2)) + 1e-9))


@pytest.mark.parametrize(
    ("by", "hertz"),
    [
        *((WIRE_TO_STT, hertz) for hertz in (100, 1000, 3400, 6000, 6600)),
        *((by, hertz) for by in (TELEPHONE_TO_STT, WIRE_TO_TELEPHONE) for hertz in (100, 1000, 2000, 3000, 3400)),
    ],
)
def test_speech_passes(by: LowPassFilter, hertz: float) -> None:
    """A tone in the speech band (for the telephone, up to 3.4 kHz) keeps its level within 1 dB."""
    assert abs(_level_db(Resampler(by)(_tone(hertz, by.rate)))) < 1


@pytest.mark.parametrize(
    ("by", "hertz"),
    [
        *((WIRE_TO_STT, hertz) for hertz in (8500, 9500, 10500, 11500)),
        *((WIRE_TO_TELEPHONE, hertz) for hertz in (4500, 5000, 7000, 9000, 11500)),
    ],
)
def test_aliases_are_removed(by: LowPassFilter, hertz: float) -> None:
    """A tone above half the output's sampling rate is attenuated by more than 50 dB, so it cannot alias."""
    assert _level_db(Resampler(by)(_tone(hertz, by.rate))) < -50


@pytest.mark.parametrize("hertz", [300, 1000, 2500, 3400])
def test_raising_the_rate_leaves_no_image(hertz: float) -> None:
    """After resampling from 8 to 16 kHz, the energy above 4.2 kHz is more than 45 dB below the tone."""
    samples = np.frombuffer(Resampler(TELEPHONE_TO_STT)(_tone(hertz, 8_000)), "<i2")[200:-200].astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2
    upper = np.fft.rfftfreq(samples.size, 1 / 16_000) > 4_200
    assert 10 * np.log10(spectrum[upper].sum() / spectrum.sum()) < -45


@every_filter
@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 2**32 - 1))
def test_the_split_into_messages_changes_nothing(by: LowPassFilter, sizes: list[int], seed: int) -> None:
    """Any split of the input into messages gives the same output.

    Every `by.down` input samples give `by.up` output samples. An incomplete block at the end gives none yet.
    """
    samples = np.random.default_rng(seed).integers(-20000, 20000, sum(sizes)).astype("<i2")
    whole = Resampler(by)(samples.tobytes())
    stream, parts, at = Resampler(by), b"", 0
    for size in sizes:
        parts += stream(samples[at : at + size].tobytes())
        at += size
    assert parts == whole
    assert len(whole) // 2 == sum(sizes) // by.down * by.up


@every_filter
def test_an_impulse_arrives_after_the_filters_delay(by: LowPassFilter) -> None:
    """An impulse comes out of the resampler `delay_s` after it went in, and `delay_s` is below 2 ms."""
    at = by.rate // 20
    pcm = np.zeros(by.rate // 10, "<i2")
    pcm[at] = 20000
    peak = int(np.abs(np.frombuffer(Resampler(by)(pcm.tobytes()), "<i2").astype(int)).argmax())
    out = by.rate * by.up / by.down
    assert peak / out - at / by.rate == pytest.approx(by.delay_s, abs=1 / out)
    assert by.delay_s < 0.002
