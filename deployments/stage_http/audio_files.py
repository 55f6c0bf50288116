"""Encoding of speech while it is synthesized: PCM, WAV, FLAC, Ogg Opus and MP3."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.http_api.speech import SpeechFormat

_CODECS = {"flac": ("flac", "flac"), "opus": ("ogg", "libopus"), "mp3": ("mp3", "libmp3lame")}
"""Container and codec of each compressed format."""
_OPUS_RATE = 48_000
_BITS_PER_S = 48_000
"""Bit rate of Opus and MP3: speech at 24 kHz sounds no better above it."""
_UNKNOWN = 0xFFFFFFFF
"""Length in the header of a WAV file that is still being written."""


class _Pages(io.RawIOBase):
    """File that an encoder writes to, from which the written bytes are taken. It cannot be rewound."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]  # PyAV passes a buffer
        self._written.append(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return the bytes that were written since the last call."""
        taken = b"".join(self._written)
        self._written.clear()
        return taken


class _Compressed:
    """Encoder of a compressed format. Its output has no length in its header, because it is sent while it is made."""

    def __init__(self, encoding: SpeechFormat) -> None:
        container, codec = _CODECS[encoding]
        self._pages = _Pages()
        # A page of Ogg is sent after 100 ms instead of a second; MP3 has no header with the length of the file.
        options = {"opus": {"page_duration": "100000"}, "mp3": {"write_xing": "0"}}.get(encoding, {})
        self._container = av.open(self._pages, "w", format=container, options=options)
        rate = _OPUS_RATE if encoding == "opus" else WIRE_RATE
        stream = self._container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        self._stream = stream
        stream.bit_rate = _BITS_PER_S
        self._resampler = AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size
        )
        self._position = 0

    def push(self, pcm: bytes) -> bytes:
        """Encode audio, and return the bytes of the audio file that are complete; empty if none are yet."""
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        if samples.size:
            frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = WIRE_RATE, self._position
            self._position += samples.size
            self._encode(frame)
        return self._pages.take()

    def finish(self) -> bytes:
        """Return the last bytes of the file."""
        self._encode(None)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._pages.take()

    def _encode(self, frame: AudioFrame | None) -> None:
        for converted in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(converted))


class SpeechEncoder:
    """Encoder of one text's speech from 16-bit PCM at 24 kHz. Call `push` for each piece, then `finish`.

    It is fast enough for the event loop: a second of audio takes about 1 ms.
    """

    def __init__(self, encoding: SpeechFormat) -> None:
        """Create an encoder of one format."""
        self._compressed = _Compressed(encoding) if encoding in _CODECS else None
        self._header = _wav_header() if encoding == "wav" else b""
        self._half = b""
        self.samples = 0
        """Number of samples so far."""

    @property
    def _push(self) -> Callable[[bytes], bytes]:
        return self._compressed.push if self._compressed else bytes

    def push(self, pcm: bytes) -> bytes:
        """Encode audio, and return the bytes of the audio file that are complete; empty if none are yet."""
        whole = self._half + pcm
        cut = len(whole) // SAMPLE_BYTES * SAMPLE_BYTES
        self._half = whole[cut:]
        self.samples += cut // SAMPLE_BYTES
        header, self._header = self._header, b""
        return header + self._push(whole[:cut])

    def finish(self) -> bytes:
        """Return the last bytes of the file."""
        return self._compressed.finish() if self._compressed else self._header


def _wav_header() -> bytes:
    """Return the header of a WAV file of unknown length: 16-bit mono PCM at 24 kHz."""
    form = struct.pack("<HHIIHH", 1, 1, WIRE_RATE, WIRE_RATE * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    return (
        b"RIFF"
        + struct.pack("<I", _UNKNOWN)
        + b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", _UNKNOWN)
    )
