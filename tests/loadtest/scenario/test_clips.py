"""Reading WAV files of every common format, and locating the speech in them."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from loadtest.scenario.clips import make_clip, read_clip
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16, pcm16_to_float
from rejoinder.core.errors import ConfigError
from tests.loadtest.callers.scene import silence, tone


def _encode(samples: npt.NDArray[np.float64], width: int) -> bytes:
    scaled = np.rint(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        return bytes((scaled + 128).astype(np.uint8).tobytes())
    return b"".join(int(value).to_bytes(width, "little", signed=True) for value in scaled.reshape(-1))


def _write(path: Path, rate: int, channels: int, width: int) -> None:
    """Write a WAV file with samples of `width` bytes: 0.25 s of silence, 0.5 s of a 440 Hz tone, 0.25 s of silence."""
    samples = np.zeros(rate)
    samples[rate // 4 : 3 * rate // 4] = 0.5 * np.sin(np.arange(rate // 2) / rate * 440 * 2 * np.pi)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(_encode(np.repeat(samples[:, None], channels, axis=1), width))


@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(24000, 1, 2), (48000, 2, 2), (16000, 1, 3), (44100, 2, 4), (8000, 1, 1)]
)
def test_any_pcm_wav_is_converted_to_24_khz_mono(tmp_path: Path, rate: int, channels: int, width: int) -> None:
    """Conversion of a WAV file to 24 kHz mono keeps length and amplitude. Speech edges are exact to one 20 ms frame."""
    _write(tmp_path / "a.wav", rate, channels, width)
    clip = read_clip(tmp_path / "a.wav")
    spoken = pcm16_to_float(clip.pcm)[clip.speech_start : clip.speech_end]
    assert clip.samples == pytest.approx(WIRE_RATE, abs=2)
    assert clip.speech_start / WIRE_RATE == pytest.approx(0.25, abs=0.021)
    assert clip.speech_end / WIRE_RATE == pytest.approx(0.75, abs=0.021)
    assert float(np.abs(spoken).max()) == pytest.approx(0.5, abs=0.03)


def test_the_text_file_next_to_a_clip_is_its_reference_text(tmp_path: Path) -> None:
    """A clip's `expected` text is the content of the `.txt` file of the same name, or None without that file."""
    _write(tmp_path / "a.wav", 24000, 1, 2)
    assert read_clip(tmp_path / "a.wav").expected is None
    (tmp_path / "a.txt").write_text(" What time is it?\n", encoding="utf-8")
    assert read_clip(tmp_path / "a.wav").expected == "What time is it?"


def test_the_noise_of_a_room_after_the_last_word_is_not_speech() -> None:
    """Noise at -43 dBFS after normal speech is not part of the speech. Alone, sound of this level is soft speech."""
    noise = float_to_pcm16(np.random.default_rng(1).normal(0, 10 ** (-43 / 20), WIRE_RATE))
    assert make_clip("a", tone(1.0) + noise).speech_end == WIRE_RATE
    assert make_clip("a", noise).speech_end == WIRE_RATE


def test_a_faint_last_sound_of_a_quiet_recording_is_speech() -> None:
    """With room noise of -65 dBFS, the speech of a clip at -37 dBFS includes its last 100 ms at only -50 dBFS."""
    rng = np.random.default_rng(1)
    word, hiss, room = (
        rng.normal(0, 10 ** (level / 20), round(WIRE_RATE * seconds))
        for level, seconds in ((-37, 1.0), (-50, 0.1), (-65, 0.5))
    )
    clip = make_clip("a", float_to_pcm16(np.concatenate([room, word, hiss, room])))
    assert clip.speech_start / WIRE_RATE == pytest.approx(0.5, abs=0.021)
    assert clip.speech_end / WIRE_RATE == pytest.approx(1.6, abs=0.021)


def test_missing_and_silent_files_are_refused(tmp_path: Path) -> None:
    """A missing file raises ConfigError, and so does a clip without an audible sample, which has no end of speech."""
    with pytest.raises(ConfigError, match="no such file"):
        read_clip(tmp_path / "none.wav")
    with pytest.raises(ConfigError, match="nothing audible"):
        make_clip("quiet.wav", silence(1.0))
