"""Tests of the G.711 codec against ITU-T Recommendation G.711: code words, decoded values and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.g711 import A_LAW, MU_LAW, Law

LAWS = pytest.mark.parametrize("law", [MU_LAW, A_LAW], ids=["mu", "A"])


def _encode(law: Law, *samples: int) -> list[int]:
    return list(law.encode(np.array(samples, "<i2").tobytes()))


def _decode(law: Law, *codes: int) -> list[int]:
    return [int(value) for value in np.frombuffer(law.decode(bytes(codes)), "<i2")]


@pytest.mark.parametrize(
    ("sample", "mu", "a"),
    [
        # (16-bit sample, mu-law code word, A-law code word) from tables 1 and 2 of G.711: silence, both ends of the
        # range, and the first samples of segments.
        (0, 0xFF, 0xD5),
        (-1, 0x7F, 0x55),
        (32767, 0x80, 0xAA),
        (-32768, 0x00, 0x2A),
        (4 * 31, 0xEF, 0xD2),
        (4 * 95, 0xDF, 0xC2),
        (8 * 64, 0xDB, 0xF5),
        (8 * 2048, 0x8F, 0xA5),
    ],
)
def test_code_words(sample: int, mu: int, a: int) -> None:
    """Each sample is encoded as the code word that the tables of Recommendation G.711 give."""
    assert (_encode(MU_LAW, sample), _encode(A_LAW, sample)) == ([mu], [a])


@pytest.mark.parametrize(
    ("law", "code", "value"),
    [
        *((MU_LAW, *row) for row in ((0x80, 32124), (0x00, -32124), (0xFF, 0), (0xFE, 8), (0xEF, 132))),
        *((A_LAW, *row) for row in ((0xAA, 32256), (0x2A, -32256), (0xD5, 8), (0xD4, 24), (0x55, -8))),
    ],
)
def test_decoder_values(law: Law, code: int, value: int) -> None:
    """Each code word is decoded to the value that Recommendation G.711 gives, scaled to 16 bits."""
    assert _decode(law, code) == [value]


@LAWS
def test_every_code_survives(law: Law) -> None:
    """A code word that is decoded and encoded again is unchanged; only mu-law's negative zero becomes positive zero."""
    recoded = _encode(law, *_decode(law, *range(256)))
    assert recoded == [0xFF if law is MU_LAW and code == 0x7F else code for code in range(256)]


@LAWS
def test_a_value_lies_in_the_middle_of_its_interval(law: Law) -> None:
    """A code word is decoded to the middle of the 16-bit samples that are encoded as it, to within 4 steps."""
    samples = np.arange(-32_000, 32_000)
    codes = np.frombuffer(law.encode(samples.astype("<i2").tobytes()), np.uint8)
    for code in np.unique(codes)[1:-1]:
        interval = samples[codes == code]
        if interval[0] > -31_000 and interval[-1] < 31_000 and code not in (0x7F, 0xFF):
            assert abs(_decode(law, code)[0] - (interval[0] + interval[-1]) / 2) <= 4


@LAWS
@given(low=st.integers(-32768, 32767), high=st.integers(-32768, 32767))
def test_order_is_kept(law: Law, low: int, high: int) -> None:
    """If one sample is higher than another, encoding and decoding never makes it lower than the other."""
    low, high = sorted((low, high))
    first, second = _decode(law, *_encode(law, low, high))
    assert first <= second


@LAWS
@pytest.mark.parametrize("level_db", [-3, -10, -20, -30])
def test_noise_is_what_the_law_allows(law: Law, level_db: float) -> None:
    """After encoding and decoding, a tone of -3 to -30 dBFS is over 33 dB above the noise, as G.712 requires."""
    tone = np.sin(2 * np.pi * 1020 / 8000 * np.arange(8000)) * 32767 * 10 ** (level_db / 20)
    pcm = tone.astype("<i2")
    decoded = np.frombuffer(law.decode(law.encode(pcm.tobytes())), "<i2").astype(float)
    noise = ((decoded - pcm) ** 2).mean()
    assert 10 * np.log10((pcm.astype(float) ** 2).mean() / noise) > 33


@LAWS
def test_an_empty_message_stays_empty(law: Law) -> None:
    """Empty input is encoded and decoded to empty output."""
    assert (law.encode(b""), law.decode(b"")) == (b"", b"")
