"""Tests of the ablation, which measures by how much latency grows if one latency technique is switched off.

This growth in ms is the technique's cost. It is computed from turns with the technique (baseline) and without.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtest.benches.ablation import ALL_ON, TECHNIQUES, difference, row
from loadtest.results.turn_record import WATERFALL, TurnRecord, unanswered_record
from rejoinder.core.settings.settings import Settings, parse_settings

TECHNIQUE = TECHNIQUES[1]


def turn(ms: float, premature: int = 0, clip: str = "clip") -> TurnRecord:
    """Return an answered turn with a latency of `ms`, all in the stage `silence`, and `premature` premature replies."""
    shares = dict.fromkeys(WATERFALL, 0.0) | {"silence": ms}
    known = unanswered_record(clip, None, 1)
    return replace(known, voice_to_voice_ms=ms, stages_ms=shares, outcome="answered", premature_replies=premature)


def turns(median_ms: float, count: int = 40, seed: int = 1) -> list[TurnRecord]:
    return [turn(float(ms)) for ms in np.random.default_rng(seed).normal(median_ms, 50, count)]


def test_the_cost_is_the_difference_of_the_medians_with_its_interval() -> None:
    """For medians of 800 ms without and 600 ms with a technique, the cost is within 40 ms of 200 ms.

    The confidence interval contains the cost and is above 100 ms.
    """
    found = row(TECHNIQUE, turns(800), turns(600, count=100, seed=2))
    assert found.low_ms < found.cost_ms < found.high_ms
    assert found.cost_ms == pytest.approx(200, abs=40)
    assert found.low_ms > 100
    assert found.spread.count == 40


def test_a_cost_is_taken_clip_by_clip() -> None:
    """If each clip is 20 ms slower, the cost is 20 ms, although the median over all turns rises by 200 ms."""
    fast, slow = [turn(400, clip="a/fast.wav")] * 5, [turn(600, clip="a/slow.wav")] * 4
    without = [turn(420, clip="b/fast.wav")] * 4 + [turn(620, clip="b/slow.wav")] * 5
    found = row(TECHNIQUE, without, fast + slow)
    assert (found.cost_ms, found.low_ms, found.high_ms) == (20, 20, 20)
    assert found.spread.median_ms == 620


def test_a_technique_without_effect_has_zero_in_its_interval() -> None:
    """Two samples of the same distribution give an interval that contains zero."""
    found = row(TECHNIQUE, turns(600, seed=3), turns(600, count=100, seed=4))
    assert found.low_ms < 0 < found.high_ms


def test_unanswered_and_premature_turns_are_counted() -> None:
    """A technique's row counts the unanswered turns and the premature replies of the run without the technique."""
    records = [*turns(600), unanswered_record("clip", None, 1), turn(600, premature=2)]
    found = row(TECHNIQUE, records, turns(600))
    assert (found.unanswered, found.premature) == (1, 2)


def test_the_interval_is_deterministic() -> None:
    """The same turns give the same cost and the same confidence interval."""
    without, baseline = {"a": [1.0, 2.0, 3.0]}, {"a": [2.0, 3.0], "b": [9.0]}
    assert difference(without, baseline) == difference(without, baseline)


def test_a_row_needs_answered_turns() -> None:
    """`row` raises ValueError if no turn without the technique was answered.

    It also raises ValueError if no clip was answered both with and without the technique.
    """
    with pytest.raises(ValueError, match="answered"):
        row(TECHNIQUE, [unanswered_record("clip", None, 1)], turns(600))
    with pytest.raises(ValueError, match="no clip"):
        row(TECHNIQUE, [turn(600, clip="other")], turns(600))


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_every_technique_is_a_valid_change_of_the_settings(technique: object) -> None:
    """Each technique's changes are valid settings that differ from the defaults, except those of `ALL_ON`."""
    changes, name = technique.changes, technique.name  # type: ignore[attr-defined]  # pytest's ids want an object
    assert (parse_settings(changes) == Settings()) is (name == ALL_ON)
