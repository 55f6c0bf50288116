"""Accuracy of Whisper with short audio context: `python -m benchmarks.studies.wer_study`.

The study decodes each clip of human speech twice with the same weights: with short context, and padded to 30 s. It
reports the word error rates and their difference. The confidence interval of the difference is a paired bootstrap over
clips: both decodes of a clip are drawn together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deployments.engines.stt.whisper import Whisper, WhisperOptions
from rejoinder.core.measuring.wer import word_errors, words
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips, missing_packages
from rejoinder.store.model_store import open_store

BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 20_240_901
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class ClipResult:
    """Results of one clip, decoded with short audio context and padded to 30 s ("full").

    Attributes:
        source: Corpus of the clip.
        name: Name in its corpus.
        words: Number of words of the true text.
        audio_ms: Duration of the clip in milliseconds.
        short_errors: Word errors with short context.
        full_errors: Word errors with full padding.
        short_ms: Decoding time in milliseconds with short context.
        full_ms: Decoding time in milliseconds with full padding.
        repeated: True if a guard rejected the short decode and the clip was decoded again with full padding.
        text: True text.
        short_transcript: Transcript with short context.
        full_transcript: Transcript with full padding.
    """

    source: str
    name: str
    words: int
    audio_ms: float
    short_errors: int
    full_errors: int
    short_ms: float
    full_ms: float
    repeated: bool
    text: str
    short_transcript: str
    full_transcript: str


@dataclass(frozen=True, slots=True)
class WerSummary:
    """Word error rates and times with short context and with full padding (30 s).

    Attributes:
        clips: Number of clips.
        words: Number of words in their true texts.
        short_wer: Word error rate with short context, in percent.
        full_wer: Word error rate with full padding, in percent.
        difference: `short_wer` minus `full_wer`, in percentage points.
        interval: 95% confidence interval of `difference`.
        short_median_ms: Median decoding time with short context, in milliseconds.
        full_median_ms: Median decoding time with full padding, in milliseconds.
        repeated: Number of short decodes that a guard rejected, so that the clip was decoded again.
    """

    clips: int
    words: int
    short_wer: float
    full_wer: float
    difference: float
    interval: tuple[float, float]
    short_median_ms: float
    full_median_ms: float
    repeated: int


def study(short: Whisper, full: Whisper, clips: Sequence[HumanClip]) -> Iterator[ClipResult]:
    """Decode every clip with the short-context engine and the fully padded one, and yield the results."""
    for clip in clips:
        pcm = clip.pcm()
        started = time.perf_counter()
        unpadded = short.transcribe_batch([pcm])[0]
        between = time.perf_counter()
        padded = full.transcribe_batch([pcm])[0]
        ended = time.perf_counter()
        yield ClipResult(
            source=clip.source,
            name=clip.name,
            words=len(words(clip.text)),
            audio_ms=pcm.size / 16,
            short_errors=word_errors(clip.text, unpadded.text),
            full_errors=word_errors(clip.text, padded.text),
            short_ms=(between - started) * 1000,
            full_ms=(ended - between) * 1000,
            repeated=unpadded.full_padding,
            text=clip.text,
            short_transcript=unpadded.text,
            full_transcript=padded.text,
        )


def paired_interval(more_errors: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the bounds of the 95% interval of a difference of word error rates, in percentage points.

    The interval is a bootstrap over clips with a fixed seed.

    Args:
        more_errors: Errors of the first decode minus those of the second, for each clip.
        lengths: Number of words of each clip's true text.
    """
    clips = len(lengths)
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(clips, size=(BOOTSTRAP_DRAWS, clips))
    differences = 100 * more_errors[draws].sum(axis=1) / lengths[draws].sum(axis=1)
    low, high = np.percentile(differences, PERCENTILES)
    return float(low), float(high)


def summarize(results: Sequence[ClipResult]) -> WerSummary:
    """Return the word error rates, times and bootstrap interval over all results. The bootstrap has a fixed seed."""
    lengths = np.array([result.words for result in results])
    short = np.array([result.short_errors for result in results])
    full = np.array([result.full_errors for result in results])
    low, high = paired_interval(short - full, lengths)
    return WerSummary(
        clips=len(results),
        words=int(lengths.sum()),
        short_wer=100 * float(short.sum() / lengths.sum()),
        full_wer=100 * float(full.sum() / lengths.sum()),
        difference=100 * float((short - full).sum() / lengths.sum()),
        interval=(low, high),
        short_median_ms=float(np.median([result.short_ms for result in results])),
        full_median_ms=float(np.median([result.full_ms for result in results])),
        repeated=sum(result.repeated for result in results),
    )


def row(result: ClipResult) -> str:
    """Return one clip's line of the table.

    The columns are its name, words, word errors with short context and full padding, and the decoding times in ms.
    """
    name = f"{result.source}/{result.name}"
    rates = f"{result.short_errors:4d} {result.full_errors:4d}"
    return f"{name:52.52} {result.words:5d} {rates} {result.short_ms:8.0f} {result.full_ms:7.0f}"


HEADER = f"{'clip':52} {'words':>5} {'errors':>4} {'full':>4} {'short ms':>7} {'full ms':>7}"


def describe(title: str, s: WerSummary) -> str:
    """Return a line of text that begins with `title` and has the error rates, interval and times of the summary."""
    return (
        f"{title}: {s.clips} clips, {s.words} words. WER short {s.short_wer:.2f}%, full {s.full_wer:.2f}%, "
        f"difference {s.difference:+.2f} points (95% {s.interval[0]:+.2f} to {s.interval[1]:+.2f}). "
        f"Median {s.short_median_ms:.0f} ms against {s.full_median_ms:.0f} ms; {s.repeated} short decodes repeated."
    )


def main() -> None:
    """Run the study over every clip on this machine and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="directory of the model store (default: the user's cache)")
    parser.add_argument("--every-prompt", type=int, default=1, help="use every Nth telephone prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every clip's result and the summary to this file")
    arguments = parser.parse_args()
    store = open_store(ModelStoreSettings(directory=arguments.models))
    weights = store.path("whisper-base")
    engines = [Whisper(weights, WhisperOptions(threads=arguments.threads, short_context=s)) for s in (True, False)]
    for engine in engines:
        engine.warm_up()
    if missing := missing_packages():
        print(f"For more speech: apt-get install {' '.join(missing)}")
    print(HEADER)
    results = []
    for result in study(engines[0], engines[1], human_clips(store.path("human-clips"), arguments.every_prompt)):
        results.append(result)
        print(row(result), flush=True)
    for source in dict.fromkeys(result.source for result in results):
        print(describe(source, summarize([result for result in results if result.source == source])))
    total = summarize(results)
    print(describe("total", total))
    if arguments.json:
        report = {"summary": asdict(total), "clips": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
