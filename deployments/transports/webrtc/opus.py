"""Opus encoder and decoder of a call, by FFmpeg's libopus (PyAV).

The encoder gets the voice at its own rate of 24 kHz: Opus codes any rate, and RTP counts time at 48 kHz whatever the
rate. So nothing is resampled on the way out. The decoder gives 48 kHz.
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext

from rejoinder.core.audio.output_buffer import FRAME_SAMPLES
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.audio.resample import OPUS_RATE

_TIME_BASE = Fraction(1, WIRE_RATE)


class OpusEncoder:
    """Encoder of mono speech in frames of 20 ms. Not thread-safe."""

    def __init__(self, bitrate: int, *, fec: bool, expected_loss: float) -> None:
        """Create an encoder.

        Args:
            bitrate: Average bits per second.
            fec: True to add a coarse copy of each packet to the next one.
            expected_loss: Share of packets that are expected to be lost, 0 to 1. FEC gets bits according to it.
        """
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.bit_rate = bitrate
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = WIRE_RATE
        codec.time_base = _TIME_BASE
        loss = str(round(expected_loss * 100)) if fec else "0"
        codec.options = {"application": "voip", "frame_duration": "20", "fec": str(int(fec)), "packet_loss": loss}
        codec.open()
        self._codec = codec
        self._at = 0

    def encode(self, pcm: bytes) -> bytes:
        """Return the packet of 20 ms of 16-bit PCM at 24 kHz."""
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(pcm)
        frame.sample_rate = WIRE_RATE
        frame.time_base = _TIME_BASE
        frame.pts = self._at
        self._at += FRAME_SAMPLES
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class OpusDecoder:
    """Decoder of packets of any Opus stream to mono. Not thread-safe."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, AudioCodecContext)
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = OPUS_RATE
        self._codec = codec

    def decode(self, packet: bytes) -> bytes:
        """Return the audio of a packet as 16-bit PCM at 48 kHz; nothing if the packet is damaged or empty."""
        if not packet:
            return b""
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError:
            return b""
        return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)
