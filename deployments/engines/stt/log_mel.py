"""Whisper's log-mel spectrogram in numpy, the input of Whisper and Smart Turn.

It is defined in the Whisper paper (section 2.2) and computed as in transformers' WhisperFeatureExtractor: centred
frames of 25 ms every 10 ms, a periodic Hann window, 80 mel bands (large-v3 and models made from it: 128) of Slaney's
scale with equal area, the decimal logarithm, clamped to 8 below the clip's maximum, then (x + 4) / 4. The float32
values differ from float64 ones by less than 1e-3.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import STT_RATE, Samples

HOP = 160
"""Samples between frames: 10 ms."""

MEL_BANDS = 80
"""Number of mel bands of Whisper tiny to large-v2, and of Smart Turn."""

_WINDOW = 400
_HALF_WINDOW = _WINDOW // 2
_POWER_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0

# Slaney's mel scale (Auditory Toolbox, 1998): 200/3 Hz per mel up to 1 kHz; above it, 27 mels multiply the frequency
# by 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27

Features = npt.NDArray[np.float32]


def log_mel(audio: Samples, frames: int, constant: int = 0, bands: int = MEL_BANDS) -> Features:
    """Return the features of `audio`, padded with trailing silence, as an array (bands, frames).

    Frames of the trailing silence are not computed. Frames of the constant samples at the beginning are computed once.
    So padding on either side costs nothing.

    Args:
        audio: Float32 samples at 16 kHz, at most frames * HOP of them.
        frames: Number of frames to return, 10 ms each.
        constant: Number of samples at the beginning of `audio` that are all equal, for example leading silence.
        bands: Number of mel bands.
    """
    padded = np.zeros(_HALF_WINDOW + frames * HOP + _HALF_WINDOW, dtype=np.float32)
    padded[_HALF_WINDOW : _HALF_WINDOW + audio.size] = audio
    padded[:_HALF_WINDOW] = padded[2 * _HALF_WINDOW : _HALF_WINDOW : -1]
    padded[-_HALF_WINDOW:] = padded[-_HALF_WINDOW - 2 : -2 * _HALF_WINDOW - 2 : -1]
    # If audio reaches the last half window, the transform mirrors it into the padding: then no frame can be skipped.
    mirrored = audio.size > frames * HOP - _HALF_WINDOW
    end = frames if mirrored else min(frames, (audio.size + _HALF_WINDOW) // HOP + 1)
    first = max(0, min((constant - _HALF_WINDOW) // HOP, end - 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[first * HOP : end * HOP : HOP]
    spectrum = np.fft.rfft(windows * _hann(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    features = np.full((bands, frames), np.log10(_POWER_FLOOR), dtype=np.float32)
    features[:, first:end] = np.log10(np.maximum(_mel_filters(bands) @ power.T, _POWER_FLOOR))
    features[:, :first] = features[:, first : first + 1]
    scaled: Features = (np.maximum(features, features.max() - _DYNAMIC_RANGE) + 4) / 4
    return scaled


@cache
def _hann() -> Samples:
    return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


@cache
def _mel_filters(bands: int) -> Features:
    """Return triangular filters over the FFT bins, shape (bands, 201), each of area 1."""
    bins_hz = np.fft.rfftfreq(_WINDOW, 1 / STT_RATE)
    top_mel = _LOG_FROM_MEL + np.log(STT_RATE / 2 / _LOG_FROM_HZ) / _LOG_STEP
    edges_hz = _mel_to_hz(np.linspace(0, top_mel, bands + 2))
    low, centre, high = (edges_hz[i : bands + i, np.newaxis] for i in range(3))
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles.astype(np.float32)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithmic = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, mel * _LINEAR_HZ_PER_MEL, logarithmic)
