"""Prosody at the end of speech: fall of the pitch, length of the last voiced sound, and fall of the level.

In many languages the pitch falls and the last syllable is longer at the end of a statement. Both are weak evidence, but
cost about a millisecond. The pitch comes from the autocorrelation of short frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import STT_RATE, Samples

Floats = npt.NDArray[np.floating]

TAIL_S = 1.2
"""Seconds of speech before its end that are used."""
_FRAME, _HOP, _FFT = 640, 320, 1024  # Samples at 16 kHz: 40 ms frames every 20 ms. 1,024 > 640 + the longest period.
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 400.0
_VOICED = 0.45
"""Normalized autocorrelation from which a frame counts as voiced."""
_PEAK = 0.9
"""Share of the highest correlation that a peak must reach to be the period."""
_QUIET_DB = 30.0
"""Frames this much quieter than the loudest one are not voiced."""
_LAST_FRAMES = 8
_MIN_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Prosody:
    """Prosody at the end of speech.

    Attributes:
        pitch_fall: Fall of the pitch in semitones, from the median of the earlier voiced frames to the median of the
            last eight voiced frames (about 160 ms). Negative if the pitch rises.
        last_voiced_s: Length in seconds of the last uninterrupted voiced sound.
        level_fall_db: Fall of the level in dB between the same two groups of frames.
    """

    pitch_fall: float
    last_voiced_s: float
    level_fall_db: float


def prosody_of(speech: Samples) -> Prosody | None:
    """Return the prosody at the end of speech; None if there is too little voiced sound.

    Args:
        speech: Samples at 16 kHz in [-1, 1], which end where the speech ends. The last TAIL_S seconds are used.
    """
    tail = speech[-round(TAIL_S * STT_RATE) :]
    if tail.size < _FRAME:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(tail, _FRAME)[::_HOP]
    pitches, voiced, level_db = _pitches(frames)
    where = np.flatnonzero(voiced)
    if where.size < 2 * _MIN_FRAMES:
        return None
    last, before = where[-_LAST_FRAMES:], where[:-_LAST_FRAMES]
    if before.size < _MIN_FRAMES:
        before = where[: where.size // 2]
    fall = 12 * float(np.log2(np.median(pitches[before]) / np.median(pitches[last])))
    level_fall = float(np.median(level_db[before]) - np.median(level_db[last]))
    return Prosody(float(np.clip(fall, -12, 12)), _run(where) * _HOP / STT_RATE, level_fall)


def _run(where: npt.NDArray[np.int64]) -> int:
    """Return the number of successive integers at the end of `where`, which is an array of indices in rising order."""
    breaks = np.flatnonzero(np.diff(where) > 1)
    return int(where.size - (breaks[-1] + 1 if breaks.size else 0))


def _pitches(frames: Floats) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Return three arrays with one value per frame: pitch in Hz, whether the frame is voiced, and level in dB."""
    centred = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_FRAME)
    spectrum = np.fft.rfft(centred, _FFT)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, _FFT)
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(_FRAME), _FFT)) ** 2, _FFT)
    energy = np.maximum(correlation[:, :1], 1e-12)
    shortest, longest = round(STT_RATE / _HIGHEST_HZ), round(STT_RATE / _LOWEST_HZ)
    # The Hann window lowers the correlation at long periods. Division by the window's own correlation corrects this.
    normalized = correlation[:, shortest:longest] / energy / (window[shortest:longest] / window[0])
    # A multiple of the period correlates as well as the period itself, so the shortest period with a high peak counts.
    inner, highest = normalized[:, 1:-1], normalized.max(axis=1, keepdims=True)
    peaks = (inner >= normalized[:, :-2]) & (inner >= normalized[:, 2:]) & (inner >= _PEAK * highest)
    lags = np.where(peaks.any(axis=1), peaks.argmax(axis=1) + 1, normalized.argmax(axis=1))
    level_db = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))
    voiced = (normalized.max(axis=1) >= _VOICED) & (level_db > level_db.max() - _QUIET_DB)
    return STT_RATE / (lags + shortest).astype(np.float64), voiced, level_db
