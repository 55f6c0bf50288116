"""Accuracy of the first-pass recognizer: `python -m benchmarks.studies.first_pass_study`.

The study transcribes each clip of human speech with the first-pass recognizer (Moonshine) and the main one (Whisper).
It then evaluates the cascade for every threshold: a first-pass transcript whose confidence is below the threshold is
replaced by the main recognizer's. A clip's time is the sum of the recognitions that it needs. The confidence interval
of the difference to the main recognizer alone is a paired bootstrap over clips.
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
class RecognizedClip:
    """One clip, transcribed by the first-pass recognizer and by the main one.

    Attributes:
        source: Corpus of the clip.
        name: Name in its corpus.
        words: Number of words of the true text.
        confidence: Mean log-probability of the first pass; minus infinity if a transcript guard rejected it.
        first_errors: Word errors of the first pass.
        main_errors: Word errors of the main recognizer.
        first_ms: Time of the first pass in milliseconds.
        main_ms: Time of the main recognizer in milliseconds.
        text: True text.
        first_transcript: Transcript of the first pass.
        main_transcript: Transcript of the main recognizer.
    """

    source: str
    name: str
    words: int
    confidence: float
    first_errors: int
    main_errors: int
    first_ms: float
    main_ms: float
    text: str
    first_transcript: str
    main_transcript: str


@dataclass(frozen=True, slots=True)
class Cascade:
    """Results of the cascade (first-pass and main recognizer together) with one confidence threshold.

    Attributes:
        threshold: Mean log-probability of the first pass below which the main recognizer transcribes the clip again.
        repeated: Share of clips that the main recognizer transcribed again.
        wer: Word error rate in percent.
        difference: Word error rate minus that of the main recognizer alone, in percentage points.
        interval: 95% confidence interval of `difference`.
        median_ms: Median time of a clip in milliseconds.
        main_median_ms: Median time of the main recognizer alone in milliseconds.
    """

    threshold: float
    repeated: float
    wer: float
    difference: float
    interval: tuple[float, float]
    median_ms: float
    main_median_ms: float


def study(first_pass: Moonshine, main_recognizer: Whisper, clips: Sequence[HumanClip]) -> Iterator[RecognizedClip]:
    """Transcribe every clip with the first-pass and with the main recognizer, and yield the results."""
    any_confidence = SttCascade(main_recognizer, first_pass, min_logprob=-np.inf)
    for clip in clips:
        pcm = clip.pcm()
        started = time.perf_counter()
        first = first_pass.transcribe_batch([pcm])[0].hypothesis
        between = time.perf_counter()
        second = main_recognizer.transcribe_batch([pcm])[0]
        ended = time.perf_counter()
        yield RecognizedClip(
            source=clip.source,
            name=clip.name,
            words=len(words(clip.text)),
            confidence=first.avg_logprob if any_confidence.is_confident(first) else -np.inf,
            first_errors=word_errors(clip.text, first.text),
            main_errors=word_errors(clip.text, second.text),
            first_ms=(between - started) * 1000,
            main_ms=(ended - between) * 1000,
            text=clip.text,
            first_transcript=first.text,
            main_transcript=second.text,
        )


def cascade(clips: Sequence[RecognizedClip], threshold: float) -> Cascade:
    """Return the results of the cascade over all clips, with this threshold of the first pass's confidence."""
    repeated = np.array([clip.confidence < threshold for clip in clips])
    total = np.array([clip.words for clip in clips])
    main_errors = np.array([clip.main_errors for clip in clips])
    errors = np.where(repeated, main_errors, [clip.first_errors for clip in clips])
    main_ms = np.array([clip.main_ms for clip in clips])
    spent_ms = np.array([clip.first_ms for clip in clips]) + np.where(repeated, main_ms, 0.0)
    return Cascade(
        threshold=threshold,
        repeated=float(repeated.mean()),
        wer=100 * float(errors.sum() / total.sum()),
        difference=100 * float((errors - main_errors).sum() / total.sum()),
        interval=paired_interval(errors - main_errors, total),
        median_ms=float(np.median(spent_ms)),
        main_median_ms=float(np.median(main_ms)),
    )


def describe(row: Cascade) -> str:
    """Return the table's line of text for one confidence threshold, with the columns of HEADER."""
    low, high = row.interval
    return (
        f"{row.threshold:9.2f} {row.repeated:9.0%} {row.wer:7.2f} {row.difference:+8.2f} ({low:+.2f} to {high:+.2f})"
        f" {row.median_ms:8.0f} ms, alone {row.main_median_ms:.0f} ms"
    )


HEADER = "threshold  repeated   WER %  points (95% interval)   median time, main recognizer alone"


def main() -> None:
    """Run the study over every clip on this machine and print a line per threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write every clip's results to this file")
    parser.add_argument("--every", type=int, default=1, help="use every Nth telephone prompt")
    options = parser.parse_args()
    if missing_packages():
        parser.error(f"apt-get install {' '.join(missing_packages())}")
    store = open_store(ModelStoreSettings())
    first_pass = Moonshine(store.path("moonshine-tiny-en"), threads=1)
    main_recognizer = Whisper(store.path("whisper-base"), WhisperOptions(threads=1))
    first_pass.warm_up()
    main_recognizer.warm_up()
    clips = list(study(first_pass, main_recognizer, human_clips(store.path("human-clips"), options.every)))
    print(f"{len(clips)} clips, {sum(clip.words for clip in clips)} words", HEADER, sep="\n")
    for threshold in THRESHOLDS:
        print(describe(cascade(clips, threshold)))
    if options.json:
        options.json.write_text(json.dumps([asdict(clip) for clip in clips], indent=1))


if __name__ == "__main__":
    main()
