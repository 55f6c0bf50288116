"""What a session does without follows its late turns, with hysteresis."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.degradation import (
    MOST_PATIENCE,
    DegradationLevel,
    DegradationMeasure,
    DegradationPolicy,
    climb,
    is_late,
    remedies,
)
from rejoinder.core.settings.settings import DegradationSettings

RULES = DegradationSettings()
LATE, GOOD = RULES.late_turns, RULES.good_turns
SECONDS = st.floats(0, 3)
SHARES = st.fixed_dictionaries(dict.fromkeys(Stage, SECONDS))
USUAL = dict.fromkeys(Stage, 0.02)

rules = st.builds(DegradationSettings, late_turns=st.integers(1, 4), good_turns=st.integers(1, 6))


def slow(*stages: Stage) -> dict[Stage, float]:
    """A turn in which these took a second each."""
    return USUAL | dict.fromkeys(stages, 1.0)


def after(
    *turns: dict[Stage, float], small: bool = False, settings: DegradationSettings = RULES
) -> frozenset[DegradationMeasure]:
    """The steps in force after these turns, one a second."""
    ladder = DegradationPolicy(settings, small=small)
    for second, turn in enumerate(turns):
        ladder.observe(turn, float(second))
    return ladder.steps(float(len(turns)))


# -- which step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        (Stage.STT, DegradationMeasure.NO_SPECULATION),
        (Stage.LLM_FIRST_TOKEN, DegradationMeasure.FILLER),
        (Stage.FIRST_SEGMENT, DegradationMeasure.SHORT_SEGMENT),
        (Stage.TTS_FIRST_AUDIO, DegradationMeasure.SHORT_SEGMENT),
    ],
)
def test_the_step_is_the_one_of_the_stage_that_ate_the_budget(stage: Stage, step: DegradationMeasure) -> None:
    """And no other."""
    assert after(*[slow(stage)] * LATE) == {step}


@pytest.mark.parametrize("stage", [Stage.SILENCE, Stage.ENDPOINT, Stage.DELIVERY])
def test_a_stage_without_a_remedy_is_blamed_for_nothing(stage: Stage) -> None:
    """Nor is a caller who is waited for any sign of load."""
    assert after(*[slow(stage)] * 10) == frozenset()


def test_several_slow_stages_have_their_own_steps() -> None:
    """Each is counted by itself."""
    turn = slow(Stage.STT, Stage.TTS_FIRST_AUDIO)
    assert after(*[turn] * LATE) == {DegradationMeasure.NO_SPECULATION, DegradationMeasure.SHORT_SEGMENT}


def test_the_smaller_model_comes_before_fillers() -> None:
    """If there is one; then both, since the next late turns were the smaller model's."""
    turn = slow(Stage.LLM_FIRST_TOKEN)
    assert after(*[turn] * LATE, small=True) == {DegradationMeasure.SMALL_MODEL}
    assert after(*[turn] * 2 * LATE, small=True) == {DegradationMeasure.SMALL_MODEL, DegradationMeasure.FILLER}


# -- when --------------------------------------------------------------------------------------------------------------


@given(SHARES)
def test_a_turn_within_the_total_is_not_late_whatever_its_stages_took(shares: dict[Stage, float]) -> None:
    """And one that misses a laxer tier misses a stricter one; a slower turn is never less late."""
    spent_s = sum(shares.values()) - shares[Stage.SILENCE] - shares[Stage.ENDPOINT]
    for tier in Tier:
        limit_ms = total_limit_ms(tier) - component_limit_ms(Component.VAD, tier)
        if abs(spent_s * 1000 - limit_ms) > 1e-6:
            assert is_late(shares, tier) is (spent_s * 1000 > limit_ms)
    verdicts = [is_late(shares, tier) for tier in Tier]
    assert verdicts == sorted(verdicts, reverse=True)
    slower = shares | {Stage.STT: shares[Stage.STT] + 0.5}
    assert all(is_late(slower, tier) for tier, late in zip(Tier, verdicts, strict=True) if late)


@given(st.dictionaries(st.sampled_from(list(Stage)), SECONDS), st.booleans(), st.sampled_from(Tier))
def test_a_stage_that_takes_longer_is_blamed_no_less(shares: dict[Stage, float], small: bool, tier: Tier) -> None:
    """Of every remedy: more of any stage never lifts a blame."""
    for remedy in remedies(tier, small=small):
        for stage in Stage:
            slower = shares | {stage: shares.get(stage, 0.0) + 1.0}
            assert remedy.blames(slower) >= remedy.blames(shares)


@given(rules, st.integers(1, 2), st.lists(st.booleans(), max_size=80))
def test_steps_are_taken_and_taken_back_one_by_one(settings: DegradationSettings, top: int, turns: list[bool]) -> None:
    """Up only behind enough late turns in a row, down only behind enough others in a row, and never beyond the ends."""
    state = DegradationLevel(settings.good_turns)
    for number, blamed in enumerate(turns, 1):
        before, state = state, climb(state, settings, top, blamed=blamed)
        change = state.level - before.level
        assert 0 <= state.level <= top
        assert settings.good_turns <= state.patience <= MOST_PATIENCE * settings.good_turns
        if change > 0:
            assert change == 1
            assert all(turns[number - settings.late_turns : number])
            assert number >= settings.late_turns
        if change < 0:
            assert change == -1
            assert not any(turns[number - before.patience : number])
            assert number >= before.patience


@given(rules, st.integers(1, 2), st.lists(st.booleans(), max_size=40))
def test_whatever_was_before_lasting_trouble_has_all_steps_and_lasting_peace_none(
    settings: DegradationSettings, top: int, turns: list[bool]
) -> None:
    """And after as much peace again nothing is held against the session any more."""
    state = DegradationLevel(settings.good_turns)
    for blamed in turns:
        state = climb(state, settings, top, blamed=blamed)
    for _ in range(top * settings.late_turns):
        state = climb(state, settings, top, blamed=True)
    assert state.level == top
    for _ in range(top * MOST_PATIENCE * settings.good_turns):
        state = climb(state, settings, top, blamed=False)
    assert state.level == 0
    for _ in range(MOST_PATIENCE * settings.good_turns):
        state = climb(state, settings, top, blamed=False)
    assert state.patience == settings.good_turns


def test_a_step_taken_back_too_soon_is_kept_longer() -> None:
    """A stage that is slow whenever it is used costs ever fewer late turns: the second time eight good ones."""
    late = slow(Stage.STT)
    relapsed = [late] * LATE + [USUAL] * GOOD + [late] * LATE
    assert after(*relapsed[: LATE + GOOD]) == frozenset()
    assert after(*relapsed, *[USUAL] * (2 * GOOD - 1)) == {DegradationMeasure.NO_SPECULATION}
    assert after(*relapsed, *[USUAL] * 2 * GOOD) == frozenset()


def test_a_reply_that_waited_for_its_turn_was_in_time() -> None:
    """However long it took behind the caller's silence."""
    ladder = DegradationPolicy(RULES, small=False)
    for second in range(10):
        ladder.observe(slow(Stage.LLM_FIRST_TOKEN), float(second), held=True)
    assert ladder.steps(10.0) == frozenset()


def test_a_long_silence_is_a_new_beginning() -> None:
    """What was slow then says nothing now; and one late turn alone takes no step."""
    ladder = DegradationPolicy(RULES, small=False)
    for second in range(LATE):
        ladder.observe(slow(Stage.STT), float(second))
    assert ladder.steps(LATE + RULES.reset_after_s - 2) == {DegradationMeasure.NO_SPECULATION}
    assert ladder.steps(LATE + RULES.reset_after_s) == frozenset()
    ladder.observe(slow(Stage.STT), LATE + RULES.reset_after_s)
    assert ladder.steps(LATE + RULES.reset_after_s) == frozenset()


def test_off_is_off() -> None:
    """`degradation.enabled: false` takes no step ever."""
    assert after(*[slow(*Stage)] * 10, settings=DegradationSettings(enabled=False)) == frozenset()
