"""Opus streams have the number and size of packets that their settings define.

DTX (discontinuous transmission) leaves out silence only.
"""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.bandwidth.opus import OpusSettings, encode
from loadtest.bandwidth.speech import SAMPLE_RATE, Pcm

SECONDS = 4


def _voice(seconds: float = SECONDS) -> Pcm:
    """Return a signal that an encoder classifies as voice: harmonics of 140 Hz with a 4 Hz envelope."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    pcm: Pcm = (tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) * 6000).astype(np.int16)
    return pcm


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
def test_one_packet_a_frame(frame_ms: int) -> None:
    """Without DTX every frame has a packet, silent frames included."""
    pcm = np.concatenate([_voice(), np.zeros(SAMPLE_RATE * 2, np.int16)])
    packets = encode(pcm, OpusSettings(24, frame_ms))
    assert len(packets) == 6000 // frame_ms
    assert all(packets)


@pytest.mark.parametrize(("kbps", "size"), [(8, 20), (24, 60), (32, 80), (128, 320)])
def test_a_constant_rate_is_exact(kbps: float, size: int) -> None:
    """With a constant rate, every packet has exactly the size that follows from the rate and the frame length."""
    assert {len(packet) for packet in encode(_voice(), OpusSettings(kbps, constant=True))} == {size}


def test_a_variable_rate_is_near_its_target() -> None:
    """A higher target rate produces more bytes. The rate of speech differs from its target by at most a third."""
    rates = [sum(map(len, encode(_voice(), OpusSettings(kbps)))) * 8 / SECONDS / 1000 for kbps in (12, 24, 48)]
    assert rates == sorted(rates)
    for target, rate in zip((12, 24, 48), rates, strict=True):
        assert rate == pytest.approx(target, rel=1 / 3)


def test_dtx_sends_speech_and_hardly_any_silence() -> None:
    """DTX sends over 95% of speech frames and, from 400 ms after the speech, under 10% of silent frames."""
    pcm = np.concatenate([_voice(), np.zeros(SAMPLE_RATE * SECONDS, np.int16)])
    packets = encode(pcm, OpusSettings(24, dtx=True))
    frames = SECONDS * 50
    assert len(packets) == 2 * frames
    assert sum(map(bool, packets[:frames])) > 0.95 * frames
    assert sum(map(bool, packets[frames + 20 :])) < 0.1 * frames


def test_stereo_and_the_name() -> None:
    """A stereo stream with DTX has 50 packets per second of speech, one for each 20 ms frame.

    The settings' name states the rate and frame length, and also stereo and DTX, which are not the default.
    """
    settings = OpusSettings(64, 20, channels=2, dtx=True)
    assert len(encode(_voice(), settings)) == SECONDS * 50
    assert settings.name == "Opus 64k, 20 ms, stereo, DTX"
