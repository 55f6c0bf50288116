"""Tests of prepared clips (held clips: speech synthesized when the host starts), and of when a filler is due."""

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
    """Return an estimator that has seen FEWEST_TURNS turns.

    The stages in STEPS took `usual_s` seconds in each, in order.
    """
    estimator = StageLatencyEstimator()
    for _ in range(FEWEST_TURNS):
        estimator.observe(dict(zip(STEPS, usual_s, strict=True)), 0.0)
    return estimator


def at(*began: float, ended: int = 0) -> Marks:
    """Return marks in which the first stages of STEPS started at these times in seconds.

    Each stage ends when the next one starts. The last one is still running or, if `ended` is 1, has ended at its start.
    """
    marks = Marks()
    for number, (stage, start) in enumerate(zip(STEPS, began, strict=False)):
        marks.start(stage, start)
        if number + 1 < len(began) or ended:
            marks.end(stage, began[min(number + 1, len(began) - 1)])
    return marks


def test_a_clip_is_found_by_its_words() -> None:
    """`of` finds a clip by its text, ignoring case and punctuation. `next_filler` returns each filler in turn."""
    clips = [HeldClip(text, text.encode()) for text in ("Sorry.", "Let me see.", "One moment.", "Sure.")]
    clips_held = HeldClips(clips[0], (clips[1], clips[2]), (clips[3],))
    assert clips_held.of("sure") == clips_held.of("Sure!") == clips[3]
    assert clips_held.of("Sorry.") == clips[0]
    assert clips_held.of("Sure thing.") is None
    assert {clips_held.next_filler() for _ in range(2)} == set(clips[1:3])


def test_an_answer_within_the_budget_needs_no_filler() -> None:
    """If an answer is predicted in time, the filler is due at the deadline less the usual time of the stages ahead."""
    estimator = after_turns(0.2, 0.1, 0.1)
    assert estimator.filler_due(at(1.0), deadline=2.0, now=1.0) == pytest.approx(2.0 - 0.2, rel=0.02)
    assert estimator.filler_due(at(1.0, 1.2), deadline=2.0, now=1.2) == pytest.approx(2.0 - 0.1, rel=0.02)


def test_an_answer_that_will_be_late_gets_a_filler_at_once() -> None:
    """If the answer is already predicted to be later than the deadline, a filler is due now."""
    assert after_turns(2.0, 0.1, 0.1).filler_due(at(1.0), deadline=2.0, now=1.0) == 1.0
    assert after_turns(0.2, 0.1, 3.0).filler_due(at(1.0, 1.2), deadline=2.0, now=1.25) == 1.25


def test_without_turns_the_guides_targets_apply() -> None:
    """Until FEWEST_TURNS turns were seen, the usual time of a stage is the latency guide's target for it."""
    estimator = StageLatencyEstimator()
    estimator.observe({LLM: 9.0}, 0.0)
    assert estimator.usual_s(LLM, 0.0) == EXPECTED_S[LLM]
    assert after_turns(0.7, 0.1, 0.1).usual_s(LLM, 0.0) == pytest.approx(0.7, rel=0.02)


def test_old_turns_do_not_count() -> None:
    """Stage times older than WINDOW_S seconds do not count for the usual time."""
    assert after_turns(0.7, 0.1, 0.1).usual_s(LLM, 1000.0) == EXPECTED_S[LLM]


def test_no_filler_before_the_question_or_after_the_audio() -> None:
    """No filler is due before a request to the language model was sent, or after the first audio of the answer."""
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
    """`filler_due` returns a time that is not in the past, for any usual stage times and any deadline.

    With a later deadline it is never earlier. Computed again at the returned time, it is the same. The stages that have
    not started can take their usual time between it and the deadline, unless it is now.
    """
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
    """The settings reject an empty phrase, a long one, and too many, because a host synthesizes all when it starts."""
    for key in ("phrases", "fillers"):
        with pytest.raises(ConfigError, match=rf"args\.conversation\.{key}"):
            parse_settings({"conversation": {key: texts}})


def test_the_stages_are_in_pipeline_order() -> None:
    """STEPS lists, in pipeline order, exactly the stages that have an expected time in EXPECTED_S."""
    assert list(STEPS) == [stage for stage in Stage if stage in EXPECTED_S]
