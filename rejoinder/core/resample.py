"""From the wire's 24 kHz to the 16 kHz that speech models hear, without holding audio back.

A streaming resampler library works in blocks: soxr's stream, fed 20 ms frames, holds back 5 to 38 ms of audio (MQ; LQ
2.5 to 20 ms; only its interpolating QQ does not, and that folds everything above 8 kHz into the speech band at -2 dB).
Those milliseconds would be the caller's. The ratio is fixed, so a polyphase FIR filter does it in a few lines: raise
to 48 kHz, low-pass, keep every third sample, computing only the samples that are kept. Its delay is half the filter,
DELAY_S.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio import WIRE_RATE

_UP, _DOWN = 2, 3
_FILTER_RATE = WIRE_RATE * _UP

CUTOFF_HZ = 7_300
TAPS = 96
KAISER_BETA = 5.0
"""About 55 dB from 8.4 kHz on, and speech's band flat up to 6.6 kHz: telephone speech ends at 3.4, Whisper's mels at
8.
"""

DELAY_S = (TAPS - 1) / 2 / _FILTER_RATE


def _design() -> npt.NDArray[np.float32]:
    """A windowed sinc; the gain makes up for the zeros that raising the rate puts in."""
    n = np.arange(TAPS) - (TAPS - 1) / 2
    sinc = np.sinc(2 * CUTOFF_HZ / _FILTER_RATE * n) * np.kaiser(TAPS, KAISER_BETA)
    taps: npt.NDArray[np.float32] = (sinc / sinc.sum() * _UP).astype(np.float32)
    return taps


_HISTORY = TAPS // _UP - 1
# Of the filter's taps an even output meets the even ones, an odd output the odd ones; reversed, to be dotted with
# audio.
_EVEN, _ODD = _design()[0::_UP][::-1].copy(), _design()[1::_UP][::-1].copy()


class Downsampler:
    """One stream from 24 to 16 kHz; every call returns all that its input determines."""

    def __init__(self) -> None:
        self._held = np.zeros(_HISTORY, np.float32)

    def __call__(self, pcm: bytes) -> bytes:
        """16-bit PCM of any length (whole samples) in, 16-bit PCM out; at most two samples wait for the next call."""
        audio = np.concatenate([self._held, np.frombuffer(pcm, "<i2").astype(np.float32)])
        pairs = (audio.size - _HISTORY) // _DOWN
        self._held = audio[pairs * _DOWN :]
        if not pairs:
            return b""
        windows = np.lib.stride_tricks.sliding_window_view(audio, _EVEN.size)
        out = np.empty(pairs * _UP, np.float32)
        out[0::_UP] = windows[: pairs * _DOWN : _DOWN] @ _EVEN
        out[1::_UP] = windows[1 : pairs * _DOWN : _DOWN] @ _ODD
        return np.clip(np.rint(out), -32768, 32767).astype("<i2").tobytes()
