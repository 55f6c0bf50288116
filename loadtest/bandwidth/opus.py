"""Opus encoding through libopus, with discontinuous transmission (DTX).

The module calls libopus directly. PyAV ships libopus, but FFmpeg's wrapper ignores the DTX option (measured).
The copy inside PyAV is used first, because constraints.txt fixes its version. The system's copy is the fallback.
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

from loadtest.bandwidth.speech import SAMPLE_RATE, Pcm
from rejoinder.core.errors import BackendError, ConfigError

FRAME_MS = (20, 40, 60)
MAX_PACKET = 4000
# Maximum length in bytes of a packet that DTX need not send: the frame is silent (RFC 7587, section 3.1.3).
SILENT_BYTES = 2
_VOIP = 2048
_SET_BITRATE, _SET_VBR, _SET_DTX = 4002, 4006, 4016


@dataclass(frozen=True, slots=True)
class OpusSettings:
    """Encoder settings of one Opus stream.

    Attributes:
        kbps: Target bit rate in kilobits per second. The rate varies around the target unless `constant` is set.
        frame_ms: Frame length in milliseconds, one of `FRAME_MS`.
        channels: 1 (mono) or 2 (stereo).
        dtx: True to send nothing while the input is silent, except frames that refresh the background noise.
        constant: True to encode every frame at exactly `kbps`.
    """

    kbps: float
    frame_ms: int = 20
    channels: int = 1
    dtx: bool = False
    constant: bool = False

    @property
    def name(self) -> str:
        """Label in tables, such as `Opus 24k, 20 ms, DTX`."""
        parts = [f"Opus {self.kbps:g}k", f"{self.frame_ms} ms"]
        parts += ["stereo"] if self.channels == 2 else []
        parts += ["constant"] if self.constant else []
        return ", ".join([*parts, *(["DTX"] if self.dtx else [])])


def encode(pcm: Pcm, settings: OpusSettings) -> list[bytes]:
    """Encode 48 kHz mono audio and return one packet per whole frame.

    A packet is b"" where the encoder has nothing to send. A stereo stream carries the voice on both channels, the
    second one 0.3 ms later, like two microphones.

    Raises:
        ConfigError: libopus is not installed.
        BackendError: libopus reported an error.
    """
    size = SAMPLE_RATE * settings.frame_ms // 1000
    second = np.roll(pcm, round(0.0003 * SAMPLE_RATE))
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
    """Return libopus's version string."""
    library = _library()
    library.opus_get_version_string.restype = ctypes.c_char_p
    text: bytes = library.opus_get_version_string()
    return text.decode()


@contextmanager
def _encoder(settings: OpusSettings) -> Iterator[ctypes.c_void_p]:
    library, error = _library(), ctypes.c_int()
    address = library.opus_encoder_create(SAMPLE_RATE, settings.channels, _VOIP, ctypes.byref(error))
    _check(error.value)
    encoder = ctypes.c_void_p(address)
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
        raise ConfigError("libopus was not found.", "Run `pip install -e '.[load]'` in the checkout.", field="opus")
    library = ctypes.CDLL(found[0])
    library.opus_encoder_create.restype = ctypes.c_void_p
    return library


def _check(code: int) -> None:
    if code < 0:
        raise BackendError(f"libopus returned error {code}.", stage="bandwidth")
