"""Tests of the wire's audio formats: names are parsed, and audio keeps its length and content in every format."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rejoinder.core.audio.pcm import STT_RATE, WIRE_RATE
from rejoinder.core.audio.resample import WIRE_TO_TELEPHONE, Resampler
from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Fields
from rejoinder.core.wire.formats import AudioFormat, WireDecoder, WireEncoder, parse_format

every_format = pytest.mark.parametrize("wire", list(AudioFormat), ids=lambda wire: wire.name)


def _tone(hertz: float, rate: int, seconds: float) -> bytes:
    wave = np.sin(2 * np.pi * hertz / rate * np.arange(round(seconds * rate)))
    return bytes((wave * 8000).astype("<i2").tobytes())


@every_format
def test_a_format_reads_its_own_echo(wire: AudioFormat) -> None:
    """The `format` object that a session sends to a client is accepted from the client and means the same format."""
    assert parse_format(Fields({"format": wire.wire()}, "audio.input"), AudioFormat.PCM) is wire


@every_format
def test_an_absent_format_changes_nothing(wire: AudioFormat) -> None:
    """A missing `format`, or null, keeps the current format."""
    assert parse_format(Fields({}, "x"), wire) is wire
    assert parse_format(Fields({"format": None}, "x"), wire) is wire


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"type": "audio/opus"}, "audio.input.format.type"),
        ({"rate": 24000}, "audio.input.format.type"),
        ({"type": "audio/pcm", "rate": 8000}, "audio.input.format.rate"),
        ({"type": "audio/pcmu", "rate": 24000}, "audio.input.format.rate"),
        ("audio/pcmu", "audio.input.format"),
    ],
)
def test_a_refused_format_names_the_field(value: object, param: str) -> None:
    """The error of an unsupported format has the dotted path of the wrong field as its param."""
    with pytest.raises(CallerError) as raised:
        parse_format(Fields({"format": value}, "audio.input"), AudioFormat.PCM)
    assert raised.value.param == param


@every_format
def test_one_second_of_input_is_one_second_of_pcm(wire: AudioFormat) -> None:
    """In every format, fifty messages of 20 ms are decoded to 16,000 samples at 16 kHz."""
    decode = WireDecoder(wire)
    frame = bytes(wire.rate // 50 * wire.sample_bytes)
    assert sum(len(decode(frame)) for _ in range(50)) == STT_RATE * 2


@every_format
@pytest.mark.parametrize("size", [1, 2, 7, 883, 4801])
def test_messages_may_end_within_a_sample(wire: AudioFormat, size: int) -> None:
    """Audio in messages of any number of bytes is decoded as in one message: no sample is lost or read one byte off."""
    audio = WireEncoder(wire)(_tone(440, WIRE_RATE, 0.5))
    decode = WireDecoder(wire)
    pieces = b"".join(decode(audio[at : at + size]) for at in range(0, len(audio), size))
    assert pieces == WireDecoder(wire)(audio)


def test_a_lost_byte_does_not_turn_later_audio_into_noise() -> None:
    """After a message whose last byte was lost, later messages of whole samples are decoded correctly."""
    decode, plain = WireDecoder(), WireDecoder()
    tone = _tone(440, WIRE_RATE, 0.1)
    decode(tone[:-1])
    plain(tone[:-2])
    after = [_tone(300, WIRE_RATE, 0.1) for _ in range(5)]
    assert [decode(message) for message in after] == [plain(message) for message in after]


def test_noise_keeps_its_carried_byte() -> None:
    """White noise in messages that split samples keeps every byte.

    Noise read one byte late is as rough as noise read correctly, so roughness gives no reason to drop a byte.
    """
    noise = np.random.default_rng(3).integers(-32768, 32768, 24_000, dtype=np.int16).tobytes()
    decode = WireDecoder()
    pieces = b"".join(decode(noise[at : at + 883]) for at in range(0, len(noise), 883))
    assert pieces == WireDecoder()(noise)


def test_a_new_stream_begins_with_a_whole_sample() -> None:
    """After `end_stream`, the half sample left from the old stream is dropped, and quiet audio is decoded correctly.

    The decoder cannot detect a lost byte from quiet audio itself.
    """
    decode, plain = WireDecoder(), WireDecoder()
    decode(bytes(5))
    decode.end_stream()
    plain(bytes(4))
    quiet = np.tile(np.array([3, -3, 40, 0], "<i2"), 200).tobytes()
    assert decode(quiet) == plain(quiet)


@every_format
def test_one_second_of_speech_is_one_second_of_output(wire: AudioFormat) -> None:
    """One second of 24 kHz PCM in pieces of uneven length is encoded to exactly one second in the wire format."""
    encode, pcm = WireEncoder(wire), bytes(WIRE_RATE * 2)
    cuts = [0, 2, 4, 2402, 7204, 30000, len(pcm)]
    sent = sum(len(encode(pcm[start:end])) for start, end in itertools.pairwise(cuts))
    assert sent == wire.rate * wire.sample_bytes


@every_format
def test_there_and_back_sounds_the_same(wire: AudioFormat) -> None:
    """A tone that is encoded and decoded again is over 33 dB above its distortion and keeps its amplitude within 2%."""
    decoded = np.frombuffer(WireDecoder(wire)(WireEncoder(wire)(_tone(1020, WIRE_RATE, 1))), "<i2")[1000:-1000].astype(
        float
    )
    t = np.arange(decoded.size) / STT_RATE * 2 * np.pi * 1020
    basis = np.stack([np.sin(t), np.cos(t)], axis=1)
    fitted = basis @ np.linalg.lstsq(basis, decoded, rcond=None)[0]
    assert 10 * np.log10((fitted**2).mean() / ((decoded - fitted) ** 2).mean()) > 33
    assert np.abs(fitted).max() == pytest.approx(8000, rel=0.02)


@pytest.mark.parametrize("wire", [AudioFormat.PCMU, AudioFormat.PCMA])
def test_a_message_is_decoded_with_its_own_law(wire: AudioFormat) -> None:
    """G.711 audio is decoded with the law (mu-law or A-law) of its format, so a tone keeps its level within 2%."""
    assert wire.law is not None
    speech = Resampler(WIRE_TO_TELEPHONE)(_tone(440, WIRE_RATE, 0.5))
    decoded = np.frombuffer(WireDecoder(wire)(wire.law.encode(speech)), "<i2").astype(float)
    assert np.sqrt((decoded[500:] ** 2).mean()) == pytest.approx(8000 / np.sqrt(2), rel=0.02)
