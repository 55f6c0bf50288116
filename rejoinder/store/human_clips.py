"""The human speech in the store: two long readings, cut into utterances with known texts.

Tests of the turn detector need human speech, because it misjudges synthetic voices.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from rejoinder.core.audio.pcm import STT_RATE

# (file, start in seconds, end in seconds, text). The cuts are in the middle of the reader's pauses.
_MOONSHINE_CUTS = (
    ("beckett.wav", 0.0, 9.97, "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."),
    ("two_cities.wav", 0.8, 4.6, "It was the best of times, it was the worst of times,"),
    ("two_cities.wav", 4.6, 8.3, "it was the age of wisdom, it was the age of foolishness,"),
    ("two_cities.wav", 8.3, 13.1, "it was the epoch of belief, it was the epoch of incredulity,"),
    ("two_cities.wav", 13.1, 17.1, "it was the season of light, it was the season of darkness,"),
    ("two_cities.wav", 17.1, 20.9, "it was the spring of hope, it was the winter of despair,"),
    ("two_cities.wav", 20.9, 24.3, "we had everything before us, we had nothing before us,"),
    ("two_cities.wav", 24.3, 28.6, "we were all going direct to heaven, we were all going direct the other way"),
    (
        "two_cities.wav",
        28.6,
        42.2,
        "in short, the period was so far like the present period, that some of its noisiest authorities insisted on its"
        " being received, for good or for evil, in the superlative degree of comparison only.",
    ),
)


@dataclass(frozen=True, slots=True)
class HumanClip:
    """One utterance: the part of an audio file from `start_s` to `end_s` seconds, or to its end if `end_s` is None.

    Attributes:
        source: Name of the package that the file comes from.
        name: Name for reports.
        path: A WAV file, or a .raw file of 16-bit PCM at 16 kHz.
        text: The words that are spoken.
    """

    source: str
    name: str
    path: Path
    text: str
    start_s: float = 0.0
    end_s: float | None = None

    def pcm(self, wanted_rate: int = STT_RATE) -> npt.NDArray[np.int16]:
        """Return the mono samples of the utterance as 16-bit PCM, resampled to `wanted_rate` Hz."""
        rate, samples = _read(self.path)
        end = None if self.end_s is None else round(self.end_s * rate)
        audio = soxr.resample(samples[round(self.start_s * rate) : end], rate, wanted_rate)
        converted: npt.NDArray[np.int16] = audio.astype(np.int16)
        return converted


def moonshine_clips(folder: Path) -> list[HumanClip]:
    """Return the utterances of the model `human-clips` of the store, which is in `folder`."""
    return [
        HumanClip("moonshine", name=f"{file}@{start_s:g}", path=folder / file, text=text, start_s=start_s, end_s=end_s)
        for file, start_s, end_s, text in _MOONSHINE_CUTS
    ]


def _read(path: Path) -> tuple[int, npt.NDArray[np.int16]]:
    if path.suffix == ".raw":
        return STT_RATE, np.fromfile(path, dtype="<i2")
    with wave.open(str(path)) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
