"""Between the wire's rates and the 16 kHz that speech models hear, without holding audio back.

A streaming resampler library works in blocks: soxr's stream, fed 20 ms frames, holds back 5 to 38 ms of audio (MQ; LQ
2.5 to 20 ms; only its interpolating QQ does not, and that folds everything above 8 kHz into the speech band at -2 dB).
Those milliseconds would be the caller's. The ratios are fixed, so a polyphase FIR filter does it in a few lines: raise
the rate by `up`, low-pass, keep every `down`th sample, computing only the samples that are kept. Its delay is half the
filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio import TELEPHONE_RATE, WIRE_RATE

KAISER_BETA = 5.0
"""About 55 dB in the stop band; G.711 itself leaves 38 dB between speech and its quantization noise."""


@dataclass(frozen=True)
class Filter:
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


WIRE_TO_STT = Filter(WIRE_RATE, up=2, down=3, cutoff_hz=7_300, taps=96)
"""Speech's band flat up to 6.6 kHz, gone from 8.4 on: telephone speech ends at 3.4, Whisper's mels at 8."""

TELEPHONE_TO_STT = Filter(TELEPHONE_RATE, up=2, down=1, cutoff_hz=3_900, taps=64)
WIRE_TO_TELEPHONE = Filter(WIRE_RATE, up=1, down=3, cutoff_hz=3_900, taps=96)
"""Both keep telephone speech (to 3.4 kHz) and remove its images and aliases from 4.4 kHz on."""


class Resampler:
    """One stream through one filter; every call returns all that its input determines."""

    def __init__(self, by: Filter = WIRE_TO_STT) -> None:
        self._by = by
        self._width = by.taps // by.up
        self._held = np.zeros(self._width - 1, np.float32)

    def __call__(self, pcm: bytes) -> bytes:
        """16-bit PCM of any length (whole samples) in, 16-bit PCM out; fewer than `down` samples wait for the next
        call.
        """
        up, down = self._by.up, self._by.down
        audio = np.concatenate([self._held, np.frombuffer(pcm, "<i2").astype(np.float32)])
        blocks = (audio.size - self._width + 1) // down
        self._held = audio[blocks * down :]
        if not blocks:
            return b""
        windows = np.lib.stride_tricks.sliding_window_view(audio, self._width)
        out = np.empty(blocks * up, np.float32)
        for at, taps in enumerate(self._by.phases):
            first = at * down // up
            out[at::up] = windows[first : first + (blocks - 1) * down + 1 : down] @ taps
        return np.clip(np.rint(out), -32768, 32767).astype("<i2").tobytes()
