"""Degradation policy: what the replies of a session omit while one of its stages is too slow.

A turn is late if its processing time, without the wait for the end of the turn, reaches the limit of the latency tier
(`is_late`). A reply that was ready before the end of its turn is not late. In a late turn, each group of stages that
reaches its own limit is to blame. Each group has measures that make replies cheaper. They are applied one after
another:

    stages to blame              measures               effect
    STT                          NO_SPECULATION         no speculative replies, and no interim transcripts
    LLM first token              SMALL_MODEL, FILLER    the backup model answers, if there is one; fillers play earlier
    first segment, first audio   SHORT_SEGMENT          shortest first segment, then a segment per clause

`late_turns` turns in a row that are late because of a group apply the next measure of this group. `good_turns` turns in
a row that are not late because of it lift one measure. If the group becomes slow again after a measure was lifted, the
next recovery takes twice as many good turns, up to MAX_RECOVERY_FACTOR * `good_turns`. The policy
therefore rarely lifts a measure while a stage stays slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.measuring.waterfall import Stage
from rejoinder.core.reply.held_clips import EXPECTED_S
from rejoinder.core.settings.settings import DegradationSettings

MAX_RECOVERY_FACTOR = 4
"""Maximum number of good turns in a row that a recovery takes, as a multiple of `good_turns`."""

WAITING = (Stage.SILENCE, Stage.ENDPOINT)
"""Stages that wait for the end of the turn. Their length is a decision and not a sign of load."""


class DegradationMeasure(Enum):
    """Measure that makes a session's replies cheaper. Values are metric labels.

    SHORT_SEGMENT: shortest first segment, then one segment per clause. NO_SPECULATION: no speculative replies and no
    interim transcripts. SMALL_MODEL: the backup model answers. FILLER: fillers are played earlier.
    """

    SHORT_SEGMENT = "short_segment"
    NO_SPECULATION = "no_speculation"
    SMALL_MODEL = "small_model"
    FILLER = "filler"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Group of stages, its limit, and the measures to apply, in this order, when the group is too slow.

    The group is too slow in a turn if its stages together take `limit_s` seconds or more.
    """

    stages: tuple[Stage, ...]
    limit_s: float
    measures: tuple[DegradationMeasure, ...]

    def blames(self, shares_s: Mapping[Stage, float]) -> bool:
        """Return True if the stages together reached the limit in a turn. `shares_s`: seconds of each stage."""
        return sum(shares_s.get(stage, 0.0) for stage in self.stages) >= self.limit_s


@dataclass(frozen=True, slots=True)
class DegradationLevel:
    """State of one remedy: how many of its measures are applied, and the turns since the last change.

    Attributes:
        recovery_turns: Number of good turns in a row after which a measure is lifted.
        level: Number of measures that are applied.
        late: Number of turns in a row, since the last change of the level, that were late because of these stages.
        good: Number of turns in a row, since the last change of the level, that were not late because of these stages.
        lifted: True if the last change of the level lifted a measure, False if it applied one.
    """

    recovery_turns: int
    level: int = 0
    late: int = 0
    good: int = 0
    lifted: bool = False


def next_level(state: DegradationLevel, rules: DegradationSettings, top: int, *, blamed: bool) -> DegradationLevel:
    """Return the level after one more turn.

    Args:
        state: The level before the turn.
        rules: Settings with the number of late or good turns that change the level.
        top: The highest level: the number of measures of the remedy.
        blamed: Whether the turn was late because of the remedy's stages.
    """
    if blamed:
        state = replace(state, late=state.late + 1, good=0)
        if state.late < rules.late_turns or state.level >= top:
            return state
        longer = min(2 * state.recovery_turns, MAX_RECOVERY_FACTOR * rules.good_turns)
        return DegradationLevel(longer if state.lifted else state.recovery_turns, state.level + 1)
    state = replace(state, late=0, good=state.good + 1)
    if state.good < state.recovery_turns:
        return state
    if state.level:
        return DegradationLevel(state.recovery_turns, state.level - 1, lifted=True)
    return DegradationLevel(rules.good_turns)


class DegradationPolicy:
    """Policy that decides from the latencies of a session's turns which measures its next replies apply.

    Not thread-safe.

    Attributes:
        tier: Latency tier whose limits apply.
    """

    def __init__(self, rules: DegradationSettings, *, small: bool) -> None:
        """Create the policy of a session. `small`: True if there is a (smaller) backup model."""
        self.tier = Tier(rules.tier)
        self._rules = rules
        self._remedies = remedies(self.tier, small=small)
        self._levels: list[DegradationLevel] = []
        self._observed_at = float("-inf")
        self._reset()

    def _reset(self) -> None:
        self._levels = [DegradationLevel(self._rules.good_turns) for _ in self._remedies]

    def observe(self, shares_s: Mapping[Stage, float], now: float, *, held: bool = False) -> None:
        """Record the latencies of a turn that was answered.

        Args:
            shares_s: Each stage's share of the turn's latency, in seconds (`waterfall.Waterfall.stages_s`).
            now: Monotonic time in seconds.
            held: Whether the reply was ready before the end of the turn. Such a turn is never late.
        """
        if now - self._observed_at > self._rules.reset_after_s:
            self._reset()
        self._observed_at = now
        late = not held and is_late(shares_s, self.tier)
        pairs = zip(self._levels, self._remedies, strict=True)
        self._levels = [
            next_level(state, self._rules, len(remedy.measures), blamed=late and remedy.blames(shares_s))
            for state, remedy in pairs
        ]

    def steps(self, now: float) -> frozenset[DegradationMeasure]:
        """Return the measures that apply to a reply that starts now."""
        if not self._rules.enabled or now - self._observed_at > self._rules.reset_after_s:
            return frozenset()
        pairs = zip(self._levels, self._remedies, strict=True)
        return frozenset(measure for state, remedy in pairs for measure in remedy.measures[: state.level])


def is_late(shares_s: Mapping[Stage, float], tier: Tier) -> bool:
    """Return True if the processing time of a turn reaches the limit of the tier.

    The processing time is the sum of all stages except the wait for the end of the turn (SILENCE and ENDPOINT). The
    limit is the tier's total (section 3.1 of the latency guide) minus its limit for voice activity detection (section
    3.2), for example 800 - 200 = 600 ms.

    Args:
        shares_s: The time of each stage, in seconds.
        tier: The latency tier.
    """
    return processing_s(shares_s) * 1000 >= total_limit_ms(tier) - component_limit_ms(Component.VAD, tier)


def processing_s(shares_s: Mapping[Stage, float]) -> float:
    """Return the processing time of a turn in seconds: the sum of its stages without the wait for its end."""
    return sum(seconds for stage, seconds in shares_s.items() if stage not in WAITING)


def remedies(tier: Tier, *, small: bool) -> tuple[Remedy, ...]:
    """Return one `Remedy` per group of stages, with the limits of a latency tier (section 3.2 of the latency guide).

    Args:
        tier: The latency tier.
        small: Whether there is a backup model. If not, the measure SMALL_MODEL is left out.
    """

    def limit_s(component: Component) -> float:
        return component_limit_ms(component, tier) / 1000

    llm_measures = (
        (DegradationMeasure.SMALL_MODEL, DegradationMeasure.FILLER) if small else (DegradationMeasure.FILLER,)
    )
    voice = (Stage.FIRST_SEGMENT, Stage.TTS_FIRST_AUDIO)
    return (
        Remedy((Stage.STT,), limit_s(Component.STT), (DegradationMeasure.NO_SPECULATION,)),
        Remedy((Stage.LLM_FIRST_TOKEN,), limit_s(Component.LLM), llm_measures),
        Remedy(voice, limit_s(Component.TTS) + EXPECTED_S[Stage.FIRST_SEGMENT], (DegradationMeasure.SHORT_SEGMENT,)),
    )
