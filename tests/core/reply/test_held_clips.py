"""Tests of held clips, and of when a filler is due."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.held_clips import EXPECTED_S, FEWEST_TURNS, STEPS, HeldClip, HeldClips, StageLatencyEstimator
from rejoinder.core.settings.settings import parse_settings

LLM, SEGMENT, VOICE = STEPS


def after_turns(*usual_s: float) -> StageLatencyEstimator:
    """Return an estimator after turns whose stages took these times."""
    estimator = StageLatencyEstimator()
    for _ in range(FEWEST_TURNS):
        estimator.observe(dict(zip(STEPS, usual_s, strict=True)), 0.0)
    return estimator


def at(*began: float, ended: int = 0) -> Marks:
    """Return marks of stages that started at these times.

    Each stage ends when the next one starts. With `ended`, the last one has ended too.
    """
    marks = Marks()
    for number, (stage, start) in enumerate(zip(STEPS, began, strict=False)):
        marks.start(stage, start)
        if number + 1 < len(began) or ended:
            marks.end(stage, began[min(number + 1, len(began) - 1)])
    return marks


def test_a_clip_is_found_by_its_words() -> None:
    """A clip is found by its words, without case and punctuation. Fillers rotate."""
    clips = [HeldClip(text, text.encode()) for text in ("Sorry.", "Let me see.", "One moment.", "Sure.")]
    clips_held = HeldClips(clips[0], (clips[1], clips[2]), (clips[3],))
    assert clips_held.of("sure") == clips_held.of("Sure!") == clips[3]
    assert clips_held.of("Sorry.") == clips[0]
    assert clips_held.of("Sure thing.") is None
    assert {clips_held.next_filler() for _ in range(2)} == set(clips[1:3])


def test_an_answer_within_the_budget_needs_no_filler() -> None:
    """If the prediction is within the budget, a filler is due only when the later stages no longer fit."""
    estimator = after_turns(0.2, 0.1, 0.1)
    assert estimator.filler_due(at(1.0), deadline=2.0, now=1.0) == pytest.approx(2.0 - 0.2, rel=0.02)
    assert estimator.filler_due(at(1.0, 1.2), deadline=2.0, now=1.2) == pytest.approx(2.0 - 0.1, rel=0.02)


def test_an_answer_that_will_be_late_gets_a_filler_at_once() -> None:
    """If the prediction already misses the budget, a filler is due at once."""
    assert after_turns(2.0, 0.1, 0.1).filler_due(at(1.0), deadline=2.0, now=1.0) == 1.0
    assert after_turns(0.2, 0.1, 3.0).filler_due(at(1.0, 1.2), deadline=2.0, now=1.25) == 1.25


def test_without_turns_the_guides_targets_apply() -> None:
    """Before FEWEST_TURNS turns, the typical time of a stage is the latency guide's target."""
    estimator = StageLatencyEstimator()
    estimator.observe({LLM: 9.0}, 0.0)
    assert estimator.usual_s(LLM, 0.0) == EXPECTED_S[LLM]
    assert after_turns(0.7, 0.1, 0.1).usual_s(LLM, 0.0) == pytest.approx(0.7, rel=0.02)


def test_old_turns_do_not_count() -> None:
    """Durations older than WINDOW_S do not count."""
    assert after_turns(0.7, 0.1, 0.1).usual_s(LLM, 1000.0) == EXPECTED_S[LLM]


def test_no_filler_before_the_question_or_after_the_audio() -> None:
    """No filler is due before the model is asked, or after the first audio."""
    estimator = after_turns(9.0, 9.0, 9.0)
    assert estimator.filler_due(Marks(), deadline=0.0, now=5.0) == math.inf
    assert estimator.filler_due(at(1.0, 1.2, 1.3, ended=1), deadline=0.0, now=5.0) == math.inf


@given(
    st.tuples(*[st.floats(0.01, 5) for _ in STEPS]),
    st.integers(1, 3),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_a_filler_is_due_when_the_prediction_misses_the_budget(
    usual_s: tuple[float, float, float], reached: int, budget_s: float, waited_s: float
) -> None:
    """A filler is due exactly at the predicted time, and never sooner with a longer budget."""
    estimator = after_turns(*usual_s)
    marks = at(*[10.0 + step for step in range(reached)])
    now = 10.0 + reached + waited_s
    due = estimator.filler_due(marks, now + budget_s, now)
    assert due >= now
    assert estimator.filler_due(marks, now + budget_s, due) == pytest.approx(due)
    assert estimator.filler_due(marks, now + budget_s + 1, now) >= due
    left_s = sum(estimator.usual_s(stage, now) for stage in STEPS[reached:])
    assert due <= max(now, now + budget_s - left_s) + 1e-9


@pytest.mark.parametrize("texts", [[""], ["a" * 201], ["Hm."] * 33])
def test_phrases_are_short_and_few(texts: list[str]) -> None:
    """Empty, long or too many phrases are rejected, because a host synthesizes all of them at its start."""
    for key in ("phrases", "fillers"):
        with pytest.raises(ConfigError, match=rf"args\.conversation\.{key}"):
            parse_settings({"conversation": {key: texts}})


def test_the_stages_are_in_pipeline_order() -> None:
    """STEPS is in pipeline order, and each stage has an expected time."""
    assert list(STEPS) == [stage for stage in Stage if stage in EXPECTED_S]
