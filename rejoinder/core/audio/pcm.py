"""PCM audio: conversion, a ring buffer for a stream, level, and where sound starts and ends.

All audio is mono. At interfaces it is `bytes` of signed 16-bit little-endian PCM. In computations it is a float32 array
in [-1, 1). A position in a stream is the index of a sample since the start of the stream, and not an offset into a
buffer. Such an index stays valid when old audio is dropped, when messages are split or merged, and when it is stored in
an event. `AudioRing` is addressed this way.

`first_audible` and `last_audible` find where sound starts and ends, for example in a reply or in a caller's clip. They
compare levels: a short frame counts as sound if its root mean square reaches a threshold. They are exact to one frame.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

STT_RATE = 16_000
"""Sample rate of Silero, Smart Turn and Whisper, in Hz. It is the rate inside the system."""

WIRE_RATE = 24_000
"""Sample rate of PCM on the wire, in Hz: the only one of OpenAI Realtime."""

TELEPHONE_RATE = 8_000
"""Sample rate of G.711, in Hz: the other formats on the wire."""

VAD_WINDOW = 512
"""Samples in one window of voice activity detection at STT_RATE (32 ms). Silero accepts no other size at 16 kHz."""

SAMPLE_BYTES = 2
"""Bytes of a sample of 16-bit PCM."""

AUDIBLE_DBFS = -45.0
"""Minimum level in dBFS of a frame that counts as sound: above the noise of a quiet room (-60), below quiet speech
(-35)."""

AUDIBLE_FRAME_MS = 5.0
"""Default length of a frame in milliseconds. It is shorter than any measured stage, and contains at least half a period
of a voice from 100 Hz."""

Samples = npt.NDArray[np.float32]

_PCM = np.dtype("<i2")
_FULL_SCALE = 32_768


def pcm16_to_float(pcm: bytes) -> Samples:
    """Return the samples of 16-bit PCM, in [-1, 1).

    Raises:
        ValueError: The number of bytes is odd.
    """
    return np.frombuffer(pcm, dtype=_PCM).astype(np.float32) / np.float32(_FULL_SCALE)


def float_to_pcm16(samples: npt.ArrayLike) -> bytes:
    """Return samples as 16-bit PCM, rounded to the nearest step and clipped to [-1, 1)."""
    scaled = np.rint(np.asarray(samples, dtype=np.float64) * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(_PCM).tobytes()


class AudioRing:
    """Ring buffer of the last `seconds` of a stream of `rate` samples per second, addressed by absolute sample index.

    Each call receives fifty messages a second, so `append` is cheap: it only copies bytes. All memory is allocated when
    the ring is created, so a call's memory does not grow after the call is admitted, unless `resize` is called.
    """

    __slots__ = ("_capacity", "_memory", "_oldest", "end")

    def __init__(self, seconds: float, rate: int) -> None:
        self._capacity = math.ceil(seconds * rate)
        # A bytearray writes its zeros, so the operating system allocates the memory now. With numpy.zeros it would
        # allocate it on first use, during the call.
        self._memory = memoryview(bytearray(self._capacity * SAMPLE_BYTES))
        # Index of the oldest sample after the last `resize`. A later, larger buffer does not bring back older samples.
        self._oldest = 0
        self.end = 0
        """Index after the newest sample, which is the number of samples appended so far."""

    @property
    def start(self) -> int:
        """Index, since the start of the stream, of the oldest sample in the buffer."""
        return max(self._oldest, self.end - self._capacity)

    @property
    def capacity(self) -> int:
        """Number of samples that fit into the buffer."""
        return self._capacity

    def resize(self, capacity: int) -> None:
        """Change the number of samples that fit into the buffer. The newest samples are kept, as many as fit."""
        kept = self.slice(max(self.start, self.end - capacity), self.end)
        self._oldest = self.end - len(kept) // SAMPLE_BYTES
        self._capacity = capacity
        self._memory = memoryview(bytearray(capacity * SAMPLE_BYTES))
        self._wrap(kept)

    def append(self, pcm: bytes) -> None:
        """Add 16-bit PCM of any length.

        Raises:
            ValueError: The number of bytes is odd.
        """
        size = len(pcm)
        if size % SAMPLE_BYTES:
            raise ValueError(f"buffer of {size} bytes holds half a sample")
        at = self.end % self._capacity * SAMPLE_BYTES
        self.end += size // SAMPLE_BYTES
        if at + size <= len(self._memory):
            self._memory[at : at + size] = pcm
        else:
            self._wrap(pcm[-len(self._memory) :])

    def _wrap(self, kept: bytes) -> None:
        """Store a message that wraps around: one part at the end of the memory, the rest at its beginning.

        Args:
            kept: The message, or only its newest bytes if it is longer than the memory.
        """
        at = (self.end * SAMPLE_BYTES - len(kept)) % len(self._memory)
        head = min(len(kept), len(self._memory) - at)
        self._memory[at : at + head] = kept[:head]
        self._memory[: len(kept) - head] = kept[head:]

    def slice(self, start: int, end: int) -> bytes:
        """Return the PCM of samples [start, end), limited to what is in the buffer.

        The result is shorter, or empty, if some of the samples were dropped or have not been received.
        """
        start, end = max(start, self.start), min(end, self.end)
        if start >= end:
            return b""
        at = start % self._capacity * SAMPLE_BYTES
        size = (end - start) * SAMPLE_BYTES
        head = min(size, len(self._memory) - at)
        if head == size:
            return bytes(self._memory[at : at + size])
        return bytes(self._memory[at:]) + bytes(self._memory[: size - head])


def rms_dbfs(pcm: bytes) -> float:
    """Return the level of 16-bit PCM in dB relative to a full-scale square wave, or -inf for silence or no audio."""
    samples = pcm16_to_float(pcm)
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def first_audible(
    samples: Samples, rate: int, threshold_dbfs: float = AUDIBLE_DBFS, frame_ms: float = AUDIBLE_FRAME_MS
) -> int | None:
    """Return the index of the first sample of the first frame of sound, or None if there is none.

    Args:
        samples: The audio.
        rate: Its sample rate in Hz.
        threshold_dbfs: Level of a frame that counts as sound.
        frame_ms: Length of a frame in milliseconds.
    """
    frame = _frame(rate, frame_ms)
    loud = np.flatnonzero(_sounds(samples, frame, threshold_dbfs))
    return int(loud[0]) * frame if loud.size else None


def last_audible(
    samples: Samples, rate: int, threshold_dbfs: float = AUDIBLE_DBFS, frame_ms: float = AUDIBLE_FRAME_MS
) -> int | None:
    """Return the index after the last sample of the last frame of sound, or None if there is none.

    Args:
        samples: The audio.
        rate: Its sample rate in Hz.
        threshold_dbfs: Level of a frame that counts as sound.
        frame_ms: Length of a frame in milliseconds.
    """
    frame = _frame(rate, frame_ms)
    loud = np.flatnonzero(_sounds(samples, frame, threshold_dbfs))
    return min((int(loud[-1]) + 1) * frame, samples.size) if loud.size else None


def _frame(rate: int, frame_ms: float) -> int:
    return max(1, round(rate * frame_ms / 1000))


def _sounds(samples: Samples, frame: int, threshold_dbfs: float) -> npt.NDArray[np.bool_]:
    """Return one boolean per frame of `frame` samples: True if the frame's level reaches `threshold_dbfs`.

    The last frame may be shorter. Without samples the result is empty.
    """
    if not samples.size:
        return np.zeros(0, dtype=np.bool_)
    starts = np.arange(0, samples.size, frame)
    power = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    sizes = np.diff(np.append(starts, samples.size))
    loud: npt.NDArray[np.bool_] = power / sizes >= 10 ** (threshold_dbfs / 10)
    return loud
