"""What a session does without while a stage is too slow for it.

A turn is late if what we spent on it, without the wait for the caller's end, misses the tier's total; a reply that was
ready before its turn was taken kept nobody waiting. Of a late turn those stages are blamed whose share misses their own
limit, and each has its remedies, which are taken one by one:

    blamed                          step                  what it does
    STT                             NO_SPECULATION        no drafts and no guesses while the caller speaks
    LLM first token                 SMALL_MODEL, FILLER   the backup answers, if there is one; fillers come at the limit
    first segment, first audio      SHORT_SEGMENT         the shortest first segment, then clause by clause

So many late turns in a row take a step, so many others one back. A step that turns out to have been taken back too soon
is kept twice as long the next time, up to `MOST_PATIENCE` times: whoever has a stage that stays slow does not pay for
finding that out again every few turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.held_clips import EXPECTED_S
from rejoinder.core.settings.settings import DegradationSettings

MOST_PATIENCE = 4

WAITING = (Stage.SILENCE, Stage.ENDPOINT)
"""Stages that wait for the caller's end: how long is a decision, and no sign of load."""


class DegradationMeasure(Enum):
    """What a session can do without; values are metric labels."""

    SHORT_SEGMENT = "short_segment"
    NO_SPECULATION = "no_speculation"
    SMALL_MODEL = "small_model"
    FILLER = "filler"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is done, step by step, if these stages together take `limit_s` or more."""

    stages: tuple[Stage, ...]
    limit_s: float
    steps: tuple[DegradationMeasure, ...]

    def blames(self, shares_s: Mapping[Stage, float]) -> bool:
        return sum(shares_s.get(stage, 0.0) for stage in self.stages) >= self.limit_s


@dataclass(frozen=True, slots=True)
class DegradationLevel:
    """How many of one remedy's steps are in force. `late` and `good` count turns in a row since the last change;
    `patience`: so many good ones take a step back; `eased`: the last change was one.
    """

    patience: int
    level: int = 0
    late: int = 0
    good: int = 0
    eased: bool = False


def climb(state: DegradationLevel, rules: DegradationSettings, top: int, *, blamed: bool) -> DegradationLevel:
    """After one more turn; `top`: how many steps there are."""
    if blamed:
        state = replace(state, late=state.late + 1, good=0)
        if state.late < rules.late_turns or state.level >= top:
            return state
        longer = min(2 * state.patience, MOST_PATIENCE * rules.good_turns)
        return DegradationLevel(longer if state.eased else state.patience, state.level + 1)
    state = replace(state, late=0, good=state.good + 1)
    if state.good < state.patience:
        return state
    if state.level:
        return DegradationLevel(state.patience, state.level - 1, eased=True)
    return DegradationLevel(rules.good_turns)


class DegradationPolicy:
    """Of one session; `small`: there is a backup model. Not thread-safe."""

    def __init__(self, rules: DegradationSettings, *, small: bool) -> None:
        self.tier = Tier(rules.tier)
        self._rules = rules
        self._remedies = remedies(self.tier, small=small)
        self._climbs: list[DegradationLevel] = []
        self._observed_at = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._climbs = [DegradationLevel(self._rules.good_turns) for _ in self._remedies]

    def observe(self, shares_s: Mapping[Stage, float], now: float, *, held: bool = False) -> None:
        """A turn was answered; its stages' shares (`latency.Waterfall`). `held`: the reply waited for the turn."""
        if now - self._observed_at > self._rules.reset_after_s:
            self._forget()
        self._observed_at = now
        late = not held and is_late(shares_s, self.tier)
        pairs = zip(self._climbs, self._remedies, strict=True)
        self._climbs = [
            climb(state, self._rules, len(remedy.steps), blamed=late and remedy.blames(shares_s))
            for state, remedy in pairs
        ]

    def steps(self, now: float) -> frozenset[DegradationMeasure]:
        """Those in force for a reply that begins now."""
        if not self._rules.enabled or now - self._observed_at > self._rules.reset_after_s:
            return frozenset()
        pairs = zip(self._climbs, self._remedies, strict=True)
        return frozenset(step for state, remedy in pairs for step in remedy.steps[: state.level])


def is_late(shares_s: Mapping[Stage, float], tier: Tier) -> bool:
    """Whether what was spent on the turn misses the tier's total, both without the wait for the caller's end."""
    spent_s = sum(seconds for stage, seconds in shares_s.items() if stage not in WAITING)
    return spent_s * 1000 >= total_limit_ms(tier) - component_limit_ms(Component.VAD, tier)


def remedies(tier: Tier, *, small: bool) -> tuple[Remedy, ...]:
    """What is done about which stages; `small`: there is a backup model."""

    def limit_s(component: Component) -> float:
        return component_limit_ms(component, tier) / 1000

    thinking = (DegradationMeasure.SMALL_MODEL, DegradationMeasure.FILLER) if small else (DegradationMeasure.FILLER,)
    voice = (Stage.FIRST_SEGMENT, Stage.TTS_FIRST_AUDIO)
    return (
        Remedy((Stage.STT,), limit_s(Component.STT), (DegradationMeasure.NO_SPECULATION,)),
        Remedy((Stage.LLM_FIRST_TOKEN,), limit_s(Component.LLM), thinking),
        Remedy(voice, limit_s(Component.TTS) + EXPECTED_S[Stage.FIRST_SEGMENT], (DegradationMeasure.SHORT_SEGMENT,)),
    )
