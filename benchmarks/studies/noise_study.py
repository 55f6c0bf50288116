"""Effect and cost of noise suppression: `python -m benchmarks.studies.noise_study`.

For each suppression level the study prints how much the signal-to-noise ratio improves, and the CPU time per 10 ms of
audio. The ratio is the level of the speech minus the level of the second of noise before it, in dB. The study also
prints the memory of one suppressor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from actors.stages.ports import NoiseSuppressor
from deployments.engines.speech_in.noise import FRAME_BYTES, suppressors
from rejoinder.core.audio.pcm import STT_RATE, Samples, float_to_pcm16, pcm16_to_float
from rejoinder.core.settings.settings import NoiseSettings, Settings
from rejoinder.store import open_store
from rejoinder.store.human_clips import moonshine_clips

LEVELS = (1, 2, 3, 4)
SNR_DB = 10.0
# The audio begins with this many samples of noise without speech (two seconds).
PAUSE = 2 * STT_RATE
# The first second is not measured, because the suppressor adapts to the noise in it.
LEARNING = STT_RATE
CALLERS = 200
FRAMES = 100
PASSES = 20


@dataclass(frozen=True, slots=True)
class NoiseRow:
    """Results of one suppression level.

    `level` is the suppression level, 1 to 4. `gained_db` is the improvement of the signal-to-noise ratio in dB.
    `us_per_frame` is the CPU time in microseconds per 10 ms of audio.
    """

    level: int
    gained_db: float
    us_per_frame: float


def pink(count: int, seed: int) -> Samples:
    """Return `count` samples of pink noise, similar to a room's noise: equal power in each octave."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    shaped = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return shaped.astype(np.float32)


def at_level(samples: Samples, db: float) -> Samples:
    """Return the samples scaled to an RMS level of `db` dBFS."""
    return (samples * np.float32(10 ** ((db - level_db(samples)) / 20))).astype(np.float32)


def level_db(samples: Samples) -> float:
    """Return the RMS level in dBFS."""
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def gained_db(before: Samples, after: Samples) -> float:
    """Return by how many dB suppression improves the signal-to-noise ratio.

    `before` is the audio before suppression, `after` the result. Each begins with PAUSE samples of noise alone.
    """
    pause, spoken = slice(LEARNING, PAUSE), slice(PAUSE, None)
    distances = [level_db(audio[spoken]) - level_db(audio[pause]) for audio in (before, after)]
    return distances[1] - distances[0]


def measure(level: int, speech: Samples) -> NoiseRow:
    """Measure one suppression level on `speech` with added noise. `speech` begins with PAUSE samples of silence."""
    make = suppressors(NoiseSettings(suppressor="webrtc", level=level))
    assert make is not None
    noise = at_level(pink(speech.size, seed=3), level_db(speech[PAUSE:]) - SNR_DB)
    noisy = float_to_pcm16(speech + noise)
    after = pcm16_to_float(make().clean(noisy))
    frames = len(noisy) // FRAME_BYTES
    suppressor, started_at = make(), time.process_time()
    for _ in range(PASSES):
        suppressor.clean(noisy)
    us = (time.process_time() - started_at) / PASSES / frames * 1e6
    return NoiseRow(level, round(gained_db(speech + noise, after), 1), round(us, 1))


def memory_kib(make: Callable[[], NoiseSuppressor]) -> float:
    """Return the memory of one suppressor in KiB.

    It is the growth of this process's memory while it creates and uses CALLERS suppressors, divided by CALLERS.
    """
    process = psutil.Process()
    before = process.memory_info().rss
    created = [make() for _ in range(CALLERS)]
    for suppressor in created:
        suppressor.clean(bytes(FRAME_BYTES * FRAMES))
    return (process.memory_info().rss - before) / 1024 / CALLERS


def main() -> None:
    """Print the memory of one suppressor, then one row per suppression level."""
    clip = moonshine_clips(open_store(Settings().models).path("human-clips"))[5]
    spoken = clip.pcm().astype(np.float32) / np.float32(32768)
    speech = np.concatenate([np.zeros(PAUSE, np.float32), spoken])
    print(f"{clip.name} in pink noise {SNR_DB:g} dB below it; {PASSES} passes of {speech.size / STT_RATE:.1f} s")
    make = suppressors(NoiseSettings(suppressor="webrtc"))
    assert make is not None
    print(f"{memory_kib(make):.0f} KiB per caller")
    print("level  gained dB  us/10 ms  % of a core")
    for level in LEVELS:
        row = measure(level, speech)
        print(f"{level:5d} {row.gained_db:10.1f} {row.us_per_frame:9.1f} {row.us_per_frame / 100:12.2f}")


if __name__ == "__main__":
    main()
