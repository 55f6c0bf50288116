"""Many turns in one table: median, 95th percentile and range of each stage and of the whole.

The percentile is the nearest rank (the smallest value that at least 95% of all do not exceed): always a time that was
measured, never one between two. The stages of the median turn need not sum to the median of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from loadtest.results.turn_record import WATERFALL, TurnRecord

VOICE_TO_VOICE = "voice_to_voice"


@dataclass(frozen=True, slots=True)
class Spread:
    """All in milliseconds, over `count` turns."""

    count: int
    median_ms: float
    p95_ms: float
    least_ms: float
    most_ms: float


def spread(values_ms: Sequence[float]) -> Spread:
    """Raises ValueError if there are none."""
    if not values_ms:
        raise ValueError("there is no spread of nothing")
    p95 = float(np.percentile(values_ms, 95, method="inverted_cdf"))
    return Spread(
        len(values_ms), median_ms=median(values_ms), p95_ms=p95, least_ms=min(values_ms), most_ms=max(values_ms)
    )


def spreads(records: Sequence[TurnRecord]) -> dict[str, Spread]:
    """By stage in pipeline order, then of the whole, over the turns that were answered and measured."""
    measured = [record.stages_ms for record in records if record.stages_ms is not None]
    table = {stage: spread([shares[stage] for shares in measured]) for stage in WATERFALL if measured}
    totals = [record.voice_to_voice_ms for record in records if record.voice_to_voice_ms is not None]
    return table | ({VOICE_TO_VOICE: spread(totals)} if totals else {})
