"""ITU-T G.711 codec: 8 kHz speech with one byte per sample, as mu-law (North America, Japan) and A-law (elsewhere).

Both laws are lookup tables. Decoding looks a code up among 256 values. Encoding looks a 16-bit sample up among 65,536
codes. A message therefore costs one numpy lookup. The laws use the upper 14 bits (mu-law) or 13 bits (A-law) of a
sample. For each sign, they divide the magnitudes into eight segments of sixteen equal steps. Each segment is twice as
wide as the one below it, except that the two lowest segments of A-law have the same width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_INT16 = np.arange(-32_768, 32_768)
_SEGMENTS = 8
# Converts a table with one entry per sample, from -32,768 to 32,767, into one that is indexed by the sample's 16 bits
# read as an unsigned number.
_BY_BITS = np.arange(65_536, dtype="<u2").view("<i2").astype(np.int64) + 32_768


@dataclass(frozen=True, slots=True)
class Law:
    """G.711 law (mu-law or A-law), stored as two lookup tables.

    Attributes:
        name: Name of the law.
        codes: The code of each sample, indexed by its 16 bits read as unsigned.
        values: The 16-bit sample of each code, indexed by the code.
    """

    name: str
    codes: npt.NDArray[np.uint8]
    values: npt.NDArray[np.int16]

    def encode(self, pcm: bytes) -> bytes:
        """Return 16-bit PCM as G.711 codes, one byte per sample."""
        codes: npt.NDArray[np.uint8] = self.codes[np.frombuffer(pcm, "<u2")]
        return codes.tobytes()

    def decode(self, codes: bytes) -> bytes:
        """Return G.711 codes as 16-bit PCM, one sample per code. Every byte is a valid code."""
        return self.values[np.frombuffer(codes, np.uint8)].tobytes()


def _segment(magnitude: npt.NDArray[np.int64], first_end: int) -> npt.NDArray[np.int64]:
    """Return the number of the segment, 0 to 7, that contains each magnitude.

    Segment n contains the magnitudes below `first_end` * 2**n that no lower segment contains.
    """
    ends = first_end << np.arange(_SEGMENTS - 1)
    return np.searchsorted(ends, magnitude, side="right")


def _mu_law() -> Law:
    """Build mu-law by G.711 table 2.

    Adding 33 to every 14-bit magnitude makes every segment start at a power of two. All bits of a code are inverted, as
    the standard requires.
    """
    magnitude = np.minimum(np.where(_INT16 < 0, ~_INT16, _INT16) >> 2, 8158) + 33
    segment = _segment(magnitude, 64)
    code = ~(np.where(_INT16 < 0, 0x80, 0) | segment << 4 | magnitude >> (segment + 1) & 0xF)
    bits = ~np.arange(256)
    value = (((bits & 0xF) << 3) + 0x84 << (bits >> 4 & 7)) - 0x84
    return _law("mu-law", code, np.where(bits & 0x80, -value, value))


def _a_law() -> Law:
    """Build A-law by G.711 table 1.

    The two lowest segments have the same step size. Every other bit of a code is inverted, as the standard requires.
    """
    magnitude = np.where(_INT16 < 0, ~_INT16, _INT16) >> 3
    segment = _segment(magnitude, 32)
    code = np.where(_INT16 < 0, 0, 0x80) | segment << 4 | magnitude >> np.maximum(segment, 1) & 0xF
    bits = np.arange(256) ^ 0x55
    step, segment = bits & 0xF, bits >> 4 & 7
    value = np.where(segment == 0, (step << 4) + 8, (step << 4) + 0x108 << np.maximum(segment - 1, 0))
    return _law("A-law", code ^ 0x55, np.where(bits & 0x80, value, -value))


def _law(name: str, code: npt.NDArray[np.int64], value: npt.NDArray[np.int64]) -> Law:
    return Law(name, (code & 0xFF).astype(np.uint8)[_BY_BITS], value.astype("<i2"))


MU_LAW = _mu_law()
A_LAW = _a_law()
