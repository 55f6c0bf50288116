"""Endpointing: the length of the silence that ends a turn, computed from the probability that the turn is over.

A turn that is almost certainly over ends at once. Any other turn ends after a silence that is longer than most pauses:

    probability                           silence that ends the turn
    at least the threshold                min_silence_ms
    below the threshold                   patience_ms
    below half of the threshold           longer, up to max_silence_ms at probability 0

The threshold depends on `cut_off_budget`, the share of pauses that may be taken for the end of the turn. A measured
table (`end_of_turn.EndOfTurnTable`) gives the threshold for each budget. A silence between `min_silence_ms` and
`patience_ms` would be worse than either: pauses of 0.3 to 1 s are about equally frequent, so each further 0.1 s of
waiting avoids only a small share of the cut-offs.

`patience_ms` outlasts a pause of one second. If the caller has made a longer pause, the turn waits PAUSE_MARGIN times
as long as that pause.

`TurnDetection` is the client's configuration. `server_vad` requires an exact silence and ignores the probability.
`semantic_vad` uses the rule above, and its eagerness selects the budget, the patience and the longest silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.settings.settings import EndpointingSettings
from rejoinder.core.turns.end_of_turn import EndOfTurnTable


class DetectionMode(Enum):
    """Method that decides when a turn ends. Values are the names on the wire.

    SERVER_VAD: a fixed silence. SEMANTIC_VAD: a silence that depends on the probability that the turn is over. NONE
    (`null` on the wire): only the client ends turns.
    """

    SERVER_VAD = "server_vad"
    SEMANTIC_VAD = "semantic_vad"
    NONE = "none"


AUTO = "auto"

MAX_WAIT_S = {"low": 8.0, "medium": 4.0, "high": 2.0, AUTO: 4.0}
"""Longest silence in seconds by eagerness of semantic_vad (OpenAI Realtime reference: 8, 4 and 2 s, auto as medium)."""

BUDGET_FACTOR = {"low": 0.1, "medium": 0.5, "high": 3.0, AUTO: 1.0}
"""Factor of `cut_off_budget` by eagerness. With the default of 3%, "low" may cut off 3 pauses in 1,000, "high" 9%."""

PATIENCE_FACTOR = {"low": 1.5, "medium": 1.25, "high": 0.6, AUTO: 1.0}
"""Factor of `patience_ms` and `max_silence_ms` by eagerness. With the default of 1.1 s, "low" waits 1.65 s."""

PAUSE_MARGIN = 1.25
"""Factor by which the patience exceeds the longest pause that the caller has made in this call."""

LONGEST_PAUSE_S = 1.6
"""A longer silence in mid-turn says nothing about the caller's usual pauses."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """A session's `turn_detection`. Defaults are OpenAI's, except for the mode (semantic_vad).

    Attributes:
        mode: Method that decides when a turn ends.
        threshold: Speech probability from which a window of audio counts as speech (server_vad).
        prefix_padding_ms: Milliseconds of audio before the start of speech that belong to the turn (server_vad).
        silence_duration_ms: Milliseconds of silence that end a turn (server_vad).
        eagerness: "low", "medium", "high" or "auto": how soon a turn may end (semantic_vad).
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
    """Number and lengths of one caller's pauses inside turns.

    Attributes:
        count: Number of pauses.
        total_s: Their total length in seconds.
        longest_s: Length in seconds of the longest pause, not counting pauses longer than LONGEST_PAUSE_S.
    """

    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0

    def with_pause(self, seconds: float) -> PauseStats:
        """Return the statistics with one more pause of this many seconds."""
        longest_s = max(self.longest_s, seconds) if seconds <= LONGEST_PAUSE_S else self.longest_s
        return PauseStats(self.count + 1, self.total_s + seconds, longest_s)


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """The operator's part of endpointing, which is the same for all sessions.

    Attributes:
        settings: The silences in milliseconds and the budget of cut-offs (`endpointing` in the settings).
        table: Weights and thresholds of the probability that the turn is over.
    """

    settings: EndpointingSettings = field(default_factory=EndpointingSettings)
    table: EndOfTurnTable = field(default_factory=EndOfTurnTable)

    def threshold(self, eagerness: str) -> float:
        """Return the probability from which a turn ends at once, for an eagerness ("low", "medium", "high", "auto")."""
        return self.table.threshold(self.settings.cut_off_budget * BUDGET_FACTOR[eagerness])

    def decided(self, detection: TurnDetection, probability: float | None) -> bool:
        """Return True if the probability already reaches the threshold, so more evidence cannot end the turn sooner."""
        return probability is not None and probability >= self.threshold(detection.eagerness)


def endpoint_silence_s(
    detection: TurnDetection, rule: EndpointRule, probability: float | None, pauses: PauseStats = PauseStats()
) -> float:
    """Return the silence that ends the turn, in seconds. It is infinite if only the client ends turns.

    With semantic_vad, the eagerness limits the silence (MAX_WAIT_S) in place of the setting `max_silence_ms`. With the
    eagerness "auto", the shorter of the two limits applies.

    Args:
        detection: The session's turn detection, set by the client.
        rule: The operator's settings and table.
        probability: The probability that the turn is over. None or NaN if it is not known.
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
                longest_s = min(longest_s, rule.settings.max_silence_ms / 1000)
            return _required_s(rule, probability, longest_s, pauses, eagerness=detection.eagerness)


def _required_s(
    rule: EndpointRule, probability: float | None, longest_s: float, pauses: PauseStats, *, eagerness: str
) -> float:
    settings, factor = rule.settings, PATIENCE_FACTOR[eagerness]
    if probability is None or math.isnan(probability):
        return min(settings.fallback_silence_ms / 1000 * max(1.0, factor), longest_s)
    threshold = rule.threshold(eagerness)
    if probability >= threshold:
        return min(settings.min_silence_ms / 1000, longest_s)
    least_s = max(settings.patience_ms / 1000 * factor, settings.min_silence_ms / 1000)
    patience_s = min(max(least_s, PAUSE_MARGIN * pauses.longest_s), longest_s)
    doubt = max(0.0, 1 - 2 * max(probability, 0.0) / threshold)
    hopeless_s = max(patience_s, min(longest_s, settings.max_silence_ms / 1000 * factor))
    return patience_s + doubt * (hopeless_s - patience_s)
