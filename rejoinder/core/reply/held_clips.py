"""Speech that is held ready, and when a filler is worth hearing.

*Phrases.* The apology, the greeting, fillers, and short confirmations that answers are full of ("Sure.") are
synthesized once, when the host starts. A segment of a reply that has the words of one is spoken from here.

*Fillers.* A caller who waits long wants to know that somebody is there; one who would have been answered in a moment
wants the answer. So a filler is due only when the first audio is *predicted* to miss the budget: each step that is
still to come takes its usual time (the median of what it took lately; before enough turns were seen, the latency
guide's target), the one that runs has at least what is left of its own. While nothing moves the prediction grows with
the clock, so it misses the budget at the latest so long before it as the later steps usually take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.question_matching import normal
from rejoinder.core.resilience.hedging import TtftWindow

WINDOW_S = 300.0

FEWEST_TURNS = 5
"""Before so many a median says nothing."""

STEPS = (Stage.LLM_FIRST_TOKEN, Stage.FIRST_SEGMENT, Stage.TTS_FIRST_AUDIO)
"""What lies between a question and the first audio of its answer. Before the first of them nobody knows whether there
is anything to answer.
"""

EXPECTED_S = {
    Stage.LLM_FIRST_TOKEN: component_limit_ms(Component.LLM, Tier.GOOD) / 1000,
    # The guide does not count it; five words at 50 tokens a second.
    Stage.FIRST_SEGMENT: 0.1,
    Stage.TTS_FIRST_AUDIO: component_limit_ms(Component.TTS, Tier.GOOD) / 1000,
}


@dataclass(frozen=True, slots=True)
class HeldClip:
    """Speech that is held ready: 24 kHz PCM and its words."""

    text: str
    pcm: bytes


class HeldClips:
    """What a host holds; `others` are found by their words only."""

    def __init__(
        self, apology: HeldClip, fillers: tuple[HeldClip, ...] = (), others: tuple[HeldClip, ...] = ()
    ) -> None:
        self.apology = apology
        self.fillers = fillers
        self._played = 0
        self._by_words = {normal(clip.text): clip for clip in (apology, *fillers, *others)}

    def of(self, text: str) -> HeldClip | None:
        """The clip with these words, but for case and punctuation."""
        return self._by_words.get(normal(text))

    def next_filler(self) -> HeldClip:
        """A filler to play now: they take turns. There must be one."""
        self._played += 1
        return self.fillers[self._played % len(self.fillers)]


class StageLatencyEstimator:
    """How long the steps to the first audio take these days, on one host."""

    def __init__(self) -> None:
        self._windows = {stage: TtftWindow(WINDOW_S) for stage in STEPS}

    def observe(self, taken_s: Mapping[Stage, float], now: float) -> None:
        """A turn was answered by its engines; the stages' own durations."""
        for stage in STEPS:
            if stage in taken_s:
                self._windows[stage].observe(taken_s[stage], now)

    def usual_s(self, stage: Stage, now: float) -> float:
        """The median of lately, or what is expected of it."""
        window = self._windows[stage]
        return window.quantile(0.5, now) if window.count(now) >= FEWEST_TURNS else EXPECTED_S[stage]

    def filler_due(self, marks: Marks, deadline: float, now: float) -> float:
        """When a filler is due, if nothing more happens until then; infinite if none will be.

        `deadline`: when the caller should hear something.
        """
        if marks.started(STEPS[0]) is None:
            return math.inf
        left = [stage for stage in STEPS if marks.ended(stage) is None]
        if not left:
            return math.inf
        began = marks.started(left[0])
        rest_s = sum(self.usual_s(stage, now) for stage in left[1:])
        predicted = (now if began is None else began) + self.usual_s(left[0], now) + rest_s
        return now if predicted > deadline else max(now, deadline - rest_s)
