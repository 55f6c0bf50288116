"""Waterfall of a turn: divides its time among its stages.

Every stage records two marks, its start and its end, on one monotonic clock of one process. A waterfall divides the
time from the caller's last sample to the reply's first sample among the stages, so that the parts sum to the whole.
Each point in time belongs to one stage, or to none. Time that belongs to no stage is `unattributed`. It is the overhead
of the system and must stay near zero.

Some stages run in parallel. After the tentative end of speech, the turn detector decides (ENDPOINT) while the
transcript is made (STT), and the reply waits for both stages. Time that several stages cover belongs to the stage that
is first in pipeline order. Of two parallel stages, the first counts in full. The second counts only with the time that
it takes after the first has ended. Without the second stage, the turn would be shorter by this time.

This rule attributes a delay to its cause. Suppose that one stage takes d seconds longer, and that the stages which wait
for it shift by d. Then the share of this stage grows by at most d, and no other share grows. It grows by exactly d if
this stage is the last of its parallel stages to end.

The marks must show what the reply waited for. A reply that is prepared before the end of turn does not wait for
ENDPOINT, although it overlaps ENDPOINT. In this case ENDPOINT starts when the reply is ready and held back, and not at
the tentative end of speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    """Stages of a turn in pipeline order. Values are their names in JSON and in metrics.

    SILENCE: from the end of speech to its detection (the tentative end of speech). ENDPOINT: from then until the end of
    turn is decided. STT: making the transcript. LLM_FIRST_TOKEN: until the first token of the answer. FIRST_SEGMENT:
    until the text of the first segment is complete. TTS_FIRST_AUDIO: until the first audio of the first segment.
    DELIVERY: until that audio is sent.
    """

    SILENCE = "silence"
    ENDPOINT = "endpoint"
    STT = "stt"
    LLM_FIRST_TOKEN = "llm_first_token"
    FIRST_SEGMENT = "first_segment"
    TTS_FIRST_AUDIO = "tts_first_audio"
    DELIVERY = "delivery"


UNATTRIBUTED = "unattributed"
"""Name of the unattributed time in JSON and in metrics."""


@dataclass(slots=True)
class Marks:
    """Start and end of each stage of one turn, in monotonic seconds.

    If a mark is set twice, the first value stays. A stage with retries therefore lasts from the start of its first
    attempt to its first success. An end without a start is ignored.
    """

    _starts: dict[Stage, float] = field(default_factory=dict)
    _ends: dict[Stage, float] = field(default_factory=dict)

    def start(self, stage: Stage, now: float) -> None:
        """Record that a stage has started at monotonic time `now`. A later call for the same stage is ignored."""
        self._starts.setdefault(stage, now)

    def end(self, stage: Stage, now: float) -> None:
        """Record that a stage has ended at monotonic time `now`. A later call for the same stage is ignored."""
        self._ends.setdefault(stage, now)

    def started(self, stage: Stage) -> float | None:
        """Return the monotonic time at which the stage started, or None if it has not started."""
        return self._starts.get(stage)

    def ended(self, stage: Stage) -> float | None:
        """Return the monotonic time at which the stage ended, or None if it has not ended."""
        return self._ends.get(stage)

    def join(self, other: Marks) -> None:
        """Add the marks of `other`. Marks that are already set keep their values."""
        self._starts = other._starts | self._starts
        self._ends = other._ends | self._ends

    def spans(self, finish: float) -> dict[Stage, tuple[float, float]]:
        """Return the (start, end) of each stage that has started, in monotonic seconds and in pipeline order.

        The end of a stage that has not ended is `finish`.
        """
        return {
            stage: (self._starts[stage], max(self._starts[stage], self._ends.get(stage, finish)))
            for stage in Stage
            if stage in self._starts
        }


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Time of a turn, divided among its stages, in seconds.

    Attributes:
        stages_s: Share of every stage. Time that stages overlap is in one share only. 0 for a stage without marks.
        raw_s: Whole duration of each stage that has marks, including time overlapped with other stages.
        unattributed_s: Time that belongs to no stage.
    """

    stages_s: Mapping[Stage, float]
    raw_s: Mapping[Stage, float]
    unattributed_s: float

    @property
    def total_s(self) -> float:
        """Sum of all shares and the unattributed time, in seconds."""
        return sum(self.stages_s.values()) + self.unattributed_s

    def as_ms(self) -> dict[str, float]:
        """Return the shares in milliseconds, to 0.1 ms, by stage name in pipeline order, with `unattributed` last."""
        shares = {stage.value: self.stages_s[stage] for stage in Stage} | {UNATTRIBUTED: self.unattributed_s}
        return {name: round(share * 1000, 1) for name, share in shares.items()}


def waterfall(marks: Marks, begin: float, finish: float) -> Waterfall:
    """Return how the time from `begin` to `finish` divides among the stages. Marks outside this time are clipped.

    Args:
        marks: The marks of the turn.
        begin: Monotonic time in seconds, usually when the caller's last sample arrived.
        finish: Monotonic time in seconds, usually when the reply's first sample was sent.
    """
    finish = max(begin, finish)
    spans = marks.spans(finish)
    clipped = {stage: (_clip(start, begin, finish), _clip(end, begin, finish)) for stage, (start, end) in spans.items()}
    shares = dict.fromkeys(Stage, 0.0)
    free = [(begin, finish)]
    for stage, (start, end) in clipped.items():
        shares[stage], free = _take(free, start, end)
    raw = {stage: end - start for stage, (start, end) in spans.items()}
    return Waterfall(shares, raw, sum(end - start for start, end in free))


def _clip(instant: float, begin: float, finish: float) -> float:
    return min(max(instant, begin), finish)


def _take(free: list[tuple[float, float]], start: float, end: float) -> tuple[float, list[tuple[float, float]]]:
    """Remove the interval from `start` to `end` from the free intervals, which are (low, high) pairs in seconds.

    Return the seconds removed, and the intervals that remain free.
    """
    covered, rest = 0.0, []
    for low, high in free:
        inner_low, inner_high = max(low, start), min(high, end)
        if inner_low >= inner_high:
            rest.append((low, high))
            continue
        covered += inner_high - inner_low
        rest += [gap for gap in ((low, inner_low), (inner_high, high)) if gap[0] < gap[1]]
    return covered, rest
