"""What is held ready, and when a filler is due."""

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


def learned(*usual_s: float) -> StageLatencyEstimator:
    """After turns that took so long, step by step."""
    foresight = StageLatencyEstimator()
    for _ in range(FEWEST_TURNS):
        foresight.observe(dict(zip(STEPS, usual_s, strict=True)), 0.0)
    return foresight


def at(*began: float, ended: int = 0) -> Marks:
    """Steps that began at these times; each ended when the next began, and `ended` more of them at the last time."""
    marks = Marks()
    for number, (stage, start) in enumerate(zip(STEPS, began, strict=False)):
        marks.start(stage, start)
        if number + 1 < len(began) or ended:
            marks.end(stage, began[min(number + 1, len(began) - 1)])
    return marks


def test_a_clip_is_found_by_its_words() -> None:
    """Case and punctuation aside; fillers take turns."""
    clips = [HeldClip(text, text.encode()) for text in ("Sorry.", "Let me see.", "One moment.", "Sure.")]
    phrases = HeldClips(clips[0], (clips[1], clips[2]), (clips[3],))
    assert phrases.of("sure") == phrases.of("Sure!") == clips[3]
    assert phrases.of("Sorry.") == clips[0]
    assert phrases.of("Sure thing.") is None
    assert {phrases.next_filler() for _ in range(2)} == set(clips[1:3])


def test_a_usual_answer_needs_no_filler() -> None:
    """Predicted within the budget: only if nothing moves until the later steps no longer fit."""
    foresight = learned(0.2, 0.1, 0.1)
    assert foresight.filler_due(at(1.0), deadline=2.0, now=1.0) == pytest.approx(2.0 - 0.2, rel=0.02)
    assert foresight.filler_due(at(1.0, 1.2), deadline=2.0, now=1.2) == pytest.approx(2.0 - 0.1, rel=0.02)


def test_an_answer_that_is_bound_to_be_late_gets_one_at_once() -> None:
    """The steps to come alone miss the budget."""
    assert learned(2.0, 0.1, 0.1).filler_due(at(1.0), deadline=2.0, now=1.0) == 1.0
    assert learned(0.2, 0.1, 3.0).filler_due(at(1.0, 1.2), deadline=2.0, now=1.25) == 1.25


def test_before_turns_were_seen_the_guides_targets_stand_in() -> None:
    """And a stage that was seen too seldom has no median yet."""
    foresight = StageLatencyEstimator()
    foresight.observe({LLM: 9.0}, 0.0)
    assert foresight.usual_s(LLM, 0.0) == EXPECTED_S[LLM]
    assert learned(0.7, 0.1, 0.1).usual_s(LLM, 0.0) == pytest.approx(0.7, rel=0.02)


def test_lately_is_what_counts() -> None:
    """What a stage took minutes ago predicts nothing."""
    assert learned(0.7, 0.1, 0.1).usual_s(LLM, 1000.0) == EXPECTED_S[LLM]


def test_nothing_is_due_before_there_is_a_question_or_after_there_is_audio() -> None:
    """Until the model is asked nobody knows whether there is anything to answer."""
    foresight = learned(9.0, 9.0, 9.0)
    assert foresight.filler_due(Marks(), deadline=0.0, now=5.0) == math.inf
    assert foresight.filler_due(at(1.0, 1.2, 1.3, ended=1), deadline=0.0, now=5.0) == math.inf


@given(
    st.tuples(*[st.floats(0.01, 5) for _ in STEPS]),
    st.integers(1, 3),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_it_is_due_exactly_when_the_prediction_misses_the_budget(
    usual_s: tuple[float, float, float], reached: int, budget_s: float, waited_s: float
) -> None:
    """Asked again at the time it said it is due then, not sooner; and a longer budget never makes it sooner."""
    foresight = learned(*usual_s)
    marks = at(*[10.0 + step for step in range(reached)])
    now = 10.0 + reached + waited_s
    due = foresight.filler_due(marks, now + budget_s, now)
    assert due >= now
    assert foresight.filler_due(marks, now + budget_s, due) == pytest.approx(due)
    assert foresight.filler_due(marks, now + budget_s + 1, now) >= due
    left_s = sum(foresight.usual_s(stage, now) for stage in STEPS[reached:])
    assert due <= max(now, now + budget_s - left_s) + 1e-9


@pytest.mark.parametrize("texts", [[""], ["a" * 201], ["Hm."] * 33])
def test_phrases_are_short_and_few(texts: list[str]) -> None:
    """Each is synthesized before a host opens: no empty ones, no speeches, no thousands."""
    for key in ("phrases", "fillers"):
        with pytest.raises(ConfigError, match=rf"args\.conversation\.{key}"):
            parse_settings({"conversation": {key: texts}})


def test_the_steps_are_the_waterfalls() -> None:
    """In pipeline order, and each has an expectation."""
    assert list(STEPS) == [stage for stage in Stage if stage in EXPECTED_S]
