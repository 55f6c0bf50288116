"""Histograms and counts of the workers, and their merge."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.results.histograms import SLOWEST, MergedHistograms, TurnHistograms

SECONDS = st.lists(st.floats(0, 30), max_size=60)


def flushed(histograms: TurnHistograms) -> dict[str, Any]:
    """Flush the histograms. Return the resulting document as parsed from JSON, in which a worker sends it."""
    document: dict[str, Any] = json.loads(json.dumps(histograms.flush()))
    return document


def points(merged: MergedHistograms) -> list[tuple[int, int]]:
    recorded = merged.seconds["turn"].get_recorded_iterator()
    return [(item.value_iterated_to, item.count_at_value_iterated_to) for item in recorded]


@settings(max_examples=15)
@given(st.lists(SECONDS, min_size=1, max_size=4))
def test_parts_merge_to_the_whole(parts: list[list[float]]) -> None:
    """Values recorded by several workers, in two flushes each, merge to the same as if one worker had recorded them."""
    single, merged, expected = TurnHistograms(), MergedHistograms(), MergedHistograms()
    for worker, part in enumerate(parts):
        histograms = TurnHistograms()
        for values in (part[::2], part[1::2]):
            for value in values:
                for each in (histograms, single):
                    each.record("turn", value)
                    each.counts["turns"] += 1
            merged.add(worker, flushed(histograms))
    expected.add(0, flushed(single))
    assert points(merged) == points(expected)
    assert merged.counts == expected.counts


@given(st.lists(SECONDS, min_size=1, max_size=6))
def test_the_slowest_turns_of_all_are_kept(parts: list[list[float]]) -> None:
    """Of all workers' turns, the `SLOWEST` turns with the longest latency are kept, slowest first."""
    merged = MergedHistograms()
    for worker, part in enumerate(parts):
        histograms = TurnHistograms()
        for number, value in enumerate(part):
            histograms.offer_slow_turn(value, {"turn": number})
        merged.add(worker, flushed(histograms))
    everything = sorted((value for part in parts for value in part), reverse=True)
    assert [seconds for seconds, _ in merged.slowest] == everything[:SLOWEST]


def test_a_flush_clears_the_recorded_values() -> None:
    """A flush removes the recorded values and slow turns. A second flush has only the counts, which are never reset."""
    histograms = TurnHistograms()
    histograms.record("turn", 1.0)
    histograms.offer_slow_turn(1.0, {})
    histograms.counts["turns"] += 1
    assert histograms.flush()["seconds"].keys() == {"turn"}
    assert histograms.flush() == {"counts": {"turns": 1}, "seconds": {}, "slowest": []}


def test_a_value_outside_the_histogram_is_clipped() -> None:
    """A value below a microsecond or above two hours is recorded at the bound."""
    histograms, merged = TurnHistograms(), MergedHistograms()
    for value in (0.0, 1e9):
        histograms.record("turn", value)
    merged.add(0, flushed(histograms))
    assert merged.seconds["turn"].get_total_count() == 2
