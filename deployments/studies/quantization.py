"""Compare int8 with float32 on this machine: `python -m deployments.studies.quantization`.

Whisper runs with the same weights in both precisions, on the same clips, on the CPU. The study reports the median time
of a clip, the speed-up and the difference in word errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from deployments.engines.stt.whisper import Whisper, WhisperOptions
from rejoinder.core.measuring.wer import word_errors, words
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips
from rejoinder.store.model_store import ModelStore, open_store

Precision = Literal["float32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
WHISPER = "whisper-base"


@dataclass(frozen=True, slots=True)
class QuantizationResult:
    """Comparison of one model in float32 and in int8.

    Attributes:
        model: Name in the model store.
        unit: Unit of `float32` and `int8`, in words.
        float32: Median time of a clip with float32, in milliseconds.
        int8: Median time of a clip with int8, in milliseconds.
        speedup: Total time with float32 over total time with int8.
        error: Additional errors of int8 as a share of the words; negative if int8 has fewer.
        what: Description of the word errors in both precisions.
    """

    model: str
    unit: str
    float32: float
    int8: float
    speedup: float
    error: float
    what: str


def whisper(store: ModelStore, clips: Sequence[HumanClip], threads: int) -> QuantizationResult:
    """Measure Whisper's time and word errors in int8 and float32.

    Each clip is decoded in both precisions in turn, so that other load on the machine affects both.

    Args:
        store: Model store that contains Whisper.
        clips: Recordings with their true texts.
        threads: Threads of each engine.
    """
    folder = store.path(WHISPER)
    engines = {name: Whisper(folder, WhisperOptions(compute_type=name, threads=threads)) for name in PRECISIONS}
    for engine in engines.values():
        engine.warm_up()
    times: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    errors = dict.fromkeys(PRECISIONS, 0)
    for clip in clips:
        pcm = clip.pcm()
        for name, engine in engines.items():
            started = time.perf_counter()
            transcript = engine.transcribe_batch([pcm])[0].text
            times[name].append((time.perf_counter() - started) * 1000)
            errors[name] += word_errors(clip.text, transcript)
    total = sum(len(words(clip.text)) for clip in clips)
    float32, int8 = (statistics.median(times[name]) for name in PRECISIONS)
    return QuantizationResult(
        WHISPER,
        unit="ms per clip (median)",
        float32=float32,
        int8=int8,
        # Ratio of the total times, not of the medians: this is the gain in throughput of a busy replica.
        speedup=sum(times["float32"]) / sum(times["int8"]),
        error=(errors["int8"] - errors["float32"]) / total,
        what=f"{errors['float32']} and {errors['int8']} errors in {total} words of {len(clips)} human clips",
    )


def study(store: ModelStore, threads: int, every_prompt: int = 10) -> list[QuantizationResult]:
    """Return one result per model. Whisper is the only one.

    Args:
        store: Model store that contains the models and the recordings.
        threads: Threads of each engine.
        every_prompt: Use every Nth telephone prompt among the recordings.
    """
    clips = list(human_clips(store.path("human-clips"), every_prompt))
    return [whisper(store, clips, threads)]


def main() -> None:
    """Run the study and print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="directory of the model store (default: the user's cache)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the comparisons to this file")
    arguments = parser.parse_args()
    results = study(open_store(ModelStoreSettings(directory=arguments.models)), arguments.threads)
    for row in results:
        print(
            f"{row.model}: {row.float32:.1f} (float32) and {row.int8:.1f} (int8) {row.unit}, {row.speedup:.2f}x; "
            f"error {row.error:+.2%}: {row.what}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
