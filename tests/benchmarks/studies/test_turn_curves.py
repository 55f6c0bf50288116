"""Cut-offs against latency: what a point and a curve are, and that the fit finds what it is shown."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.turn_curves import (
    CurvePoint,
    crossed,
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
from rejoinder.core.turns.end_of_turn import WEIGHTS, complete
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
    """Ends have delays, pauses are cut or not, and what lies between two sentences is neither."""
    assert point(fixed, 200.0, [PAUSE, BETWEEN, END]) == CurvePoint(200.0, 200.0, 1.0)
    assert point(fixed, 300.0, [PAUSE, BETWEEN, END]) == CurvePoint(300.0, 300.0, 0.0)


def test_the_stock_rule_waits_three_seconds_for_a_no() -> None:
    """A probability above the setting takes the turn when the verdict is there."""
    assert stock(END, PauseStats(), 0.5) == 250.0
    assert stock(PAUSE, PauseStats(), 0.5) == 3000.0


def test_a_callers_own_pauses_lengthen_the_wait() -> None:
    """Ours learns within a clip, and forgets with the next."""
    rule = fused(WEIGHTS, Settings())
    long_pauses = [PAUSE, BETWEEN, END]
    other = [Silence("b", *(getattr(END, name) for name in list(END.__slots__)[1:]))]
    learned, fresh = point(rule, 0.02, long_pauses).delay_ms, point(rule, 0.02, [*long_pauses, *other]).delay_ms
    assert fresh < learned


def test_a_curve_is_read_at_its_best_point() -> None:
    """The least that a rule can do within the bound; None where it cannot."""
    points = [CurvePoint(1, 200, 0.3), CurvePoint(2, 300, 0.1), CurvePoint(3, 500, 0.04)]
    assert cut_at(points, 300) == 0.1
    assert cut_at(points, 100) is None
    assert delay_at(points, 0.05) == 500
    assert line("x", points) == "| x | 10.0% | 4.0% | 500 ms | 300 ms |"


def test_the_fit_finds_the_turn_model_where_it_knows() -> None:
    """Of silences that the turn model tells apart the probability of the ends is high, of the pauses low."""
    rng = np.random.default_rng(3)
    silences = [
        Silence(
            f"c{at % 25}",
            soft_ms=32.0,
            resumed_ms=None if end else 250.0,
            probability=0.5,
            later=model,
            judged_ms=50.0,
            text="and so",
            transcribed_ms=60.0,
            sentence_over=False,
        )
        for at, end in enumerate(rng.random(200) < 0.5)
        for model in [float(np.clip(rng.normal(0.85 if end else 0.15, 0.1), 0.01, 0.99))]
    ]
    weights = fit(silences)
    assert complete(0.9, TranscriptEnding.DOUBTFUL, weights) > 0.8
    assert complete(0.1, TranscriptEnding.DOUBTFUL, weights) < 0.2
    found = crossed(lambda fitted: fused(fitted, Settings()), 0.05, silences)
    assert found.cut < point(fixed, found.delay_ms, silences).cut + 0.05


@pytest.mark.parametrize(
    ("heard", "over"),
    [("Goodbye", True), ("Good-bye. Thank you", False), ("goodbye thank you for calling", True), ("", False)],
)
def test_where_a_sentence_ends_is_read_from_the_clips_text(heard: str, over: bool) -> None:
    """By the word that the transcript reaches."""
    assert sentence_over("Goodbye. Thank you for calling.", heard) is over
