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
    """One model. `speedup`: float32's time over int8's. `error`: int8's additional errors as a share (of words, or of
    tokens); negative if it made fewer. `unit` is what `float32` and `int8` are, smaller is faster if it is ms.
    """

    model: str
    unit: str
    float32: float
    int8: float
    speedup: float
    error: float
    what: str


def whisper(store: ModelStore, clips: Sequence[HumanClip], threads: int) -> QuantizationResult:
    """Median time of a clip, and word errors, by precision; the two alternate, so that noise meets both."""
    folder = store.path(WHISPER)
    engines = {name: Whisper(folder, WhisperOptions(compute_type=name, threads=threads)) for name in PRECISIONS}
    for engine in engines.values():
        engine.warm_up()
    times: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    errors = dict.fromkeys(PRECISIONS, 0)
    for clip in clips:
        pcm = clip.pcm()
        for name, engine in engines.items():
            began = time.perf_counter()
            heard = engine.transcribe_batch([pcm])[0].text
            times[name].append((time.perf_counter() - began) * 1000)
            errors[name] += word_errors(clip.text, heard)
    total = sum(len(words(clip.text)) for clip in clips)
    float32, int8 = (statistics.median(times[name]) for name in PRECISIONS)
    return QuantizationResult(
        WHISPER,
        unit="ms a clip (median)",
        float32=float32,
        int8=int8,
        # Of sums, not of medians: what a busy replica gains.
        speedup=sum(times["float32"]) / sum(times["int8"]),
        error=(errors["int8"] - errors["float32"]) / total,
        what=f"{errors['float32']} and {errors['int8']} errors in {total} words of {len(clips)} human clips",
    )


def study(store: ModelStore, threads: int, every_prompt: int = 10) -> list[QuantizationResult]:
    """Return one result a model; Whisper is the only one.

    Args:
        store: Holds the models and the recordings.
        threads: Threads of each engine.
        every_prompt: Take every n-th of Debian's recordings of people.
    """
    clips = list(human_clips(store.path("human-clips"), every_prompt))
    return [whisper(store, clips, threads)]


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="directory of the model store (default: the user's cache)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the comparisons to this file")
    arguments = parser.parse_args()
    found = study(open_store(ModelStoreSettings(directory=arguments.models)), arguments.threads)
    for row in found:
        print(
            f"{row.model}: {row.float32:.1f} (float32) and {row.int8:.1f} (int8) {row.unit}, {row.speedup:.2f}x; "
            f"error {row.error:+.2%}: {row.what}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
