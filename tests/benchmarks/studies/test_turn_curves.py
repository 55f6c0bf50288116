"""Tests of the curves of cut-offs against latency, and of fitting the weights of the fused rule.

The fused rule combines the turn model's probability with the transcript's ending.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.turn_curves import (
    CurvePoint,
    cross_validated,
    cut_at,
    delay_at,
    fit,
    fixed,
    fused,
    line,
    point,
    stock,
)
from benchmarks.studies.turn_study import Silence, sentence_over
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.end_of_turn import WEIGHTS, end_of_turn_probability
from rejoinder.core.turns.endpointing import PauseStats
from rejoinder.core.turns.transcript_ending import TranscriptEnding

END = Silence(
    "a",
    soft_ms=32.0,
    resumed_ms=None,
    probability=0.9,
    later=0.9,
    judged_ms=50.0,
    text="and so",
    transcribed_ms=60.0,
    sentence_over=False,
)
PAUSE = Silence(
    "a",
    soft_ms=32.0,
    resumed_ms=250.0,
    probability=0.1,
    later=0.1,
    judged_ms=50.0,
    text="and so",
    transcribed_ms=60.0,
    sentence_over=False,
)
BETWEEN = Silence(
    "a",
    soft_ms=32.0,
    resumed_ms=900.0,
    probability=0.9,
    later=0.9,
    judged_ms=50.0,
    text="That is all.",
    transcribed_ms=60.0,
    sentence_over=True,
)


def test_a_point_counts_ends_and_pauses() -> None:
    """The delay is computed from silences at the end of a clip, the cut-off rate from pauses inside a sentence.

    A silence between two sentences counts for neither.
    """
    assert point(fixed, 200.0, [PAUSE, BETWEEN, END]) == CurvePoint(200.0, 200.0, 1.0)
    assert point(fixed, 300.0, [PAUSE, BETWEEN, END]) == CurvePoint(300.0, 300.0, 0.0)


def test_the_stock_rule_waits_three_seconds_for_a_no() -> None:
    """With the rule `stock`, a probability above the threshold ends the turn at the verdict, a lower one after 3 s."""
    assert stock(END, PauseStats(), 0.5) == 250.0
    assert stock(PAUSE, PauseStats(), 0.5) == 3000.0


def test_a_callers_own_pauses_lengthen_the_wait() -> None:
    """After long pauses in a clip, the fused rule waits longer in the rest of that clip, but not in the next clip."""
    rule = fused(WEIGHTS, Settings())
    long_pauses = [PAUSE, BETWEEN, END]
    other = [Silence("b", *(getattr(END, name) for name in list(END.__slots__)[1:]))]
    learned, fresh = point(rule, 0.02, long_pauses).delay_ms, point(rule, 0.02, [*long_pauses, *other]).delay_ms
    assert fresh < learned


def test_a_curve_is_read_at_its_best_point() -> None:
    """`cut_at` returns the lowest cut-off rate (0..1) of the points with at most this delay in ms, or None.

    `delay_at` returns the lowest delay of the points with at most this cut-off rate.
    """
    points = [CurvePoint(1, 200, 0.3), CurvePoint(2, 300, 0.1), CurvePoint(3, 500, 0.04)]
    assert cut_at(points, 300) == 0.1
    assert cut_at(points, 100) is None
    assert delay_at(points, 0.05) == 500
    assert line("x", points) == "| x | 10.0% | 4.0% | 500 ms | 300 ms |"


def test_the_fit_follows_a_reliable_turn_model() -> None:
    """If the turn model separates ends from pauses, its 0.9 gives a fitted probability above 0.8, its 0.1 below 0.2.

    The fused rule then cuts off at most 5 percentage points more pauses than a fixed silence with the same delay.
    """
    rng = np.random.default_rng(3)
    silences = [
        Silence(
            f"c{index % 25}",
            soft_ms=32.0,
            resumed_ms=None if end else 250.0,
            probability=0.5,
            later=model,
            judged_ms=50.0,
            text="and so",
            transcribed_ms=60.0,
            sentence_over=False,
        )
        for index, end in enumerate(rng.random(200) < 0.5)
        for model in [float(np.clip(rng.normal(0.85 if end else 0.15, 0.1), 0.01, 0.99))]
    ]
    weights = fit(silences)
    assert end_of_turn_probability(0.9, TranscriptEnding.UNCLEAR, weights) > 0.8
    assert end_of_turn_probability(0.1, TranscriptEnding.UNCLEAR, weights) < 0.2
    found = cross_validated(lambda fitted: fused(fitted, Settings()), 0.05, silences)
    assert found.cut < point(fixed, found.delay_ms, silences).cut + 0.05


@pytest.mark.parametrize(
    ("transcript", "over"),
    [("Goodbye", True), ("Good-bye. Thank you", False), ("goodbye thank you for calling", True), ("", False)],
)
def test_the_end_of_a_sentence_is_found_in_the_clips_text(transcript: str, over: bool) -> None:
    """`sentence_over` is true if the transcript so far ends with the last word of a sentence of the clip's text.

    Words that are recognized differently, such as "good-bye", do not matter.
    """
    assert sentence_over("Goodbye. Thank you for calling.", transcript) is over
