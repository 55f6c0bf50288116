"""Recorded utterances: read a recording as 24 kHz PCM and locate the speech in it.

Latency is measured from the start and end of speech, so both are detected on the exact samples that are sent. A sample
counts as speech if its 20 ms frame is louder than a threshold, the gate. The gate follows the active speech level of
the clip (ITU-T P.56). In a quiet recording, a final "s" lies far below `AUDIBLE_DBFS` but still belongs to the word.

The gate must lie above the room noise. Otherwise noise after the last word would count as speech, and latency would be
measured too short. A gate that is too high is the safer error: speech appears to end earlier, so the measured latency
is longer.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from loadtest.scenario.recordings import read_recording
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

# A frame counts as active speech if its level is at most this margin, in dB, below the active speech level (ITU-T
# P.56).
_MARGIN_DB = 15.9
# Upper limit, in dBFS, of the threshold above which a frame counts as speech. Soft speech has about -35 dBFS, and its
# last syllable is quieter. A higher threshold could cut that syllable off.
_HIGHEST_GATE_DBFS = -40.0
# The 5th percentile of the frame levels counts as the room noise. The threshold for speech is at least this margin, in
# dB, above the noise. The margin is enough because room noise varies by less.
_NOISE_PERCENTILE, _NOISE_MARGIN_DB = 5.0, 6.0
# Frame length in milliseconds: one period of 50 Hz mains hum. Shorter frames would follow the hum and clicks of a room.
_FRAME_MS = 20.0


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance as audio.

    Attributes:
        name: Path of the recording, or the name of a clip of the model store.
        pcm: 24 kHz mono 16-bit PCM.
        speech_start: Index of the first sample of speech, with a resolution of 20 ms.
        speech_end: Index of the sample after the last sample of speech, with a resolution of 20 ms.
        expected: Reference text of the speech, or None if it is unknown.
    """

    name: str
    pcm: bytes
    speech_start: int
    speech_end: int
    expected: str | None = None

    @property
    def samples(self) -> int:
        """Length of the clip in samples at 24 kHz."""
        return len(self.pcm) // SAMPLE_BYTES


def read_clip(path: Path) -> Clip:
    """Return the clip in an audio file of any format that `read_recording` reads.

    The reference text is read from the file with the same stem and the suffix `.txt`, if it exists.

    Raises:
        ConfigError: The audio or text file cannot be read, or the clip contains no audible sample. `field` names
            the file.
    """
    samples, rate = read_recording(path)
    text_path = path.with_suffix(".txt")
    try:
        expected = text_path.read_text(encoding="utf-8").strip() if text_path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read ({error}).", "Save it as UTF-8, or remove it.", field=str(text_path)
        ) from None
    resampled = samples if rate == WIRE_RATE else soxr.resample(samples, rate, WIRE_RATE)
    return make_clip(str(path), float_to_pcm16(resampled), expected)


def make_clip(name: str, pcm: bytes, expected: str | None = None) -> Clip:
    """Return a clip of 24 kHz mono 16-bit PCM, and locate its speech. Raise ConfigError if the audio is silent."""
    samples = pcm16_to_float(pcm)
    gate = _gate_dbfs(samples)
    start = first_audible(samples, WIRE_RATE, gate, _FRAME_MS)
    end = last_audible(samples, WIRE_RATE, gate, _FRAME_MS)
    if start is None or end is None:
        raise ConfigError("contains nothing audible.", "Record it again at a higher level.", field=name)
    return Clip(name, pcm=pcm, speech_start=start, speech_end=end, expected=expected)


def write_wave(path: Path, pcm: bytes, channels: int = 1) -> None:
    """Write 24 kHz 16-bit PCM as a WAV file. Several channels are interleaved in `pcm`."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(WIRE_RATE)
        file.writeframes(pcm)


def _gate_dbfs(samples: Samples) -> float:
    """Return the threshold in dBFS above which a frame of a clip counts as speech.

    It is `_MARGIN_DB` below the active speech level, but above the room noise and at most `_HIGHEST_GATE_DBFS`.
    """
    frame = round(WIRE_RATE * _FRAME_MS / 1000)
    power = np.square(samples[: samples.size - samples.size % frame].reshape(-1, frame), dtype=np.float64).mean(axis=1)
    if not power.size or _decibels(float(power.max())) < AUDIBLE_DBFS:
        return AUDIBLE_DBFS
    noise, loudest = np.percentile(power, (_NOISE_PERCENTILE, 99))
    # If a clip was trimmed to its words, its quietest frames are speech and not noise. The second argument of `min`
    # keeps the threshold below the speech of such a clip.
    above_noise_db = min(_decibels(noise) + _NOISE_MARGIN_DB, _decibels(loudest) - _MARGIN_DB)
    return min(max(_active_db(power) - _MARGIN_DB, above_noise_db), _HIGHEST_GATE_DBFS)


def _active_db(power: npt.NDArray[np.float64]) -> float:
    """Return the active speech level in dBFS: the mean power of all active frames.

    A frame is active if it is at most `_MARGIN_DB` below this level, so the level is found by iteration.

    Args:
        power: Mean power of each frame, as a share of full scale squared.
    """
    level_db = _decibels(float(power.max()))
    while True:
        active = power >= 10 ** ((level_db - _MARGIN_DB) / 10)
        lower_db = _decibels(float(power[active].mean()))
        # The level falls with every round, because a round adds only quieter frames. Stop when it falls by 0.01 dB or
        # less.
        if lower_db >= level_db - 0.01:
            return lower_db
        level_db = lower_db


def _decibels(power: float) -> float:
    return 10 * float(np.log10(max(power, 1e-12)))
