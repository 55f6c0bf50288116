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
_FRAME, _HOP, _FFT = 640, 320, 1024  # 40 ms frames every 20 ms. The FFT is as long as a frame and the longest period.
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
        pitch_fall: Fall of the pitch in semitones: the median before the last 150 ms of voiced sound minus the median
            in them. Negative if the pitch rises.
        last_voiced_s: Length in seconds of the last voiced sound.
        level_fall_db: Fall of the level in dB from the voiced sound before to the last 150 ms of voiced sound.
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
    """Return the length of the last run of successive numbers."""
    breaks = np.flatnonzero(np.diff(where) > 1)
    return int(where.size - (breaks[-1] + 1 if breaks.size else 0))


def _pitches(frames: Floats) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Return each frame's pitch in Hz, whether it is voiced, and its level in dB."""
    centred = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_FRAME)
    spectrum = np.fft.rfft(centred, _FFT)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, _FFT)
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(_FRAME), _FFT)) ** 2, _FFT)
    energy = np.maximum(correlation[:, :1], 1e-12)
    shortest, longest = round(STT_RATE / _HIGHEST_HZ), round(STT_RATE / _LOWEST_HZ)
    # The window lowers the correlation of long periods; dividing by its own correlation restores it.
    normalized = correlation[:, shortest:longest] / energy / (window[shortest:longest] / window[0])
    # A multiple of the period correlates as well as the period itself, so the first of the high peaks is the period.
    inner, highest = normalized[:, 1:-1], normalized.max(axis=1, keepdims=True)
    peaks = (inner >= normalized[:, :-2]) & (inner >= normalized[:, 2:]) & (inner >= _PEAK * highest)
    lags = np.where(peaks.any(axis=1), peaks.argmax(axis=1) + 1, normalized.argmax(axis=1))
    level_db = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))
    voiced = (normalized.max(axis=1) >= _VOICED) & (level_db > level_db.max() - _QUIET_DB)
    return STT_RATE / (lags + shortest).astype(np.float64), voiced, level_db
