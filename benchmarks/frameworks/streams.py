"""What every session hears: one spoken phrase of a person's, then silence, in cycles of eight seconds.

Phrases of the store's own recordings, cut in the middle of the readers' pauses, each a whole clause that every
contender's rules take for one turn (checked before each row) and of whose end Smart Turn is sure at once: what is
compared is the work, not the detectors. A cycle is a whole number of voice activity windows, so
all cycles of a stream are decided alike and one offline pass tells where each ends. The silence is a quiet room's
noise: nobody may win by noticing zeros.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from benchmarks.frameworks.contender import FRAME_BYTES, RATE
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.audio.resample import WIRE_TO_STT, Resampler

CYCLE_FRAMES = 400
CYCLE_S = CYCLE_FRAMES * 0.02
LEAD_S = 0.2
NOISE = 8
SEED = 20_261_125

_CUTS = (
    ("two_cities.wav", 4.83, 6.50),
    ("two_cities.wav", 6.48, 8.55),
    ("two_cities.wav", 10.56, 13.10),
    ("two_cities.wav", 14.99, 17.10),
    ("two_cities.wav", 24.30, 26.35),
    ("two_cities.wav", 26.35, 28.70),
    ("two_cities.wav", 20.90, 24.30),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One cycle: `CYCLE_FRAMES` frames of 20 ms at `rate`."""

    name: str
    frames: tuple[bytes, ...]


def streams(folder: Path, rate: int = STT_RATE) -> list[Stream]:
    """All phrases; `folder` is the model store's `human-clips`."""
    return [Stream(f"{file}@{start:g}", _cycle(folder / file, (start, end), rate)) for file, start, end in _CUTS]


def through_the_wire(stream: Stream) -> Stream:
    """A stream of `WIRE_RATE` as a host hears it: its own filter to 16 kHz delays it by a millisecond, and shapes it,
    which moves some ends of speech by a window.
    """
    resample = Resampler(WIRE_TO_STT)
    for frame in stream.frames:  # so that the filter begins where the last cycle left it
        resample(frame)
    return Stream(stream.name, tuple(resample(frame) for frame in stream.frames))


def write_cycles(stream: Stream, cycles: int, path: Path) -> None:
    """The stream as a raw file for a contender's offline pass."""
    path.write_bytes(b"".join(stream.frames) * cycles)


def _cycle(path: Path, cut: tuple[float, float], rate: int) -> tuple[bytes, ...]:
    """The phrase in a room's noise. Every rate is made from the same 16 kHz samples, so all hear the same."""
    room = np.random.default_rng(SEED).integers(-NOISE, NOISE + 1, CYCLE_FRAMES * FRAME_BYTES // SAMPLE_BYTES)
    cycle = room.astype(np.int16)
    phrase = _phrase(path, cut)
    lead = round(LEAD_S * RATE)
    cycle[lead : lead + phrase.size] = phrase
    wanted = cycle if rate == RATE else soxr.resample(cycle, RATE, rate).astype(np.int16)
    pcm = wanted.astype("<i2").tobytes()
    size = len(pcm) // CYCLE_FRAMES
    return tuple(pcm[at * size : (at + 1) * size] for at in range(CYCLE_FRAMES))


def _phrase(path: Path, cut: tuple[float, float]) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        file.setpos(round(cut[0] * rate))
        raw = np.frombuffer(file.readframes(round((cut[1] - cut[0]) * rate)), "<i2")
    phrase: npt.NDArray[np.int16] = soxr.resample(raw, rate, RATE).astype(np.int16)
    return phrase
