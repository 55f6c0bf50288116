"""What workers count: merged, it is what one worker would have counted alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.results.histograms import SLOWEST, MergedHistograms, TurnHistograms

SECONDS = st.lists(st.floats(0, 30), max_size=60)


def folded(tally: TurnHistograms) -> dict[str, Any]:
    """As it travels."""
    found: dict[str, Any] = json.loads(json.dumps(tally.fold()))
    return found


def points(merged: MergedHistograms) -> list[tuple[int, int]]:
    taken = merged.seconds["turn"]
    return [(item.value_iterated_to, item.count_at_value_iterated_to) for item in taken.get_recorded_iterator()]


@settings(max_examples=15)
@given(st.lists(SECONDS, min_size=1, max_size=4))
def test_parts_merge_to_the_whole(parts: list[list[float]]) -> None:
    """Histograms and counts of several workers and seconds are those of one worker in one second."""
    whole, merged, alone = TurnHistograms(), MergedHistograms(), MergedHistograms()
    for worker, part in enumerate(parts):
        tally = TurnHistograms()
        for values in (part[::2], part[1::2]):
            for value in values:
                for each in (tally, whole):
                    each.took("turn", value)
                    each.counts["turns"] += 1
            merged.add(worker, folded(tally))
    alone.add(0, folded(whole))
    assert points(merged) == points(alone)
    assert merged.counts == alone.counts


@given(st.lists(SECONDS, min_size=1, max_size=6))
def test_the_slowest_turns_of_all_are_kept(parts: list[list[float]]) -> None:
    """Whichever worker and second they came from, slowest first."""
    merged = MergedHistograms()
    for worker, part in enumerate(parts):
        tally = TurnHistograms()
        for number, value in enumerate(part):
            tally.keep(value, {"turn": number})
        merged.add(worker, folded(tally))
    everything = sorted((value for part in parts for value in part), reverse=True)
    assert [seconds for seconds, _ in merged.slowest] == everything[:SLOWEST]


def test_a_fold_forgets_what_it_told() -> None:
    """Memory does not grow: a second fold holds the counts since the start, and nothing else."""
    tally = TurnHistograms()
    tally.took("turn", 1.0)
    tally.keep(1.0, {})
    tally.counts["turns"] += 1
    assert tally.fold()["seconds"].keys() == {"turn"}
    assert tally.fold() == {"counts": {"turns": 1}, "seconds": {}, "slowest": []}


def test_an_absurd_time_is_kept_within_the_histogram() -> None:
    """Below a microsecond and above two hours: recorded at the bounds, not lost and not an error."""
    tally, merged = TurnHistograms(), MergedHistograms()
    for value in (0.0, 1e9):
        tally.took("turn", value)
    merged.add(0, folded(tally))
    assert merged.seconds["turn"].get_total_count() == 2
