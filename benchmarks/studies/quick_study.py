"""What a first hearing by the small model costs in accuracy: `python -m benchmarks.studies.quick_study`.

Each clip of human speech is heard by both models, so every threshold of doubt can be judged afterwards: what the small
model is less sure of than that, the large one has the word on. Times are those of the two hearings, one after another
where there are two. The interval is a paired bootstrap over clips, against the large model alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.studies.wer_study import paired_interval
from deployments.engines.stt.cascade import SttCascade
from deployments.engines.stt.moonshine import Moonshine
from deployments.engines.stt.whisper import Whisper, WhisperOptions
from rejoinder.core.measuring.wer import word_errors, words
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips, missing_packages
from rejoinder.store.model_store import open_store

THRESHOLDS = (-10.0, -0.3, -0.2, -0.15, -0.12, -0.1, -0.08, -0.05, 0.0)


@dataclass(frozen=True, slots=True)
class TwoHearings:
    """One clip; `sure`: the mean log-probability of the first hearing, or minus infinity if a guard rejected it."""

    source: str
    name: str
    words: int
    sure: float
    quick_errors: int
    careful_errors: int
    quick_ms: float
    careful_ms: float
    text: str
    quick_heard: str
    careful_heard: str


@dataclass(frozen=True, slots=True)
class Cascade:
    """Both models with one threshold. Rates in percent of words, `difference` to the large model alone in points."""

    doubt_below: float
    repeated: float
    wer: float
    difference: float
    interval: tuple[float, float]
    median_ms: float
    careful_median_ms: float


def study(quick: Moonshine, careful: Whisper, clips: Sequence[HumanClip]) -> Iterator[TwoHearings]:
    """Have every clip heard by both."""
    ears = SttCascade(careful, quick, doubt_below=-np.inf)
    for clip in clips:
        pcm = clip.pcm()
        began = time.perf_counter()
        first = quick.transcribe_batch([pcm])[0].hypothesis
        between = time.perf_counter()
        second = careful.transcribe_batch([pcm])[0]
        ended = time.perf_counter()
        yield TwoHearings(
            source=clip.source,
            name=clip.name,
            words=len(words(clip.text)),
            sure=first.avg_logprob if ears.sure(first) else -np.inf,
            quick_errors=word_errors(clip.text, first.text),
            careful_errors=word_errors(clip.text, second.text),
            quick_ms=(between - began) * 1000,
            careful_ms=(ended - between) * 1000,
            text=clip.text,
            quick_heard=first.text,
            careful_heard=second.text,
        )


def cascade(heard: Sequence[TwoHearings], doubt_below: float) -> Cascade:
    """What the pair does with this threshold."""
    doubtful = np.array([clip.sure < doubt_below for clip in heard])
    total = np.array([clip.words for clip in heard])
    careful = np.array([clip.careful_errors for clip in heard])
    errors = np.where(doubtful, careful, [clip.quick_errors for clip in heard])
    careful_ms = np.array([clip.careful_ms for clip in heard])
    spent_ms = np.array([clip.quick_ms for clip in heard]) + np.where(doubtful, careful_ms, 0.0)
    return Cascade(
        doubt_below=doubt_below,
        repeated=float(doubtful.mean()),
        wer=100 * float(errors.sum() / total.sum()),
        difference=100 * float((errors - careful).sum() / total.sum()),
        interval=paired_interval(errors - careful, total),
        median_ms=float(np.median(spent_ms)),
        careful_median_ms=float(np.median(careful_ms)),
    )


def describe(row: Cascade) -> str:
    """One line of the table."""
    low, high = row.interval
    return (
        f"{row.doubt_below:8.2f} {row.repeated:9.0%} {row.wer:7.2f} {row.difference:+8.2f} ({low:+.2f} to {high:+.2f})"
        f" {row.median_ms:8.0f} ms, alone {row.careful_median_ms:.0f} ms"
    )


HEADER = "doubt < repeated   WER %  points (95% interval)   median time, large model alone"


def main() -> None:
    """Print the table for every threshold; `--json` keeps what was heard."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--every", type=int, default=1, help="of the telephone prompts, each how manieth")
    given = parser.parse_args()
    if missing_packages():
        parser.error(f"apt-get install {' '.join(missing_packages())}")
    store = open_store(ModelStoreSettings())
    quick = Moonshine(store.path("moonshine-tiny-en"), threads=1)
    careful = Whisper(store.path("whisper-base"), WhisperOptions(threads=1))
    quick.warm_up()
    careful.warm_up()
    heard = list(study(quick, careful, human_clips(store.path("human-clips"), given.every)))
    print(f"{len(heard)} clips, {sum(clip.words for clip in heard)} words", HEADER, sep="\n")
    for threshold in THRESHOLDS:
        print(describe(cascade(heard, threshold)))
    if given.json:
        given.json.write_text(json.dumps([asdict(clip) for clip in heard], indent=1))


if __name__ == "__main__":
    main()
