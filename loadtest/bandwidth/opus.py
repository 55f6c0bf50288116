"""Opus as libopus encodes it, discontinuous transmission included.

PyAV brings libopus, but FFmpeg's wrapper has no switch for DTX (its encoder ignores the option, measured), so the
library is called directly: PyAV's own copy, whose version constraints.txt fixes, else the system's.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

from loadtest.bandwidth.speech import READING_RATE, Pcm
from rejoinder.core.errors import BackendError, ConfigError

FRAME_MS = (20, 40, 60)
MAX_PACKET = 4000
# A frame of at most two bytes says "nothing changed": RFC 7587, section 3.1.3, need not be sent.
SILENT_BYTES = 2
_VOIP = 2048
_SET_BITRATE, _SET_VBR, _SET_DTX = 4002, 4006, 4016


@dataclass(frozen=True, slots=True)
class OpusSettings:
    """How a stream is encoded; `constant` sends every frame at exactly the rate."""

    kbps: float
    frame_ms: int = 20
    channels: int = 1
    dtx: bool = False
    constant: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        parts = [f"Opus {self.kbps:g}k", f"{self.frame_ms} ms"]
        parts += ["stereo"] if self.channels == 2 else []
        parts += ["constant"] if self.constant else []
        return ", ".join([*parts, *(["DTX"] if self.dtx else [])])


def encode(pcm: Pcm, settings: OpusSettings) -> list[bytes]:
    """One packet a frame of 48 kHz mono; b"" where the encoder has nothing to send. A stereo stream has the voice on
    both sides, the second one 0.3 ms later, as two microphones would.
    """
    size = READING_RATE * settings.frame_ms // 1000
    second = np.roll(pcm, round(0.0003 * READING_RATE))
    audio = pcm if settings.channels == 1 else np.stack([pcm, second], axis=1).reshape(-1)
    step = size * settings.channels
    buffer = ctypes.create_string_buffer(MAX_PACKET)
    packets = []
    with _encoder(settings) as encoder:
        for start in range(0, audio.size - step + 1, step):
            frame = audio[start : start + step].tobytes()
            length = _library().opus_encode(encoder, frame, size, buffer, MAX_PACKET)
            _check(length)
            packets.append(buffer.raw[:length] if length > SILENT_BYTES else b"")
    return packets


def version() -> str:
    """The library's own."""
    library = _library()
    library.opus_get_version_string.restype = ctypes.c_char_p
    text: bytes = library.opus_get_version_string()
    return text.decode()


@contextmanager
def _encoder(settings: OpusSettings) -> Iterator[ctypes.c_void_p]:
    library, error = _library(), ctypes.c_int()
    made = library.opus_encoder_create(READING_RATE, settings.channels, _VOIP, ctypes.byref(error))
    _check(error.value)
    encoder = ctypes.c_void_p(made)
    try:
        _check(library.opus_encoder_ctl(encoder, _SET_BITRATE, ctypes.c_int(round(settings.kbps * 1000))))
        _check(library.opus_encoder_ctl(encoder, _SET_VBR, ctypes.c_int(not settings.constant)))
        _check(library.opus_encoder_ctl(encoder, _SET_DTX, ctypes.c_int(settings.dtx)))
        yield encoder
    finally:
        library.opus_encoder_destroy(encoder)


@cache
def _library() -> ctypes.CDLL:
    folder = Path(av.__file__).parents[1] / "av.libs"
    found = [name for name in (*map(str, folder.glob("libopus*")), ctypes.util.find_library("opus")) if name]
    if not found:
        raise ConfigError("no libopus.", "Run `pip install -e '.[load]'` in the checkout.", field="opus")
    library = ctypes.CDLL(found[0])
    library.opus_encoder_create.restype = ctypes.c_void_p
    return library


def _check(code: int) -> None:
    if code < 0:
        raise BackendError(f"libopus failed with {code}.", stage="bandwidth")
