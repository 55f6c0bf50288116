"""Tests of the prosody at the end of speech, with computed tones."""

from __future__ import annotations

import numpy as np
import pytest

from rejoinder.core.audio.pcm import STT_RATE, Samples
from rejoinder.core.audio.prosody import prosody_of


def tone(pitches_hz: list[float], seconds: float, levels: list[float] | None = None) -> Samples:
    """Return a tone with harmonics. Its pitch in Hz and its relative level change linearly between the given values."""
    count = round(seconds * STT_RATE)
    along = np.linspace(0, 1, count)
    pitch = np.interp(along, np.linspace(0, 1, len(pitches_hz)), pitches_hz)
    level = np.interp(along, np.linspace(0, 1, len(levels or [1.0])), levels or [1.0])
    phase = 2 * np.pi * np.cumsum(pitch) / STT_RATE
    return (0.2 * level * sum(np.sin(n * phase) / n for n in (1, 2, 3))).astype(np.float32)


@pytest.mark.parametrize("base_hz", [90.0, 130.0, 220.0])
def test_a_falling_pitch_is_found(base_hz: float) -> None:
    """A pitch that drops by four semitones at the end has a fall of over 1.5 semitones, for low and high voices.

    A constant pitch has a fall of about 0.
    """
    falling = prosody_of(np.concatenate([tone([base_hz], 0.8), tone([base_hz, base_hz / 1.26], 0.25)]))
    level = prosody_of(tone([base_hz], 1.0))
    assert falling is not None
    assert level is not None
    assert falling.pitch_fall > 1.5
    assert level.pitch_fall == pytest.approx(0, abs=0.3)


def test_a_rising_pitch_is_negative() -> None:
    """A pitch that rises at the end is reported as a negative fall, here below -1.5 semitones."""
    rising = prosody_of(np.concatenate([tone([120.0], 0.8), tone([120.0, 170.0], 0.25)]))
    assert rising is not None
    assert rising.pitch_fall < -1.5


def test_the_last_voiced_sound_is_measured() -> None:
    """`last_voiced_s` is the length of the last voiced sound to within 60 ms. Pauses of 100 ms surround that sound."""
    quiet = np.zeros(round(0.1 * STT_RATE), np.float32)
    found = prosody_of(np.concatenate([tone([120.0], 0.6), quiet, tone([120.0], 0.3), quiet]))
    assert found is not None
    assert found.last_voiced_s == pytest.approx(0.3, abs=0.06)


def test_a_fading_voice_falls_in_level() -> None:
    """A voice that fades by 20 dB at its end has a level fall of over 4 dB. Speech 26 dB quieter has the same fall."""
    fading = np.concatenate([tone([120.0], 0.8), tone([120.0], 0.2, [1.0, 0.1])])
    loud, soft = prosody_of(fading), prosody_of((fading / 20).astype(np.float32))
    assert loud is not None
    assert soft is not None
    assert loud.level_fall_db > 4
    assert soft.level_fall_db == pytest.approx(loud.level_fall_db, abs=0.1)


@pytest.mark.parametrize("speech", [np.zeros(16_000, np.float32), np.zeros(0, np.float32), tone([120.0], 0.1)])
def test_without_voiced_sound_there_is_no_prosody(speech: Samples) -> None:
    """`prosody_of` returns None for silence, for empty audio, and for only 0.1 s of voice."""
    assert prosody_of(speech) is None


def test_noise_has_no_prosody() -> None:
    """White noise has no pitch, so `prosody_of` returns None."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert prosody_of(noise) is None
