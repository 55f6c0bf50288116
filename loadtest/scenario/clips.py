"""A recorded utterance, ready for the wire, and where in it somebody really speaks.

The edges of speech are what latency is measured from, so they are found on the very samples that are sent. Speech is
what is louder than a gate that follows the clip's own level, as ITU-T P.56 has it: in a quiet recording a last s is far
below `AUDIBLE_DBFS`, and still a part of the word. The room's noise must stay below the gate, or a reply would seem to
come before the last word's end. A gate that is too high errs on the honest side: speech ends earlier, and the reply
seems later.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from rejoinder.core.audio.pcm import (
    AUDIBLE_DBFS,
    SAMPLE_BYTES,
    WIRE_RATE,
    Samples,
    first_audible,
    float_to_pcm16,
    last_audible,
    pcm16_to_float,
)
from rejoinder.core.errors import ConfigError

# ITU-T P.56: speech is active down to this far below its active level, the level while it is active.
_MARGIN_DB = 15.9
# Soft speech is at -35 dBFS, and its last syllable below: no gate may be higher.
_HIGHEST_GATE_DBFS = -40.0
# The quietest 20 ms in twenty are the room; it wavers by less than this.
_NOISE_PERCENTILE, _NOISE_MARGIN_DB = 5.0, 6.0
# One period of 50 Hz: shorter frames follow the clicks and the hum of a room.
_FRAME_MS = 20.0

# Sample widths of WAVE's integer PCM, in bytes, and what one least significant bit is worth.
_FULL_SCALE = {1: 2.0**7, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}
_CONVERT = "Convert it, for example: ffmpeg -i in.wav -c:a pcm_s16le out.wav"


@dataclass(frozen=True, slots=True)
class Clip:
    """24 kHz mono PCM; `speech_start` and `speech_end` (exclusive) are its edges of speech, in samples, to 20 ms.

    `expected` is the true text, None if it is not known.
    """

    name: str
    pcm: bytes
    speech_start: int
    speech_end: int
    expected: str | None = None

    @property
    def samples(self) -> int:
        return len(self.pcm) // SAMPLE_BYTES


def read_clip(path: Path) -> Clip:
    """A WAV file of any rate, width and number of channels, with the text beside it (same stem, `.txt`) if there is
    one; raises ConfigError naming the file and what is wrong with it.
    """
    samples, rate = _read_wave(path)
    text = path.with_suffix(".txt")
    try:
        expected = text.read_text(encoding="utf-8").strip() if text.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}).", "Save it as UTF-8, or remove it.", field=str(text)) from None
    wire = samples if rate == WIRE_RATE else soxr.resample(samples, rate, WIRE_RATE)
    return make_clip(str(path), float_to_pcm16(wire), expected)


def make_clip(name: str, pcm: bytes, expected: str | None = None) -> Clip:
    """A clip of 24 kHz mono PCM; raises ConfigError if nothing in it can be heard."""
    samples = pcm16_to_float(pcm)
    gate = _gate_dbfs(samples)
    start = first_audible(samples, WIRE_RATE, gate, _FRAME_MS)
    end = last_audible(samples, WIRE_RATE, gate, _FRAME_MS)
    if start is None or end is None:
        raise ConfigError("holds nothing audible.", "Record it again, louder.", field=name)
    return Clip(name, pcm=pcm, speech_start=start, speech_end=end, expected=expected)


def write_wave(path: Path, pcm: bytes, channels: int = 1) -> None:
    """A WAV file of 24 kHz PCM, its channels interleaved."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(WIRE_RATE)
        file.writeframes(pcm)


def _gate_dbfs(samples: Samples) -> float:
    """The level at which this clip's speech begins: P.56's margin below its active level, and above its noise."""
    frame = round(WIRE_RATE * _FRAME_MS / 1000)
    power = np.square(samples[: samples.size - samples.size % frame].reshape(-1, frame), dtype=np.float64).mean(axis=1)
    if not power.size or _decibels(float(power.max())) < AUDIBLE_DBFS:
        return AUDIBLE_DBFS
    noise, loudest = np.percentile(power, (_NOISE_PERCENTILE, 99))
    # A clip that was cut at its words has no room in it: its quietest is speech.
    above_noise_db = min(_decibels(noise) + _NOISE_MARGIN_DB, _decibels(loudest) - _MARGIN_DB)
    return min(max(_active_db(power) - _MARGIN_DB, above_noise_db), _HIGHEST_GATE_DBFS)


def _active_db(power: npt.NDArray[np.float64]) -> float:
    """The mean level of the frames that are active: those no more than the margin below that mean."""
    level_db = _decibels(float(power.max()))
    while True:
        active = power >= 10 ** ((level_db - _MARGIN_DB) / 10)
        lower_db = _decibels(float(power[active].mean()))
        if lower_db >= level_db - 0.01:  # frames only ever join, and the mean only falls
            return lower_db
        level_db = lower_db


def _decibels(power: float) -> float:
    return 10 * float(np.log10(max(power, 1e-12)))


def _read_wave(path: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Samples in [-1, 1), channels averaged, and their rate."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise ConfigError("no such file.", "Name an existing WAV file.", field=str(path)) from None
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"not a readable PCM WAV file ({error or 'it ends early'}).", _CONVERT, str(path)) from None
    if width not in _FULL_SCALE or not rate:
        raise ConfigError(f"{8 * width}-bit samples at {rate} Hz are not supported.", _CONVERT, str(path))
    frames = raw[: len(raw) - len(raw) % (width * channels)]
    samples = _integers(frames, width) / _FULL_SCALE[width]
    return samples.reshape(-1, channels).mean(axis=1), rate


def _integers(raw: bytes, width: int) -> npt.NDArray[np.float64]:
    if width == 1:  # the one unsigned width
        return np.frombuffer(raw, np.uint8).astype(np.float64) - 128
    if width == 3:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int32)
        return ((parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8).astype(np.float64)
    return np.frombuffer(raw, f"<i{width}").astype(np.float64)
