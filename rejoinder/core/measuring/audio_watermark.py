"""Audio watermarks: emulated answers whose text and sound identify the audio that they answer.

An emulated transcript contains the length of the caller's speech in seconds. That length in tenths of a second is the
mark. A marked answer repeats the length in every sentence. A marked voice plays each segment as a tone whose pitch
encodes the mark:

    "... transcript of 3.4 seconds"  ->  "Heard 3.4 seconds."  ->  a pure tone of BASE_HZ + 34 * STEP_HZ

Each revision of a turn is longer than the one before, so each sounds different. `read` splits the audio into windows of
10 ms and decodes each window separately. A sampled sine of angular frequency w obeys x[n+1] + x[n-1] = 2 cos(w) x[n].
The 240 samples of a window give w with an error far below STEP_HZ. Audio that is not the pure tone of a mark is read as
None.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE

BASE_HZ = 400
"""Frequency of mark 0, in Hz."""

STEP_HZ = 10
"""Distance between the tones of two consecutive marks, in Hz."""

MARKS = 400
"""Largest mark, in tenths of a second: 40 s. Its tone has 4.4 kHz."""

WINDOW = WIRE_RATE // 100
"""Number of samples in a window (10 ms at 24 kHz)."""

_OFF_GRID_HZ = 3.0
# Largest deviation of a 10 ms window from a sine, as a share of the window's level, that still counts as a pure tone.
# At -20 dBFS, rounding to 16 bits causes 0.0003. Two tones in a window, or a jump of phase, cause far more than 0.01.
_IMPURE = 0.01
_SECONDS = re.compile(r"\b(\d+)\.(\d) seconds")


def transcript(seconds: float, end: str = "") -> str:
    """Return the emulated transcript of audio of this length. It states the length, for example "3.4 seconds".

    Args:
        seconds: Length of the audio in seconds.
        end: Text to append, for example a full stop.
    """
    return f"This is an emulated transcript of {seconds:.1f} seconds{end}"


def answer(mark: int) -> tuple[str, ...]:
    """Return the words of one sentence of a marked answer: ("Heard", "3.4", "seconds.") for the mark 34.

    The mark is the length of the caller's speech in tenths of a second.
    """
    return ("Heard", f"{mark // 10}.{mark % 10}", "seconds.")


def marks_in(text: str) -> tuple[int, ...]:
    """Return the marks in a transcript or answer: (34,) for "3.4 seconds". Empty if the text contains none."""
    return tuple(int(whole) * 10 + int(tenth) for whole, tenth in _SECONDS.findall(text))


def tone(mark: int) -> npt.NDArray[np.float64]:
    """Return one second of the tone that encodes `mark`, at 24 kHz, with peak 1. It can be repeated without a click."""
    hertz = BASE_HZ + STEP_HZ * min(mark, MARKS)
    return np.sin(2 * np.pi * hertz * np.arange(WIRE_RATE) / WIRE_RATE)


def read(pcm: bytes) -> list[int | None]:
    """Return the mark of each 10 ms window of 24 kHz 16-bit PCM, or None for a window without one.

    The last window ends with the audio, and may overlap the one before it.
    """
    samples = np.frombuffer(pcm[: len(pcm) // SAMPLE_BYTES * SAMPLE_BYTES], dtype="<i2").astype(np.float64)
    if not samples.size:
        return []
    if samples.size < WINDOW:
        return [None]
    whole = samples[: samples.size // WINDOW * WINDOW].reshape(-1, WINDOW)
    rest = samples[np.newaxis, -WINDOW:] if samples.size % WINDOW else whole[:0]
    return [_mark(window) for window in np.concatenate([whole, rest])]


def _mark(window: npt.NDArray[np.float64]) -> int | None:
    inner, beside = window[1:-1], window[2:] + window[:-2]
    power = float(inner @ inner)
    if not power:
        return None
    twice_cosine = float(inner @ beside) / power
    impure = float(np.sqrt(np.square(beside - twice_cosine * inner).sum() / power))
    if impure > _IMPURE or abs(twice_cosine) > 2:
        return None
    hertz = float(np.arccos(twice_cosine / 2)) * WIRE_RATE / (2 * np.pi)
    mark = round((hertz - BASE_HZ) / STEP_HZ)
    on_grid = abs(hertz - BASE_HZ - mark * STEP_HZ) <= _OFF_GRID_HZ
    return mark if on_grid and 0 <= mark <= MARKS else None
