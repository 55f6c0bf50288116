"""Input audio of the sessions: one recorded phrase, then silence, in cycles of eight seconds.

The phrases are cut from recordings in the model store, in the middle of the speaker's pauses. Each is a whole clause.
By the rules of every contender (compared system), it is one turn, which is checked before each row. Smart Turn
recognizes its end at once. The comparison therefore measures computing work, not the quality of detectors. A cycle is a
whole number of voice activity windows. All cycles of a stream give the same decisions, so one offline pass finds the
end of the turn. The silence is the noise of a quiet room, so that a contender gains nothing by detecting zeros.
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
    """Audio of one cycle of 8 s: a name for messages, and 400 frames of 20 ms as 16-bit PCM."""

    name: str
    frames: tuple[bytes, ...]


def streams(folder: Path, rate: int = STT_RATE) -> list[Stream]:
    """Return the streams of all phrases at `rate` Hz. `folder` is the model store's `human-clips`."""
    return [Stream(f"{file}@{start:g}", _cycle(folder / file, (start, end), rate)) for file, start, end in _CUTS]


def received_by_host(stream: Stream) -> Stream:
    """Return a stream of `WIRE_RATE` (24 kHz), resampled to 16 kHz with the host's own filter.

    The filter delays the audio by 1 ms and changes its shape, which moves some ends of speech by a window.
    """
    resample = Resampler(WIRE_TO_STT)
    for frame in stream.frames:  # discard one cycle, so that the filter is in its steady state
        resample(frame)
    return Stream(stream.name, tuple(resample(frame) for frame in stream.frames))


def write_cycles(stream: Stream, cycles: int, path: Path) -> None:
    """Write `cycles` repetitions of the stream as a raw PCM file, for a contender's `--offline` option."""
    path.write_bytes(b"".join(stream.frames) * cycles)


def _cycle(path: Path, cut: tuple[float, float], rate: int) -> tuple[bytes, ...]:
    """Return the frames of a cycle at `rate` Hz: the phrase, then noise of a quiet room.

    `cut` has the start and the end of the phrase in the recording, in seconds. Every rate is resampled from the same
    16 kHz samples.
    """
    room = np.random.default_rng(SEED).integers(-NOISE, NOISE + 1, CYCLE_FRAMES * FRAME_BYTES // SAMPLE_BYTES)
    cycle = room.astype(np.int16)
    phrase = _phrase(path, cut)
    lead = round(LEAD_S * RATE)
    cycle[lead : lead + phrase.size] = phrase
    resampled = cycle if rate == RATE else soxr.resample(cycle, RATE, rate).astype(np.int16)
    pcm = resampled.astype("<i2").tobytes()
    size = len(pcm) // CYCLE_FRAMES
    return tuple(pcm[at * size : (at + 1) * size] for at in range(CYCLE_FRAMES))


def _phrase(path: Path, cut: tuple[float, float]) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        file.setpos(round(cut[0] * rate))
        raw = np.frombuffer(file.readframes(round((cut[1] - cut[0]) * rate)), "<i2")
    phrase: npt.NDArray[np.int16] = soxr.resample(raw, rate, RATE).astype(np.int16)
    return phrase
