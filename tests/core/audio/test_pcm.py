"""Tests of PCM conversion, the ring buffer, levels in dB, and the first and last audible sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import (
    SAMPLE_BYTES,
    AudioRing,
    Samples,
    first_audible,
    float_to_pcm16,
    last_audible,
    pcm16_to_float,
    rms_dbfs,
)

RATE = 16_000
pcm = st.lists(st.integers(-32_768, 32_767), max_size=60).map(lambda values: np.array(values, "<i2").tobytes())


def tone(start: int, end: int, size: int, level_dbfs: float = -20.0) -> Samples:
    """Return a 440 Hz sine in [start, end) of `size` samples, with silence elsewhere."""
    samples = np.zeros(size, dtype=np.float32)
    peak = math.sqrt(2) * 10 ** (level_dbfs / 20)
    samples[start:end] = peak * np.sin(2 * math.pi * 440 * np.arange(end - start) / RATE)
    return samples


@given(pcm)
def test_pcm_survives_the_round_trip(audio: bytes) -> None:
    """Every PCM value is unchanged after conversion to float in [-1, 1) and back."""
    samples = pcm16_to_float(audio)
    assert float_to_pcm16(samples) == audio
    assert samples.dtype == np.float32
    assert np.all((samples >= -1) & (samples < 1))


def test_floats_are_rounded_and_clipped() -> None:
    """Floats are rounded to the nearest 16-bit value; values beyond [-1, 1) are clipped and do not wrap around."""
    assert np.frombuffer(float_to_pcm16([2.0, -2.0, 0.6 / 32_768, -0.6 / 32_768]), "<i2").tolist() == [
        32_767,
        -32_768,
        1,
        -1,
    ]


def test_half_a_sample_is_refused() -> None:
    """An odd number of bytes is not whole 16-bit samples and raises an error."""
    with pytest.raises(ValueError, match="buffer"):
        pcm16_to_float(b"\0\0\0")
    with pytest.raises(ValueError, match="buffer"):
        AudioRing(1, RATE).append(b"\0")


@given(st.lists(pcm, max_size=12), st.integers(1, 50), st.integers(-10, 800), st.integers(-10, 800))
def test_ring_holds_the_newest_audio_by_absolute_index(
    messages: list[bytes], capacity: int, start: int, end: int
) -> None:
    """`slice(start, end)` returns the part of these absolute sample positions that the ring buffer still has.

    The buffer has the newest `capacity` samples of the stream, for any split of the stream into messages.
    """
    ring = AudioRing(capacity / RATE, RATE)
    for message in messages:
        ring.append(message)
    stream = b"".join(messages)
    assert ring.end == len(stream) // SAMPLE_BYTES
    assert ring.end - ring.start == min(ring.end, capacity)
    low, high = max(start, ring.start), min(end, ring.end)
    assert ring.slice(start, end) == stream[low * SAMPLE_BYTES : max(low, high) * SAMPLE_BYTES]


def test_level_is_measured_against_full_scale() -> None:
    """A full-scale square wave has 0 dBFS, a sine of -20 dB has -20 dBFS, and silence or no audio has -inf."""
    square = np.tile(np.array([32_767, -32_768], "<i2"), 500).tobytes()
    assert rms_dbfs(square) == pytest.approx(0, abs=0.01)
    assert rms_dbfs(float_to_pcm16(tone(0, RATE, RATE))) == pytest.approx(-20, abs=0.01)
    assert rms_dbfs(bytes(64)) == rms_dbfs(b"") == -math.inf


@given(st.integers(0, 8000), st.integers(400, 8000))
def test_audible_edges_are_exact_to_one_frame(start: int, length: int) -> None:
    """The first and the last audible sample of a tone are found to within 5 ms (80 samples)."""
    sound = tone(start, start + length, start + length + 4000)
    first, last = first_audible(sound, RATE), last_audible(sound, RATE)
    assert first is not None
    assert last is not None
    assert abs(first - start) <= 80
    assert abs(last - (start + length)) <= 80


def test_sound_up_to_the_very_end_ends_at_the_end() -> None:
    """A last frame shorter than 5 ms is judged by its own samples, so a tone up to the end ends at the last sample."""
    assert last_audible(tone(0, 1030, 1030), RATE) == 1030


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(999, np.float32), tone(0, 999, 999, -60)])
def test_silence_has_no_edges(samples: Samples) -> None:
    """No audio, digital silence and sound of -60 dBFS have no first and no last audible sample."""
    assert first_audible(samples, RATE) is None
    assert last_audible(samples, RATE) is None
