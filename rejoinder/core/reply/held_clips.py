"""Prepared clips (held clips): speech that is synthesized in advance, and the time at which a filler is played.

Prepared clips are the apology, the greeting, the fillers, and short phrases that are frequent in answers ("Sure."). A
host synthesizes them once, when it starts. A segment of a reply with the same words is played from here.

A filler tells the caller that a late answer is coming. If the answer is about to start, a filler would only delay it. A
filler is therefore due only if the first audio is predicted to come after a deadline. The prediction adds the typical
times of the running stage and of the later stages. A typical time is the median of recent turns, or the latency guide's
limit until there are enough turns. If the running stage takes longer than its typical time, a filler is due at the
latest at the deadline minus the typical times of the later stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.question_matching import normalize
from rejoinder.core.resilience.hedging import TtftWindow

WINDOW_S = 300.0
"""Seconds for which a measured duration of a stage counts for the median."""

FEWEST_TURNS = 5
"""Minimum number of turns for a median."""

STEPS = (Stage.LLM_FIRST_TOKEN, Stage.FIRST_SEGMENT, Stage.TTS_FIRST_AUDIO)
"""The stages between a question and the first audio of its answer, in order. Fillers start only after the first of
them has started, because only then is it certain that there is a question.
"""

EXPECTED_S = {
    Stage.LLM_FIRST_TOKEN: component_limit_ms(Component.LLM, Tier.GOOD) / 1000,
    # The latency guide has no figure for this stage. 0.1 s is the time for five words at 50 tokens per second.
    Stage.FIRST_SEGMENT: 0.1,
    Stage.TTS_FIRST_AUDIO: component_limit_ms(Component.TTS, Tier.GOOD) / 1000,
}


@dataclass(frozen=True, slots=True)
class HeldClip:
    """Speech that is synthesized in advance: its words, and its audio as 24 kHz 16-bit PCM."""

    text: str
    pcm: bytes


class HeldClips:
    """All prepared clips of a host. Not thread-safe.

    Attributes:
        apology: The clip that is played if a reply fails.
        fillers: The clips that are played, in rotation, when an answer is predicted to be late.
    """

    def __init__(
        self, apology: HeldClip, fillers: tuple[HeldClip, ...] = (), others: tuple[HeldClip, ...] = ()
    ) -> None:
        """Create the collection. The clips in `others` are played only in place of a segment with the same words."""
        self.apology = apology
        self.fillers = fillers
        self._played = 0
        self._by_words = {normalize(clip.text): clip for clip in (apology, *fillers, *others)}

    def of(self, text: str) -> HeldClip | None:
        """Return the clip with these words, or None. Case and punctuation are ignored."""
        return self._by_words.get(normalize(text))

    def next_filler(self) -> HeldClip:
        """Return the next filler in rotation. There must be at least one filler."""
        self._played += 1
        return self.fillers[self._played % len(self.fillers)]


class StageLatencyEstimator:
    """Typical times of the stages between a question and the first audio of its answer, for one host.

    Times are monotonic seconds. Not thread-safe.
    """

    def __init__(self) -> None:
        self._windows = {stage: TtftWindow(WINDOW_S) for stage in STEPS}

    def observe(self, taken_s: Mapping[Stage, float], now: float) -> None:
        """Record the stage durations, in seconds, of a turn without a cached answer and without a prepared opening."""
        for stage in STEPS:
            if stage in taken_s:
                self._windows[stage].observe(taken_s[stage], now)

    def usual_s(self, stage: Stage, now: float) -> float:
        """Return the median duration of a stage in seconds, over the last WINDOW_S seconds.

        With fewer than FEWEST_TURNS turns in this time, return the default of EXPECTED_S (the latency guide's limits).
        """
        window = self._windows[stage]
        return window.quantile(0.5, now) if window.count(now) >= FEWEST_TURNS else EXPECTED_S[stage]

    def filler_due(self, marks: Marks, deadline: float, now: float) -> float:
        """Return the monotonic time at which to play a filler, or infinity if no filler is needed.

        The time is valid until the next stage of the turn starts or completes. Then call this method again. No filler
        is needed before the language model is asked, or after the first audio.

        Args:
            marks: The stages of the turn so far.
            deadline: Monotonic time in seconds by which the caller should hear something.
            now: Monotonic time in seconds.
        """
        if marks.started(STEPS[0]) is None:
            return math.inf
        remaining = [stage for stage in STEPS if marks.ended(stage) is None]
        if not remaining:
            return math.inf
        started_at = marks.started(remaining[0])
        later_s = sum(self.usual_s(stage, now) for stage in remaining[1:])
        predicted = (now if started_at is None else started_at) + self.usual_s(remaining[0], now) + later_s
        return now if predicted > deadline else max(now, deadline - later_s)
