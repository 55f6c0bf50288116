"""What a worker counts: memory that does not grow with the run.

Hot paths append seconds to arrays; once a second `fold` turns them into histograms (three significant digits, at best
10 us) and forgets them. Histograms of all workers and seconds are merged; percentiles are never averaged.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

# Microseconds from 1 to two hours: longer than any call.
LOWEST_US = 1
HIGHEST_US = 7_200_000_000
DIGITS = 3
STEP_US = 10

SLOWEST = 20
"""Turns that a run keeps whole, the slowest ones, for somebody to look at."""


def histogram() -> HdrHistogram:
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def encoded(values_s: Sequence[float]) -> str:
    """A histogram of seconds, compressed and in base64.

    Equal values are recorded once with their number: a hundred callers send 5,000 frames a second, and to record each
    one's lateness by itself would hold up the loop for 20 ms, which is a lateness of our own making.
    """
    taken = histogram()
    steps = np.rint(np.asarray(values_s, np.float64) * (1e6 / STEP_US)) * STEP_US
    values, counts = np.unique(np.clip(steps, LOWEST_US, HIGHEST_US), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        taken.record_value(int(value), count)
    return str(taken.encode().decode("ascii"))


class TurnHistograms:
    """Counts by name, seconds by name, seconds of the whole turn by region, and the slowest turns."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._slowest: list[tuple[float, int, dict[str, object]]] = []
        self._kept = 0

    def took(self, name: str, seconds: float) -> None:
        """One measurement."""
        self._seconds[name].append(seconds)

    def keep(self, seconds: float, turn: dict[str, object]) -> None:
        """Remember a turn if it is one of this second's slowest."""
        self._kept += 1
        self._slowest.append((seconds, self._kept, turn))
        self._slowest.sort(reverse=True)
        del self._slowest[SLOWEST:]

    def fold(self) -> dict[str, Any]:
        """What came since the last fold, as JSON has it; the counts are those since the start."""
        folded = {
            "counts": dict(self.counts),
            "seconds": {name: encoded(values) for name, values in self._seconds.items() if values},
            "slowest": [[seconds, turn] for seconds, _, turn in self._slowest],
        }
        for values in self._seconds.values():
            del values[:]
        self._slowest.clear()
        return folded


class MergedHistograms:
    """The tallies of all workers together."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, HdrHistogram] = defaultdict(histogram)
        self.slowest: list[tuple[float, dict[str, object]]] = []
        self._counts: dict[int, Counter[str]] = {}

    @property
    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return total

    def add(self, worker: int, folded: dict[str, Any]) -> dict[str, HdrHistogram]:
        """Merge a fold; returns its own histograms."""
        self._counts[worker] = Counter(folded["counts"])
        fresh = {name: HdrHistogram.decode(text) for name, text in folded["seconds"].items()}
        for name, taken in fresh.items():
            self.seconds[name].add(taken)
        self.slowest += [(seconds, turn) for seconds, turn in folded["slowest"]]
        self.slowest.sort(key=lambda kept: kept[0], reverse=True)
        del self.slowest[SLOWEST:]
        return fresh
