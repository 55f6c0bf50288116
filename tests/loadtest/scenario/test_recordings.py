"""Reading recordings of every common format, and refusing broken files with one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from loadtest.scenario.clips import read_clip
from loadtest.scenario.recordings import LONGEST_S, read_recording
from rejoinder.core.audio.pcm import WIRE_RATE, pcm16_to_float
from rejoinder.core.errors import ConfigError


def _speech(rate: int) -> npt.NDArray[np.float32]:
    """Return 1.5 s: a tone of 440 Hz with amplitude 0.4 from 0.5 to 1.0 s, silence around it."""
    at = np.arange(round(1.5 * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * at) * ((at >= 0.5) & (at < 1.0))
    return tone.astype(np.float32)


def _write(path: Path, container: str, codec: str, *, rate: int, layout: str) -> Path:
    """Write `_speech`, the same in every channel, to a file of this container and codec."""
    channels = len(av.AudioLayout(layout).channels)
    return _encode(path, np.tile(_speech(rate), (channels, 1)), container, codec, rate=rate, layout=layout)


def _encode(
    path: Path, samples: npt.NDArray[np.float32], container: str, codec: str, *, rate: int, layout: str
) -> Path:
    """Write samples of shape (channels, n) to a file of this container and codec, and return its path."""
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return path


FORMATS = [
    ("wav", "pcm_u8", 8000, "mono"),
    ("wav", "pcm_s16le", 24000, "mono"),
    ("wav", "pcm_s24le", 96000, "5.1"),
    ("wav", "pcm_s32le", 44100, "stereo"),
    ("wav", "pcm_f32le", 48000, "stereo"),
    ("wav", "pcm_f32le", 16000, "mono"),
    ("wav", "pcm_f64le", 22050, "mono"),
    ("wav", "pcm_mulaw", 8000, "mono"),
    ("wav", "pcm_alaw", 8000, "stereo"),
    ("wav", "adpcm_ima_wav", 22050, "mono"),
    ("aiff", "pcm_s16be", 11025, "mono"),
    ("flac", "flac", 44100, "stereo"),
    ("flac", "flac", 16000, "mono"),
    ("mp3", "libmp3lame", 44100, "stereo"),
    ("mp3", "libmp3lame", 16000, "mono"),
    ("ogg", "libopus", 48000, "stereo"),
    ("ogg", "libopus", 16000, "mono"),
    ("webm", "libopus", 48000, "mono"),
    ("mp4", "aac", 44100, "stereo"),
]


@pytest.mark.parametrize(("container", "codec", "rate", "layout"), FORMATS)
def test_any_recording_is_read(tmp_path: Path, *, container: str, codec: str, rate: int, layout: str) -> None:
    """A clip of every format keeps its length, its level and the edges of its speech, whatever the file's name is."""
    clip = read_clip(_write(tmp_path / "clip.wav", container, codec, rate=rate, layout=layout))
    spoken = pcm16_to_float(clip.pcm)[clip.speech_start : clip.speech_end]
    assert clip.samples / WIRE_RATE == pytest.approx(1.5, abs=0.08)  # codecs fill their last block
    # Lossy codecs smear the edges over one of their frames.
    assert clip.speech_start / WIRE_RATE == pytest.approx(0.5, abs=0.05)
    assert clip.speech_end / WIRE_RATE == pytest.approx(1.0, abs=0.07)
    assert float(np.sqrt(np.mean(spoken**2))) == pytest.approx(0.4 / np.sqrt(2), rel=0.2)


def test_an_extensible_wav_is_read(tmp_path: Path) -> None:
    """WAVE_FORMAT_EXTENSIBLE, which recorders write for 24 bits in 4 bytes or for many channels, is read."""
    pcm = (_speech(16_000) * 32_767).astype("<i2").tobytes()
    subformat = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4) + subformat
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(pcm)) + pcm
    path = tmp_path / "extensible.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    samples, rate = read_recording(path)
    assert (samples.size, rate) == (24_000, 16_000)
    assert np.abs(samples - _speech(16_000)).max() < 1e-3


def test_the_channels_are_averaged(tmp_path: Path) -> None:
    """Speech in one channel of two is read at half its level: nothing of either channel is dropped."""
    left = np.stack([_speech(24_000), np.zeros(36_000, np.float32)])
    path = _encode(tmp_path / "left.wav", left, "wav", "pcm_f32le", rate=24_000, layout="stereo")
    samples, _ = read_recording(path)
    assert float(np.abs(samples).max()) == pytest.approx(0.2, abs=1e-3)


def _wav(data: bytes, rate: int = 24_000, tag: int = 1, bits: int = 16) -> bytes:
    """Return a mono WAV file with this data."""
    form = struct.pack("<HHIIHH", tag, 1, rate, rate * bits // 8, bits // 8, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


_NAN = np.array([0.1, np.nan, np.inf], "<f4").tobytes()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"RIFF", "not a readable recording"),
        (b"hello " * 20, "not a readable recording"),
        (b"ID3" + bytes(60), "not a readable recording"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "contains no audio"),
        (_wav(b""), "contains no samples"),
        (_wav(b"\1\0" * 100, rate=1), "sample rate of 1 Hz"),
        (_wav(_NAN * 100, tag=3, bits=32), "samples that are not numbers"),
    ],
)
def test_a_broken_file_is_refused_with_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    """The error names the file and the problem, and says what to do. Neither FFmpeg's words nor a traceback remain."""
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_clip(path)
    assert caught.value.field == str(path)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def _outcome(path: Path) -> str | None:
    """Return "read" for at most 1.6 s of samples at 48 kHz; the field of the ConfigError if the file is refused."""
    try:
        samples, _ = read_recording(path)
    except ConfigError as error:
        return error.field
    return "read" if 0 < samples.size <= 1.6 * 48_000 else None


@pytest.mark.parametrize(("container", "codec"), [("ogg", "libopus"), ("mp4", "aac"), ("flac", "flac")])
def test_the_beginning_of_a_file_is_read_or_refused(tmp_path: Path, container: str, codec: str) -> None:
    """A file that was cut off at any byte gives a shorter clip or a ConfigError with the file's name."""
    whole = _write(tmp_path / "whole", container, codec, rate=48_000, layout="mono").read_bytes()
    path = tmp_path / "cut"
    for size in range(1, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        assert _outcome(path) in ("read", str(path)), size


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder instead of a file is refused by its name."""
    with pytest.raises(ConfigError, match="not a readable recording") as caught:
        read_clip(tmp_path)
    assert caught.value.field == str(tmp_path)


def test_a_recording_of_more_than_an_hour_is_refused(tmp_path: Path) -> None:
    """A recording longer than the longest session is refused before it fills the memory."""
    path = tmp_path / "long.wav"
    path.write_bytes(_wav(bytes(int((LONGEST_S + 10) * 8000)), rate=8000, bits=8))
    with pytest.raises(ConfigError, match="longer than 60 minutes"):
        read_recording(path)
