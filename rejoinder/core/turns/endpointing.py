"""How long to stay silent before the turn is taken.

A fixed wait is the largest part of most systems' response time, and a yes-or-no verdict with a long fallback moves
the loss elsewhere: one wrong "incomplete" costs seconds. So the wait is what a budget of false cut-offs demands. With
the probability p that the turn is over (`rejoinder/core/turns/end_of_turn.py`) this silence is only a pause with
probability 1-p,
and pauses inside a sentence outlast a silence of t with probability exp(-pi/4 (t/m)^2), where m is their mean length
(a Rayleigh law: long ones are rarer than an exponential has them). Taking the turn at t cuts the caller off with

    (1 - p) * exp(-pi/4 (t/m)^2)  =  budget        so        t = m * sqrt(4/pi * ln((1 - p) / budget))

m begins as `pause_ms` and becomes the caller's own: who pauses long is waited for. Who is probably not finished (p
below `complete_threshold`) may be searching for a word, which is another kind of pause: from there down to p = 0 the
wait rises in proportion to `max_silence_ms`. The least is `min_silence_ms`.

The map is monotone, so a better verdict never costs time, and continuous, so one that flickers moves the answer by
milliseconds, not seconds. Without any verdict the wait is `fallback_silence_ms`.

`TurnDetection` is what the caller asked for over the wire. `server_vad` is a promise of an exact silence, whatever
any model thinks; `semantic_vad` is the map above, its highest point moved by eagerness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.settings.settings import EndpointingSettings


class DetectionMode(Enum):
    """Who decides that a turn is over; values are the wire's (NONE is its `null`)."""

    SERVER_VAD = "server_vad"
    SEMANTIC_VAD = "semantic_vad"
    NONE = "none"


AUTO = "auto"

USUAL_WEIGHT = 4
"""Pauses of a caller's own that count as much as what is usual: a few sentences' worth."""

MAX_WAIT_S = {"low": 8.0, "medium": 4.0, "high": 2.0, AUTO: 4.0}
"""semantic_vad's longest wait by eagerness (OpenAI Realtime reference: 8, 4 and 2 s, auto as medium)."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """A session's `turn_detection`; defaults are OpenAI's, except that the mode is ours (semantic_vad).

    `eagerness` is a key of MAX_WAIT_S.
    """

    mode: DetectionMode = DetectionMode.SEMANTIC_VAD
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: str = AUTO
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PauseStats:
    """How long one caller pauses inside a turn: the pauses so far, in seconds."""

    pauses: int = 0
    total_s: float = 0.0

    def paused(self, seconds: float) -> PauseStats:
        """The caller went on after a silence of so long."""
        return PauseStats(self.pauses + 1, self.total_s + seconds)

    def mean_s(self, usual_s: float) -> float:
        """Their mean, drawn towards what is usual while there are few."""
        return (USUAL_WEIGHT * usual_s + self.total_s) / (USUAL_WEIGHT + self.pauses)


def wait_s(
    detection: TurnDetection, settings: EndpointingSettings, probability: float | None, habit: PauseStats = PauseStats()
) -> float:
    """Silence after which this caller's turn is taken; infinite if the caller commits turns itself.

    `probability` is that of the turn being complete; None means that no verdict came in time.
    Eagerness replaces the configured maximum by its own, except for `auto`, which exceeds neither.
    """
    match detection.mode:
        case DetectionMode.NONE:
            return math.inf
        case DetectionMode.SERVER_VAD:
            return detection.silence_duration_ms / 1000
        case DetectionMode.SEMANTIC_VAD:
            longest_s = MAX_WAIT_S[detection.eagerness]
            if detection.eagerness == AUTO:
                longest_s = min(longest_s, settings.max_silence_ms / 1000)
            return _required_s(settings, probability, longest_s, habit)


def _required_s(settings: EndpointingSettings, probability: float | None, longest_s: float, habit: PauseStats) -> float:
    if probability is None or math.isnan(probability):
        return min(settings.fallback_silence_ms / 1000, longest_s)
    sure, threshold = min(max(probability, 0.0), 1.0), settings.complete_threshold
    likely_s = _budgeted_s(settings, max(sure, threshold), habit)
    if sure < threshold:
        share = sure / threshold
        likely_s = longest_s * (1 - share) + likely_s * share
    return min(max(likely_s, settings.min_silence_ms / 1000), longest_s)


def _budgeted_s(settings: EndpointingSettings, probability: float, habit: PauseStats) -> float:
    overdrawn = (1 - probability) / settings.cut_off_budget
    if overdrawn <= 1:
        return 0.0
    return habit.mean_s(settings.pause_ms / 1000) * math.sqrt(4 / math.pi * math.log(overdrawn))
