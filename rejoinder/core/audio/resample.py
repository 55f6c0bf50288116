"""Resampling between the wire's sample rates and the 16 kHz of the speech models, without holding audio back.

Streaming resampler libraries work in blocks, and audio held back would delay every turn. soxr's stream, fed with 20 ms
frames, holds back 5 to 38 ms of audio at quality MQ, and 2.5 to 20 ms at LQ. Only its lowest quality, QQ, holds back
none, but it aliases everything above 8 kHz into the speech band at -2 dB.

The ratios here are fixed, so a polyphase FIR filter is enough. It raises the rate by the factor `up`, applies a
low-pass filter, and keeps every `down`-th sample. It computes only the samples that are kept. Its delay is half the
length of the filter, 1 ms for 24 to 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import TELEPHONE_RATE, WIRE_RATE

KAISER_BETA = 5.0
"""Beta of the Kaiser window: about 55 dB of attenuation. G.711 itself has 38 dB of signal to quantization noise."""


GROUP = 8
"""Blocks in one row of the matrix product: 20 ms at 24 kHz are 20 rows of 8 blocks of 3 samples."""


@dataclass(frozen=True)
class LowPassFilter:
    """Low-pass filter that changes the sample rate by the ratio `up` / `down`.

    Attributes:
        rate: Input sample rate in Hz.
        up: Factor by which the rate is raised.
        down: Factor by which the raised rate is lowered afterwards.
        cutoff_hz: Cutoff frequency in Hz.
        taps: Number of filter coefficients, at the raised rate `rate * up`. A multiple of `up`.
    """

    rate: int
    up: int
    down: int
    cutoff_hz: float
    taps: int

    @property
    def delay_s(self) -> float:
        """Delay of the filter in seconds."""
        return (self.taps - 1) / 2 / (self.rate * self.up)

    @cached_property
    def phases(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Filter coefficients, divided into `up` arrays of `taps / up` coefficients each.

        A block of `down` input samples gives `up` output samples. Array k belongs to the k-th of these output samples.
        The coefficients are in reverse order, so that an output sample is the dot product of its array with the audio.
        """
        n = np.arange(self.taps) - (self.taps - 1) / 2
        sinc = np.sinc(2 * self.cutoff_hz / (self.rate * self.up) * n) * np.kaiser(self.taps, KAISER_BETA)
        # Raising the rate inserts `up` - 1 zeros per sample. The factor `up` restores the level.
        taps = (sinc / sinc.sum() * self.up).astype(np.float32)
        return tuple(taps[at * self.down % self.up :: self.up][::-1].copy() for at in range(self.up))

    def matrix(self, group: int) -> npt.NDArray[np.float64]:
        """Return the matrix whose product with a row of input samples is the output of `group` consecutive blocks.

        A block is `down` new input samples, which give `up` output samples. A row also contains the earlier samples
        that the filter spans: it has `taps / up - 1 + group * down` samples in total.
        """
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
"""24 to 16 kHz. Flat to 6.6 kHz, 55 dB down from 8.4 kHz. Telephone speech ends at 3.4 kHz, Whisper's mels at 8 kHz."""

OPUS_RATE = 48_000
"""Sample rate of decoded Opus, in Hz."""
OPUS_TO_STT = LowPassFilter(OPUS_RATE, up=1, down=3, cutoff_hz=7_300, taps=96)
"""48 to 16 kHz, with the same filter as WIRE_TO_STT."""

TELEPHONE_TO_STT = LowPassFilter(TELEPHONE_RATE, up=2, down=1, cutoff_hz=3_900, taps=64)
WIRE_TO_TELEPHONE = LowPassFilter(WIRE_RATE, up=1, down=3, cutoff_hz=3_900, taps=96)
"""The two filters for G.711: 8 to 16 kHz, and 24 to 8 kHz. Both keep telephone speech (to 3.4 kHz) and remove images
and aliases from 4.4 kHz."""


class Resampler:
    """Streaming resampler. Each call returns all output samples that the input so far determines. Not thread-safe.

    A block is the input samples that give whole output samples: `down` in, `up` out. Each message needs at most two
    matrix products: one for all groups of GROUP blocks, and one for the blocks that do not fill a group. The arithmetic
    is float64, so the output does not depend on how the audio is split into messages.
    """

    def __init__(self, by: LowPassFilter = WIRE_TO_STT) -> None:
        self._by = by
        self._width = by.taps // by.up
        self._held = np.zeros(self._width - 1)

    def __call__(self, pcm: bytes) -> bytes:
        """Return the resampled audio of the next piece of the stream, as 16-bit PCM.

        If the last input samples do not complete a block of `down` samples, the next call processes them.

        Args:
            pcm: 16-bit PCM of any length, in whole samples.
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
        """Return the filtered output of the first `rows * group` blocks of `audio`, computed as one matrix product.

        A block is `down` input samples. Each row of the product has `group` blocks, and starts `group * down` samples
        after the row before it.
        """
        columns, step = self._width - 1 + group * self._by.down, group * self._by.down
        size = audio.itemsize
        windows = np.ndarray((rows, columns), np.float64, audio, strides=(step * size, size))
        # The rows of `windows` overlap in memory, which BLAS does not support. `copy` makes them separate.
        return (windows.copy() @ self._by.matrix(group)).reshape(-1)
