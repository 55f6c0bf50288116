"""Statistics over many turns: median, 95th percentile and range of each stage and of the whole turn.

The 95th percentile is the nearest rank: the smallest value that at least 95% of the values do not exceed. It is always
a measured time, never an interpolated one. The medians of the stages need not sum to the median of the whole turn.
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
    """Statistics of one latency.

    Attributes:
        count: Number of values.
        median_ms: Median in milliseconds.
        p95_ms: 95th percentile (nearest rank) in milliseconds.
        least_ms: Minimum in milliseconds.
        most_ms: Maximum in milliseconds.
    """

    count: int
    median_ms: float
    p95_ms: float
    least_ms: float
    most_ms: float


def spread(values_ms: Sequence[float]) -> Spread:
    """Return the statistics of values in milliseconds. Raise ValueError if `values_ms` is empty."""
    if not values_ms:
        raise ValueError("no values to summarize")
    p95 = float(np.percentile(values_ms, 95, method="inverted_cdf"))
    return Spread(
        len(values_ms), median_ms=median(values_ms), p95_ms=p95, least_ms=min(values_ms), most_ms=max(values_ms)
    )


def spreads(records: Sequence[TurnRecord]) -> dict[str, Spread]:
    """Return the statistics of each stage in pipeline order, and then of the whole turn, by name.

    Turns without stages do not count for the stages. Turns without a voice-to-voice latency do not count for the whole
    turn. The result is empty if no turn has either.
    """
    measured = [record.stages_ms for record in records if record.stages_ms is not None]
    table = {stage: spread([shares[stage] for shares in measured]) for stage in WATERFALL if measured}
    totals = [record.voice_to_voice_ms for record in records if record.voice_to_voice_ms is not None]
    return table | ({VOICE_TO_VOICE: spread(totals)} if totals else {})
