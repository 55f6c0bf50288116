"""Endpointing: the length of the silence that ends a turn, computed from the probability that the turn is over.

A fixed silence is the largest part of most systems' response time. A turn detector that only says yes or no is not
better: after a wrong "incomplete", the caller waits for seconds until a fallback timeout. This module computes the
silence from a budget of cut-offs: the accepted probability that a pause is mistaken for the end of the turn.

Let p be the probability that the turn is over (`rejoinder.core.turns.end_of_turn`). With probability 1 - p, the silence
is only a pause. Pauses inside a sentence are modelled by a Rayleigh distribution with mean m, in which long pauses are
rarer than in an exponential distribution. A pause lasts longer than t with probability exp(-pi/4 (t/m)^2). If the turn
ends after a silence of t, the caller is cut off with the following probability, which must equal the budget:

    (1 - p) * exp(-pi/4 (t/m)^2)  =  budget        so        t = m * sqrt(4/pi * ln((1 - p) / budget))

The mean m starts at `pause_ms` and moves to the mean of the caller's own pauses. A caller with p below
`complete_threshold` may be searching for a word, which takes longer than a usual pause. Below that threshold, the
silence rises linearly to `max_silence_ms` at p = 0. It is never shorter than `min_silence_ms`.

The function is monotone, so a higher probability never lengthens the silence. It is continuous, so a small change of
the probability changes the silence by milliseconds. Without a verdict, the silence is `fallback_silence_ms`.

`TurnDetection` is the client's configuration. `server_vad` requires an exact silence and ignores the turn detector.
`semantic_vad` uses the function above, and its eagerness sets the longest silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.settings.settings import EndpointingSettings


class DetectionMode(Enum):
    """Method that decides when a turn ends. Values are the names on the wire.

    SERVER_VAD: a fixed silence. SEMANTIC_VAD: a silence that depends on the probability that the turn is over. NONE
    (`null` on the wire): only the client ends turns.
    """

    SERVER_VAD = "server_vad"
    SEMANTIC_VAD = "semantic_vad"
    NONE = "none"


AUTO = "auto"

USUAL_WEIGHT = 4
"""Weight of the default mean pause, in pauses. After this many of the caller's own pauses, both count equally."""

MAX_WAIT_S = {"low": 8.0, "medium": 4.0, "high": 2.0, AUTO: 4.0}
"""Longest silence in seconds by eagerness of semantic_vad (OpenAI Realtime reference: 8, 4 and 2 s, auto as medium)."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """A session's `turn_detection`. Defaults are OpenAI's, except for the mode (semantic_vad).

    Attributes:
        mode: Method that decides when a turn ends.
        threshold: Speech probability from which a window of audio counts as speech (server_vad).
        prefix_padding_ms: Milliseconds of audio before the start of speech that belong to the turn (server_vad).
        silence_duration_ms: Milliseconds of silence that end a turn (server_vad).
        eagerness: "low", "medium", "high" or "auto". It limits the silence that ends a turn (semantic_vad).
        create_response: Whether a turn is answered without a request from the client.
        interrupt_response: Whether speech interrupts a reply.
        idle_timeout_ms: Milliseconds of silence after a reply until the agent speaks again (server_vad). None for no
            timeout.
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
    """Number and total length of one caller's pauses inside turns."""

    count: int = 0
    total_s: float = 0.0

    def with_pause(self, seconds: float) -> PauseStats:
        """Return the statistics with one more pause of this many seconds."""
        return PauseStats(self.count + 1, self.total_s + seconds)

    def mean_s(self, usual_s: float) -> float:
        """Return the mean pause in seconds.

        USUAL_WEIGHT assumed pauses of `usual_s` seconds are included, so that a few real pauses do not dominate.
        """
        return (USUAL_WEIGHT * usual_s + self.total_s) / (USUAL_WEIGHT + self.count)


def endpoint_silence_s(
    detection: TurnDetection,
    settings: EndpointingSettings,
    probability: float | None,
    pauses: PauseStats = PauseStats(),
) -> float:
    """Return the silence that ends the turn, in seconds. It is infinite if only the client ends turns.

    With semantic_vad, the eagerness limits the silence (MAX_WAIT_S) in place of the setting `max_silence_ms`. With the
    eagerness "auto", the shorter of the two limits applies.

    Args:
        detection: The session's turn detection, set by the client.
        settings: The operator's settings.
        probability: The probability that the turn is over. None or NaN if there is no verdict.
        pauses: The caller's pauses so far.
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
            return _required_s(settings, probability, longest_s, pauses)


def _required_s(
    settings: EndpointingSettings, probability: float | None, longest_s: float, pauses: PauseStats
) -> float:
    if probability is None or math.isnan(probability):
        return min(settings.fallback_silence_ms / 1000, longest_s)
    clamped, threshold = min(max(probability, 0.0), 1.0), settings.complete_threshold
    silence_s = _budgeted_s(settings, max(clamped, threshold), pauses)
    if clamped < threshold:
        share = clamped / threshold
        silence_s = longest_s * (1 - share) + silence_s * share
    return min(max(silence_s, settings.min_silence_ms / 1000), longest_s)


def _budgeted_s(settings: EndpointingSettings, probability: float, pauses: PauseStats) -> float:
    """Return the shortest silence in seconds that keeps the probability of a cut-off within the budget.

    Args:
        settings: The budget and the default mean pause.
        probability: The probability that the turn is over.
        pauses: The caller's pauses so far.
    """
    risk_ratio = (1 - probability) / settings.cut_off_budget
    if risk_ratio <= 1:
        return 0.0
    return pauses.mean_s(settings.pause_ms / 1000) * math.sqrt(4 / math.pi * math.log(risk_ratio))
