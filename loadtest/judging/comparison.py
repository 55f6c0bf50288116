"""The difference between two load runs, with 95% confidence: what got better or worse, and what cannot be told.

Percentiles are compared by a bootstrap of the two measured distributions, shares by Newcombe's interval of the
difference of two shares. Turns of one call are not independent, so the intervals are somewhat
too narrow; repeat a run before you act on a difference that is only just shown.

Source of the interval for shares: R. G. Newcombe, Statistics in Medicine 17 (1998), method 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtest.results.intervals import RESAMPLES, wilson
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.results.turn_record import WATERFALL
from rejoinder.core.errors import ConfigError

_SEED = 1
STATISTICS = {"p50": 50.0, "p95": 95.0}
SERIES = (VOICE_TO_VOICE, *WATERFALL, "stop", "setup")
"""Names of the compared series of latencies, as in `RunResult.latencies`."""

SHARES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calls refused or failed": (
        ("sessions_refused", "sessions_failed"),
        ("sessions_opened", "sessions_refused", "sessions_failed"),
    ),
    "calls dropped": (("sessions_dropped",), ("sessions_opened",)),
    "turns failed or unanswered": (("failed", "unanswered"), ("turns",)),
    "turns cut off": (("cut_off",), ("turns",)),
    "replies falsely interrupted": (("false_interruptions",), ("answered", "interrupted")),
    "interruptions without effect": (("late_yields",), ("interruptions",)),
    "responses with an error": (("responses_failed",), ("responses",)),
}
"""Compared shares: the keys of `Counts` whose sum has the property, and those whose sum is the total. Less is better.
"""


class Change(Enum):
    """What a comparison shows about one figure.

    Attributes:
        BETTER: The second run is better: the whole 95% interval of the difference is below zero.
        WORSE: The second run is worse: the whole interval is above zero.
        NOT_SHOWN: The interval contains zero.
    """

    BETTER = "better"
    WORSE = "worse"
    NOT_SHOWN = "no difference shown"


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two runs. Times are in milliseconds, shares in percent; less is better.

    Attributes:
        name: Name of the figure.
        unit: "ms" or "%".
        before: The figure of the first run.
        after: The figure of the second run.
        low: Lower end of the 95% interval of `after` - `before`.
        high: Upper end of that interval.
    """

    name: str
    unit: str
    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> Change:
        """What the interval shows."""
        if self.low > 0:
            return Change.WORSE
        return Change.BETTER if self.high < 0 else Change.NOT_SHOWN


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared.

    Attributes:
        differences: The figures that both runs have: latencies first, then shares.
        warnings: What makes the runs different besides the system, one sentence each.
    """

    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    @property
    def worse(self) -> tuple[Difference, ...]:
        """The figures that got worse."""
        return tuple(found for found in self.differences if found.change is Change.WORSE)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compare two results of `rejoinder load run --json`, as parsed JSON.

    Raises:
        ConfigError: A document is not such a result.
    """
    for name, run in (("A", before), ("B", after)):
        if not isinstance(run, Mapping) or not {"latencies", "counts", "outcome", "engines"} <= run.keys():
            what = "the file is not the result of a load run."
            raise ConfigError(what, "Write one with `rejoinder load run --json FILE`.", field=name)
    found = (*_latencies(before["latencies"], after["latencies"]), *_shares(before["counts"], after["counts"]))
    return Comparison(found, tuple(_warnings(before, after)))


def _latencies(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in SERIES:
        if name in before and name in after:
            first, second = (_distribution(run[name]["histogram"]) for run in (before, after))
            for statistic in STATISTICS:
                gained = _drawn(second, statistic, 1) - _drawn(first, statistic, 0)
                low, high = np.percentile(gained, (2.5, 97.5))
                old, new = before[name][f"{statistic}_ms"], after[name][f"{statistic}_ms"]
                yield Difference(f"{name} {statistic}", "ms", before=old, after=new, low=float(low), high=float(high))


def _distribution(encoded: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values in milliseconds and their counts of an encoded histogram, which is in microseconds."""
    decoded = HdrHistogram.decode(encoded)
    steps = [(item.value_iterated_to, item.count_added_in_this_iter_step) for item in decoded.get_recorded_iterator()]
    values, counts = zip(*steps, strict=True) if steps else ((), ())
    return np.asarray(values, np.float64) / 1000, np.asarray(counts, np.int64)


def _drawn(distribution: tuple[np.ndarray, np.ndarray], statistic: str, stream: int) -> np.ndarray:
    """Return the percentile in `RESAMPLES` samples drawn from a distribution. `stream` selects the random numbers."""
    values, counts = distribution
    total = int(counts.sum())
    drawn = np.random.default_rng((_SEED, stream)).multinomial(total, counts / total, RESAMPLES)
    rank = max(1, math.ceil(STATISTICS[statistic] / 100 * total))
    return np.asarray(values[(np.cumsum(drawn, axis=1) < rank).sum(axis=1)])


def _shares(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[Difference]:
    for name, (having, whole) in SHARES.items():
        first, second = (wilson(_sum(run, having), _sum(run, whole)) for run in (before, after))
        if first.total and second.total:
            change = second.share - first.share
            low = change - math.hypot(second.share - second.low, first.high - first.share)
            high = change + math.hypot(second.high - second.share, first.share - first.low)
            yield Difference(
                name, "%", before=100 * first.share, after=100 * second.share, low=100 * low, high=100 * high
            )


def _sum(counts: Mapping[str, int], keys: Sequence[str]) -> int:
    return sum(counts.get(key, 0) for key in keys)


def _warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before.get("schedule_sha256") != after.get("schedule_sha256"):
        yield "The runs did not offer the same calls: their schedules differ."
    for key in ("background", "snr_db", "loss"):
        old, new = (run.get("scenario", {}).get(key) for run in (before, after))
        if old != new:
            yield f"The callers' {key} differs: {old} and {new}."
    for stage in sorted({*before["engines"], *after["engines"]}):
        old, new = before["engines"].get(stage, "none"), after["engines"].get(stage, "none")
        if old != new:
            yield f"The engine of {stage} differs: {old} and {new}."
    runs: Sequence[tuple[str, Mapping[str, Any]]] = (("A", before), ("B", after))
    for name, run in runs:
        if run["outcome"] == "INVALID":
            yield f"Run {name} is INVALID: its load generator failed a self-check."
