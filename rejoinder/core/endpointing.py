"""How long to stay silent before the turn is taken.

A fixed wait is the largest part of most systems' response time, and a yes-or-no verdict with a long fallback moves
the loss elsewhere: one wrong "incomplete" costs seconds. So the wait is a continuous function of the probability
that the turn is complete (the idea of RealtimeVoiceChat, which interpolates a pause from sentence completeness).
Ours is piecewise linear through three points an operator can read off the configuration:

    probability 0                    max_silence_ms        surely unfinished: as long as we dare
    probability complete_threshold   fallback_silence_ms   undecided, the same as having no verdict at all
    probability 1                    min_silence_ms        surely finished: the soft end and little more

Linear, because nothing measured justifies a shape; monotone, so a better verdict never costs time; and continuous
at the threshold, so a verdict that flickers around it moves the answer by milliseconds, not seconds.

`TurnDetection` is what the caller asked for over the wire. `server_vad` is a promise of an exact silence, whatever
any model thinks; `semantic_vad` is the map above, its highest point moved by eagerness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.config import EndpointingSettings


class DetectionMode(Enum):
    """Who decides that a turn is over; values are the wire's (NONE is its `null`)."""

    SERVER_VAD = "server_vad"
    SEMANTIC_VAD = "semantic_vad"
    NONE = "none"


AUTO = "auto"

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


def wait_s(detection: TurnDetection, settings: EndpointingSettings, probability: float | None) -> float:
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
            return _required_s(settings, probability, longest_s)


def _required_s(settings: EndpointingSettings, probability: float | None, longest_s: float) -> float:
    shortest_s = min(settings.min_silence_ms / 1000, longest_s)
    undecided_s = min(settings.fallback_silence_ms / 1000, longest_s)
    if probability is None or math.isnan(probability):
        return undecided_s
    sure, threshold = min(max(probability, 0.0), 1.0), settings.complete_threshold
    if sure < threshold:
        return _between(longest_s, undecided_s, sure / threshold)
    return _between(undecided_s, shortest_s, (sure - threshold) / (1 - threshold) if threshold < 1 else 1.0)


def _between(high: float, low: float, share: float) -> float:
    """`high` at 0 down to `low` at 1, exact at both ends."""
    return high * (1 - share) + low * share
