"""Between the wire's rates and the 16 kHz that speech models hear, without holding audio back.

A streaming resampler library works in blocks: soxr's stream, fed 20 ms frames, holds back 5 to 38 ms of audio (MQ; LQ
2.5 to 20 ms; only its interpolating QQ does not, and that folds everything above 8 kHz into the speech band at -2 dB).
Those milliseconds would be the caller's. The ratios are fixed, so a polyphase FIR filter does it in a few lines: raise
the rate by `up`, low-pass, keep every `down`th sample, computing only the samples that are kept. Its delay is half the
filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import TELEPHONE_RATE, WIRE_RATE

KAISER_BETA = 5.0
"""About 55 dB in the stop band; G.711 itself leaves 38 dB between speech and its quantization noise."""


GROUP = 8
"""Blocks filtered by one row of a product: 20 ms at 24 kHz are 20 rows of 8 blocks of 3 samples."""


@dataclass(frozen=True)
class LowPassFilter:
    """A low-pass for one ratio `up` / `down`; `taps`, a multiple of `up`, are counted at `rate` times `up`."""

    rate: int
    up: int
    down: int
    cutoff_hz: float
    taps: int

    @property
    def delay_s(self) -> float:
        """How much later what goes in comes out."""
        return (self.taps - 1) / 2 / (self.rate * self.up)

    @cached_property
    def phases(self) -> tuple[npt.NDArray[np.float32], ...]:
        """The taps that each of a block's `up` output samples meets, reversed to be dotted with audio."""
        n = np.arange(self.taps) - (self.taps - 1) / 2
        sinc = np.sinc(2 * self.cutoff_hz / (self.rate * self.up) * n) * np.kaiser(self.taps, KAISER_BETA)
        # The gain makes up for the zeros that raising the rate puts in.
        taps = (sinc / sinc.sum() * self.up).astype(np.float32)
        return tuple(taps[at * self.down % self.up :: self.up][::-1].copy() for at in range(self.up))

    def matrix(self, group: int) -> npt.NDArray[np.float64]:
        """What turns the samples that `group` blocks see into their `group * up` output samples."""
        return _matrix(self, group)


@cache
def _matrix(by: LowPassFilter, group: int) -> npt.NDArray[np.float64]:
    width = by.taps // by.up
    product = np.zeros((width - 1 + group * by.down, group * by.up))
    for block in range(group):
        for at, taps in enumerate(by.phases):
            first = block * by.down + at * by.down // by.up
            product[first : first + width, block * by.up + at] = taps
    return product


WIRE_TO_STT = LowPassFilter(WIRE_RATE, up=2, down=3, cutoff_hz=7_300, taps=96)
"""Speech's band flat up to 6.6 kHz, gone from 8.4 on: telephone speech ends at 3.4, Whisper's mels at 8."""

TELEPHONE_TO_STT = LowPassFilter(TELEPHONE_RATE, up=2, down=1, cutoff_hz=3_900, taps=64)
WIRE_TO_TELEPHONE = LowPassFilter(WIRE_RATE, up=1, down=3, cutoff_hz=3_900, taps=96)
"""Both keep telephone speech (to 3.4 kHz) and remove its images and aliases from 4.4 kHz on."""


class Resampler:
    """One stream through one filter; every call returns all that its input determines.

    Every caller pays it fifty times a second, so a message is one product of matrices, windows times taps, and what is
    left of it a second, small one. In float64, so that how a stream was cut into messages changes no sample.
    """

    def __init__(self, by: LowPassFilter = WIRE_TO_STT) -> None:
        self._by = by
        self._width = by.taps // by.up
        self._held = np.zeros(self._width - 1)

    def __call__(self, pcm: bytes) -> bytes:
        """16-bit PCM of any length (whole samples) in, 16-bit PCM out; fewer than `down` samples wait for the next
        call.
        """
        up, down = self._by.up, self._by.down
        audio = np.concatenate((self._held, np.frombuffer(pcm, "<i2")))
        blocks = (audio.size - self._width + 1) // down
        if not blocks:
            self._held = audio
            return b""
        self._held = audio[blocks * down :].copy()
        grouped = blocks - blocks % GROUP
        out = np.empty(blocks * up)
        if grouped:
            out[: grouped * up] = self._filtered(audio, grouped // GROUP, GROUP)
        if grouped < blocks:
            out[grouped * up :] = self._filtered(audio[grouped * down :], blocks - grouped, 1)
        np.rint(out, out=out)
        np.minimum(np.maximum(out, -32768, out=out), 32767, out=out)
        return out.astype("<i2").tobytes()

    def _filtered(self, audio: npt.NDArray[np.float64], rows: int, group: int) -> npt.NDArray[np.float64]:
        """`rows` groups of `group` blocks; consecutive rows share all but `group * down` samples."""
        columns, step = self._width - 1 + group * self._by.down, group * self._by.down
        size = audio.itemsize
        windows = np.ndarray((rows, columns), np.float64, audio, strides=(step * size, size))
        # BLAS wants rows that do not overlap; the copy is small.
        return (windows.copy() @ self._by.matrix(group)).reshape(-1)
