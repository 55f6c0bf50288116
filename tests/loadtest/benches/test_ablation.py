"""What a technique is said to buy, from the turns with and without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtest.benches.ablation import ALL_ON, TECHNIQUES, difference, row
from loadtest.results.turn_record import WATERFALL, TurnRecord, unspoken
from rejoinder.core.settings.settings import Settings, parse_settings

TECHNIQUE = TECHNIQUES[1]


def turn(ms: float, premature: int = 0, clip: str = "clip") -> TurnRecord:
    """An answered turn, all of it silence."""
    shares = dict.fromkeys(WATERFALL, 0.0) | {"silence": ms}
    known = unspoken(clip, None, 1)
    return replace(known, voice_to_voice_ms=ms, stages_ms=shares, outcome="answered", premature_replies=premature)


def turns(median_ms: float, count: int = 40, seed: int = 1) -> list[TurnRecord]:
    return [turn(float(ms)) for ms in np.random.default_rng(seed).normal(median_ms, 50, count)]


def test_the_cost_is_the_difference_of_the_medians_with_its_interval() -> None:
    """The interval holds the cost, and leaves out zero when the difference is far beyond the spread."""
    found = row(TECHNIQUE, turns(800), turns(600, count=100, seed=2))
    assert found.low_ms < found.cost_ms < found.high_ms
    assert found.cost_ms == pytest.approx(200, abs=40)
    assert found.low_ms > 100
    assert found.spread.count == 40


def test_a_cost_is_taken_clip_by_clip() -> None:
    """Two heaps of latencies, and every clip costs 20 ms: so says the row, though the median of all jumps by 200."""
    fast, slow = [turn(400, clip="a/fast.wav")] * 5, [turn(600, clip="a/slow.wav")] * 4
    dearer = [turn(420, clip="b/fast.wav")] * 4 + [turn(620, clip="b/slow.wav")] * 5
    found = row(TECHNIQUE, dearer, fast + slow)
    assert (found.cost_ms, found.low_ms, found.high_ms) == (20, 20, 20)
    assert found.spread.median_ms == 620


def test_a_technique_that_buys_nothing_has_zero_in_its_interval() -> None:
    """Two draws of the same distribution."""
    found = row(TECHNIQUE, turns(600, seed=3), turns(600, count=100, seed=4))
    assert found.low_ms < 0 < found.high_ms


def test_unanswered_and_premature_turns_are_told() -> None:
    """They have no latency, and must not vanish."""
    records = [*turns(600), unspoken("clip", None, 1), turn(600, premature=2)]
    found = row(TECHNIQUE, records, turns(600))
    assert (found.unanswered, found.premature) == (1, 2)


def test_the_interval_is_the_same_every_time() -> None:
    """A report is made twice from the same turns with the same figures."""
    mine, theirs = {"a": [1.0, 2.0, 3.0]}, {"a": [2.0, 3.0], "b": [9.0]}
    assert difference(mine, theirs) == difference(mine, theirs)


def test_nothing_answered_is_no_row() -> None:
    """A row without a single latency is an error, not a zero."""
    with pytest.raises(ValueError, match="answered"):
        row(TECHNIQUE, [unspoken("clip", None, 1)], turns(600))
    with pytest.raises(ValueError, match="no clip"):
        row(TECHNIQUE, [turn(600, clip="other")], turns(600))


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_every_technique_is_a_valid_change_of_the_settings(technique: object) -> None:
    """Each row can be configured, and differs from all on."""
    changes, name = technique.changes, technique.name  # type: ignore[attr-defined]  # pytest's ids want an object
    assert (parse_settings(changes) == Settings()) is (name == ALL_ON)
