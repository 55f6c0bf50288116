"""What an emulated answer answers, named in its words and in its sound: a listener can tell from the audio alone.

An emulated transcript says how many seconds of speech it was made from. A marked answer says that number in every
sentence, and a marked voice speaks each segment at the pitch of the number in it:

    "... transcript of 3.4 seconds"  ->  "Heard 3.4 seconds."  ->  a pure tone of BASE_HZ + 34 * STEP_HZ

Speech that goes on makes the transcript longer, so no two revisions of a turn sound alike. The listener cuts the audio
into windows of 10 ms and reads each by itself: a sampled sine obeys x[n+1] + x[n-1] = 2 cos(w) x[n], which 240 samples
of 16 bits solve for w to far less than a step. What is no pure tone on the grid is read as None.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE

BASE_HZ = 400
STEP_HZ = 10
MARKS = 400
"""Up to 40 seconds in tenths, at most 4.4 kHz."""

WINDOW = WIRE_RATE // 100
"""Samples that are read at once."""

_OFF_GRID_HZ = 3.0
# Rounding to 16 bits leaves three ten-thousandths at -20 dBFS; two tones in one window, or a jump of phase, far more.
_IMPURE = 0.01
_SECONDS = re.compile(r"\b(\d+)\.(\d) seconds")


def transcript(seconds: float, end: str = "") -> str:
    """The emulated transcript of so much audio."""
    return f"This is an emulated transcript of {seconds:.1f} seconds{end}"


def answer(mark: int) -> tuple[str, ...]:
    """The words of one sentence that answers a transcript with this number; each sentence is a segment."""
    return ("Heard", f"{mark // 10}.{mark % 10}", "seconds.")


def marks_in(text: str) -> tuple[int, ...]:
    """The numbers that a transcript or an answer names, in tenths of a second."""
    return tuple(int(whole) * 10 + int(tenth) for whole, tenth in _SECONDS.findall(text))


def tone(mark: int) -> npt.NDArray[np.float64]:
    """One second of the mark's tone, peak 1; it joins itself without a click."""
    hertz = BASE_HZ + STEP_HZ * min(mark, MARKS)
    return np.sin(2 * np.pi * hertz * np.arange(WIRE_RATE) / WIRE_RATE)


def read(pcm: bytes) -> list[int | None]:
    """The mark of each window of 24 kHz PCM, None where there is none; the last window ends with the audio."""
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
