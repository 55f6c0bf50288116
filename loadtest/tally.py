"""What a worker counts: memory that does not grow with the run.

Hot paths append seconds to arrays; once a second `fold` turns them into histograms (three significant digits) and
forgets them. Histograms of all workers and seconds are merged; percentiles are never averaged.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

# Microseconds from 1 to two hours: longer than any call.
LOWEST_US = 1
HIGHEST_US = 7_200_000_000
DIGITS = 3

SLOWEST = 20
"""Turns that a run keeps whole, the slowest ones, for somebody to look at."""


def histogram() -> HdrHistogram:
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def encoded(values_s: Iterable[float]) -> str:
    """A histogram of seconds, compressed and in base64."""
    taken = histogram()
    for value in values_s:
        taken.record_value(min(max(LOWEST_US, round(value * 1e6)), HIGHEST_US))
    return str(taken.encode().decode("ascii"))


class Tally:
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


class Merged:
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
