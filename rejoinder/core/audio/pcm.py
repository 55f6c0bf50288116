"""Audio as numbers: PCM bytes, a bounded memory of the stream, and where sound starts and ends.

Everything is mono. At boundaries audio is `bytes` (signed 16-bit little-endian PCM); inside a computation it is a
float32 array in [-1, 1). A position in a stream is the absolute index of a sample since the stream began, never an
offset into some buffer: an index stays true when old audio is forgotten, when messages are split or merged, and
when it is written down in an event. `AudioRing` is the memory addressed that way.

The audible edges are for measuring only ("when did the caller stop", "when did the reply start"), at the caller's
end and on files. They are an energy gate: cut the signal into short frames, and a frame counts as sound when its
root mean square reaches a threshold. The answer is exact to one frame.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

STT_RATE = 16_000
"""Samples a second inside the system: what Silero, Smart Turn and Whisper take."""

WIRE_RATE = 24_000
"""Samples a second on the wire: OpenAI Realtime's only PCM rate."""

TELEPHONE_RATE = 8_000
"""Samples a second of G.711, the wire's other formats."""

VAD_WINDOW = 512
"""Samples of one voice-activity window at STT_RATE (32 ms): the only size Silero accepts at 16 kHz."""

SAMPLE_BYTES = 2

AUDIBLE_DBFS = -45.0
"""Sound starts here: above the noise floor of a quiet room (-60) and of synthesis, below soft speech (-35)."""

AUDIBLE_FRAME_MS = 5.0
"""Shorter than any stage we measure, and one period of 200 Hz: a deeper voice still shows half a period's energy."""

Samples = npt.NDArray[np.float32]

_PCM = np.dtype("<i2")
_FULL_SCALE = 32_768


def pcm16_to_float(pcm: bytes) -> Samples:
    """Samples of `pcm` in [-1, 1); raises ValueError if half a sample is left over."""
    return np.frombuffer(pcm, dtype=_PCM).astype(np.float32) / np.float32(_FULL_SCALE)


def float_to_pcm16(samples: npt.ArrayLike) -> bytes:
    """The nearest PCM; what lies outside [-1, 1) is clipped."""
    scaled = np.rint(np.asarray(samples, dtype=np.float64) * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(_PCM).tobytes()


class AudioRing:
    """The last `seconds` of a stream, addressed by absolute sample index; older audio is forgotten.

    A frame costs one copy, since every caller pays it fifty times a second. All memory is taken at once: what a host
    needs is known when it admits a call, not minutes later when its callers have spoken enough.
    """

    __slots__ = ("_capacity", "_memory", "end")

    def __init__(self, seconds: float, rate: int) -> None:
        self._capacity = math.ceil(seconds * rate)
        # A bytearray writes its zeros; numpy's would be the system's own untouched pages.
        self._memory = memoryview(bytearray(self._capacity * SAMPLE_BYTES))
        self.end = 0
        """Index after the newest sample: how many samples the stream has had."""

    @property
    def start(self) -> int:
        """Index of the oldest sample still kept."""
        return max(0, self.end - self._capacity)

    def append(self, pcm: bytes) -> None:
        """Add audio of any length; raises ValueError if half a sample is left over."""
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
        """Store the newest bytes of a message that reaches beyond the memory's end."""
        at = (self.end * SAMPLE_BYTES - len(kept)) % len(self._memory)
        head = min(len(kept), len(self._memory) - at)
        self._memory[at : at + head] = kept[:head]
        self._memory[: len(kept) - head] = kept[head:]

    def slice(self, start: int, end: int) -> bytes:
        """PCM of [start, end), clamped to what is kept: shorter, possibly empty, if some of it is gone or to come."""
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
    """Level of `pcm` against full scale in dB (0 is a full-scale square wave); -inf for digital silence or nothing."""
    samples = pcm16_to_float(pcm)
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def first_audible(
    samples: Samples, rate: int, threshold_dbfs: float = AUDIBLE_DBFS, frame_ms: float = AUDIBLE_FRAME_MS
) -> int | None:
    """Index of the first sample of the first frame that sounds; None if none does."""
    frame = _frame(rate, frame_ms)
    loud = np.flatnonzero(_sounds(samples, frame, threshold_dbfs))
    return int(loud[0]) * frame if loud.size else None


def last_audible(
    samples: Samples, rate: int, threshold_dbfs: float = AUDIBLE_DBFS, frame_ms: float = AUDIBLE_FRAME_MS
) -> int | None:
    """Index after the last sample of the last frame that sounds; None if none does."""
    frame = _frame(rate, frame_ms)
    loud = np.flatnonzero(_sounds(samples, frame, threshold_dbfs))
    return min((int(loud[-1]) + 1) * frame, samples.size) if loud.size else None


def _frame(rate: int, frame_ms: float) -> int:
    return max(1, round(rate * frame_ms / 1000))


def _sounds(samples: Samples, frame: int, threshold_dbfs: float) -> npt.NDArray[np.bool_]:
    """Which frames reach the threshold; a short last frame is judged by the samples it has."""
    if not samples.size:
        return np.zeros(0, dtype=np.bool_)
    starts = np.arange(0, samples.size, frame)
    power = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    sizes = np.diff(np.append(starts, samples.size))
    loud: npt.NDArray[np.bool_] = power / sizes >= 10 ** (threshold_dbfs / 10)
    return loud
