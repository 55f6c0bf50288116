"""Study of where a pause can be inserted into human speech: `python -m benchmarks.studies.word_boundaries FILE`.

Whisper finds the words of each clip. A boundary between two words is usable if a phrase continues across it: the word
before it has no punctuation, and at least two words precede and follow. The cut is placed at the quietest 10 ms near
the boundary.

FILE is a CSV table with one row per boundary: clip, cut_s, before (the last words before the cut) and after.
`loadtest/turn_corpus/human_cuts.csv` is such a table, so that building the corpus needs no recognizer.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from rejoinder.core.audio.pcm import STT_RATE, Samples, pcm16_to_float
from rejoinder.core.settings.settings import Settings
from rejoinder.store import open_store
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips, missing_packages

# Minimum duration of a clip in seconds, and minimum number of words on each side of a cut.
SHORTEST_S = 2.4
SIDE_WORDS = 2
# Maximum distance in seconds of a cut from the recognizer's word boundary, and minimum distance between two cuts.
NEAR_S = 0.06
APART_S = 0.9
STEP_S = 0.01
# Number of words in the table's columns "before" and "after".
SHOWN = 3
_PUNCTUATION = ".,;:?!-"


def boundaries(recognizer: WhisperModel, clip: HumanClip) -> Iterator[tuple[str, float, str, str]]:
    """Yield the usable boundaries of a clip: (clip name, cut in seconds, words before, words after)."""
    audio = pcm16_to_float(clip.pcm().tobytes())
    if audio.size < SHORTEST_S * STT_RATE:
        return
    segments, _ = recognizer.transcribe(audio, language="en", word_timestamps=True)
    words = [word for segment in segments for word in segment.words or []]
    last = float("-inf")
    for index in range(SIDE_WORDS - 1, len(words) - SIDE_WORDS):
        before, after = words[index], words[index + 1]
        cut_s = quietest_s(audio, (before.end + after.start) / 2)
        if before.word.strip().endswith(tuple(_PUNCTUATION)) or cut_s - last < APART_S:
            continue
        last = cut_s
        texts = ["".join(word.word for word in part).strip() for part in _shown(words, index)]
        yield clip.name, cut_s, texts[0], texts[1]


def quietest_s(audio: Samples, near_s: float) -> float:
    """Return the middle of the quietest 10 ms of 16 kHz audio within NEAR_S of `near_s`, in seconds."""
    step = round(STEP_S * STT_RATE)
    first = max(0, round((near_s - NEAR_S) * STT_RATE) // step)
    blocks = audio[first * step : round((near_s + NEAR_S) * STT_RATE)]
    power = np.square(blocks[: blocks.size - blocks.size % step].reshape(-1, step)).mean(axis=1)
    return round((first + int(power.argmin()) + 0.5) * STEP_S, 3)


def _shown(words: list[Any], index: int) -> tuple[list[Any], list[Any]]:
    return words[max(0, index + 1 - SHOWN) : index + 1], words[index + 1 : index + 1 + SHOWN]


def main() -> None:
    """Write the table of all installed clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    if missing := missing_packages():
        parser.error(f"the table needs all clips: apt-get install {' '.join(missing)}")
    settings = Settings()
    store = open_store(settings.models)
    recognizer = WhisperModel(str(store.path(settings.stt.model)), device="cpu", compute_type="int8", cpu_threads=2)
    with options.file.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("clip", "cut_s", "before", "after"))
        for clip in human_clips(store.path("human-clips")):
            for row in boundaries(recognizer, clip):
                table.writerow(row)


if __name__ == "__main__":
    main()
