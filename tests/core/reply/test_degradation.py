"""Tests of the degradation policy: which features a session omits after late turns, and when it stops omitting them.

Each omission is a measure, for example NO_SPECULATION. A stage is blamed for a late turn if it exceeded its limit.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.degradation import (
    MAX_RECOVERY_FACTOR,
    DegradationLevel,
    DegradationMeasure,
    DegradationPolicy,
    is_late,
    next_level,
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
    """Return the seconds per stage of a turn: 1 s for each of these stages, 0.02 s for the others."""
    return USUAL | dict.fromkeys(stages, 1.0)


def after(
    *turns: dict[Stage, float], small: bool = False, settings: DegradationSettings = RULES
) -> frozenset[DegradationMeasure]:
    """Return the measures that apply after these turns, one per second. `small`: whether there is a backup model."""
    policy = DegradationPolicy(settings, small=small)
    for second, turn in enumerate(turns):
        policy.observe(turn, float(second))
    return policy.steps(float(len(turns)))


# -- which measures are applied ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        (Stage.STT, DegradationMeasure.NO_SPECULATION),
        (Stage.LLM_FIRST_TOKEN, DegradationMeasure.FILLER),
        (Stage.FIRST_SEGMENT, DegradationMeasure.SHORT_SEGMENT),
        (Stage.TTS_FIRST_AUDIO, DegradationMeasure.SHORT_SEGMENT),
    ],
)
def test_the_measure_belongs_to_the_slow_stage(stage: Stage, step: DegradationMeasure) -> None:
    """Late turns apply the measure of the stage that exceeded its limit, and no other."""
    assert after(*[slow(stage)] * LATE) == {step}


@pytest.mark.parametrize("stage", [Stage.SILENCE, Stage.ENDPOINT, Stage.DELIVERY])
def test_other_stages_apply_no_measure(stage: Stage) -> None:
    """No measure is applied if the slow stage is SILENCE, ENDPOINT or DELIVERY, for which there is no measure."""
    assert after(*[slow(stage)] * 10) == frozenset()


def test_several_slow_stages_apply_their_own_measures() -> None:
    """If two stages are slow, the measures of both are applied."""
    turn = slow(Stage.STT, Stage.TTS_FIRST_AUDIO)
    assert after(*[turn] * LATE) == {DegradationMeasure.NO_SPECULATION, DegradationMeasure.SHORT_SEGMENT}


def test_the_smaller_model_comes_before_fillers() -> None:
    """With a backup model, late turns first apply the small model, and then fillers as well."""
    turn = slow(Stage.LLM_FIRST_TOKEN)
    assert after(*[turn] * LATE, small=True) == {DegradationMeasure.SMALL_MODEL}
    assert after(*[turn] * 2 * LATE, small=True) == {DegradationMeasure.SMALL_MODEL, DegradationMeasure.FILLER}


# -- when measures are applied and lifted ------------------------------------------------------------------------------


@given(SHARES)
def test_only_the_total_makes_a_turn_late(shares: dict[Stage, float]) -> None:
    """A turn is late exactly if its stages except SILENCE and ENDPOINT together exceed the limit of the tier.

    That limit is the tier's total less its limit for voice activity detection. A turn that is late in a tier is late
    in every stricter tier, and a slower turn is late too.
    """
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
    """A measure that applies because its stages exceeded their limit also applies if any stage takes 1 s longer."""
    for remedy in remedies(tier, small=small):
        for stage in Stage:
            slower = shares | {stage: shares.get(stage, 0.0) + 1.0}
            assert remedy.blames(slower) >= remedy.blames(shares)


@given(rules, st.integers(1, 2), st.lists(st.booleans(), max_size=80))
def test_measures_are_applied_and_lifted_one_by_one(settings: DegradationSettings, top: int, turns: list[bool]) -> None:
    """The level, the number of applied measures, changes by one at a time and stays between 0 and `top`.

    It rises only after `late_turns` late turns in a row, and falls only after `recovery_turns` good turns in a row.
    """
    state = DegradationLevel(settings.good_turns)
    for number, blamed in enumerate(turns, 1):
        before, state = state, next_level(state, settings, top, blamed=blamed)
        change = state.level - before.level
        assert 0 <= state.level <= top
        assert settings.good_turns <= state.recovery_turns <= MAX_RECOVERY_FACTOR * settings.good_turns
        if change > 0:
            assert change == 1
            assert all(turns[number - settings.late_turns : number])
            assert number >= settings.late_turns
        if change < 0:
            assert change == -1
            assert not any(turns[number - before.recovery_turns : number])
            assert number >= before.recovery_turns


@given(rules, st.integers(1, 2), st.lists(st.booleans(), max_size=40))
def test_lasting_lateness_applies_all_measures(settings: DegradationSettings, top: int, turns: list[bool]) -> None:
    """Enough late turns apply all `top` measures, and enough good turns lift them, whatever happened before.

    Each measure takes `late_turns` late turns, and MAX_RECOVERY_FACTOR times `good_turns` good turns to lift. Further
    good turns reset `recovery_turns`, the number of good turns that lift a measure, to `good_turns`.
    """
    state = DegradationLevel(settings.good_turns)
    for blamed in turns:
        state = next_level(state, settings, top, blamed=blamed)
    for _ in range(top * settings.late_turns):
        state = next_level(state, settings, top, blamed=True)
    assert state.level == top
    for _ in range(top * MAX_RECOVERY_FACTOR * settings.good_turns):
        state = next_level(state, settings, top, blamed=False)
    assert state.level == 0
    for _ in range(MAX_RECOVERY_FACTOR * settings.good_turns):
        state = next_level(state, settings, top, blamed=False)
    assert state.recovery_turns == settings.good_turns


def test_a_measure_lifted_too_soon_lasts_longer() -> None:
    """If turns are late again after a measure was lifted, the measure is next lifted after twice as many good turns."""
    late = slow(Stage.STT)
    relapsed = [late] * LATE + [USUAL] * GOOD + [late] * LATE
    assert after(*relapsed[: LATE + GOOD]) == frozenset()
    assert after(*relapsed, *[USUAL] * (2 * GOOD - 1)) == {DegradationMeasure.NO_SPECULATION}
    assert after(*relapsed, *[USUAL] * 2 * GOOD) == frozenset()


def test_a_reply_that_was_held_is_not_late() -> None:
    """A reply that was ready and waited for the end of its turn does not count as late."""
    policy = DegradationPolicy(RULES, small=False)
    for second in range(10):
        policy.observe(slow(Stage.LLM_FIRST_TOKEN), float(second), held=True)
    assert policy.steps(10.0) == frozenset()


def test_a_long_pause_resets_the_policy() -> None:
    """After `reset_after_s` seconds without a turn, no measure applies, and late turns are counted from zero."""
    policy = DegradationPolicy(RULES, small=False)
    for second in range(LATE):
        policy.observe(slow(Stage.STT), float(second))
    assert policy.steps(LATE + RULES.reset_after_s - 2) == {DegradationMeasure.NO_SPECULATION}
    assert policy.steps(LATE + RULES.reset_after_s) == frozenset()
    policy.observe(slow(Stage.STT), LATE + RULES.reset_after_s)
    assert policy.steps(LATE + RULES.reset_after_s) == frozenset()


def test_a_disabled_policy_applies_nothing() -> None:
    """With enabled=False no measure applies."""
    assert after(*[slow(*Stage)] * 10, settings=DegradationSettings(enabled=False)) == frozenset()
