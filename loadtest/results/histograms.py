"""Counts and latency histograms of the workers, in memory that does not grow with the length of the run.

While calls run, values in seconds are only appended to arrays. Once a second, `TurnHistograms.flush` turns the arrays
into histograms (three significant digits, steps of 10 us) and clears them. Histograms of all workers and seconds are
merged. Percentiles are never averaged.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

# Smallest and largest value of the histograms in microseconds. Two hours is longer than any turn.
LOWEST_US = 1
HIGHEST_US = 7_200_000_000
DIGITS = 3
STEP_US = 10

SLOWEST = 20
"""Number of the slowest turns that a run keeps with all details."""


def histogram() -> HdrHistogram:
    """Return an empty histogram for values in microseconds."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def encoded(values_s: Sequence[float]) -> str:
    """Return a histogram of values in seconds, compressed and base64-encoded. The histogram is in microseconds.

    Equal values are recorded once, with their count. A hundred callers send 5,000 frames a second. Recording the
    lateness of each frame separately would block the event loop for 20 ms, and the generator would measure its own
    delay.
    """
    merged = histogram()
    steps = np.rint(np.asarray(values_s, np.float64) * (1e6 / STEP_US)) * STEP_US
    values, counts = np.unique(np.clip(steps, LOWEST_US, HIGHEST_US), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        merged.record_value(int(value), count)
    return str(merged.encode().decode("ascii"))


class TurnHistograms:
    """Counts, latencies and slowest turns of one worker.

    Attributes:
        counts: Number of events since the start of the worker, by name.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._slowest: list[tuple[float, int, dict[str, object]]] = []
        self._offered = 0

    def record(self, name: str, seconds: float) -> None:
        """Add one value in seconds to the series of latencies `name`."""
        self._seconds[name].append(seconds)

    def offer_slow_turn(self, seconds: float, turn: dict[str, object]) -> None:
        """Keep a turn if its latency is among the `SLOWEST` longest since the last flush.

        Args:
            seconds: Latency of the turn.
            turn: Description of the turn as a JSON document.
        """
        self._offered += 1
        self._slowest.append((seconds, self._offered, turn))
        self._slowest.sort(reverse=True)
        del self._slowest[SLOWEST:]

    def flush(self) -> dict[str, Any]:
        """Return a JSON document of the records since the last flush, and clear the latencies and slowest turns.

        - `counts`: number of events by name, since the start of the worker.
        - `seconds`: an encoded histogram for each series of latencies.
        - `slowest`: [seconds, turn] pairs, slowest first.
        """
        document = {
            "counts": dict(self.counts),
            "seconds": {name: encoded(values) for name, values in self._seconds.items() if values},
            "slowest": [[seconds, turn] for seconds, _, turn in self._slowest],
        }
        for values in self._seconds.values():
            del values[:]
        self._slowest.clear()
        return document


class MergedHistograms:
    """Merged counts, latencies and slowest turns of all workers.

    Attributes:
        seconds: Histogram of microseconds for each series of latencies, over the whole run.
        slowest: (latency in seconds, turn) pairs of the `SLOWEST` slowest turns, slowest first.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, HdrHistogram] = defaultdict(histogram)
        self.slowest: list[tuple[float, dict[str, object]]] = []
        self._counts: dict[int, Counter[str]] = {}

    @property
    def counts(self) -> Counter[str]:
        """Number of events by name, summed over all workers."""
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return total

    def add(self, worker: int, flushed: dict[str, Any]) -> dict[str, HdrHistogram]:
        """Merge a document of `TurnHistograms.flush` from the worker with the number `worker`.

        Returns:
            Histograms of the latencies in this document only, in microseconds, by series.
        """
        self._counts[worker] = Counter(flushed["counts"])
        fresh = {name: HdrHistogram.decode(text) for name, text in flushed["seconds"].items()}
        for name, part in fresh.items():
            self.seconds[name].add(part)
        self.slowest += [(seconds, turn) for seconds, turn in flushed["slowest"]]
        self.slowest.sort(key=lambda pair: pair[0], reverse=True)
        del self.slowest[SLOWEST:]
        return fresh
