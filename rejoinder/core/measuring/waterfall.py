"""Waterfall of a turn: divides its time among its stages.

Every stage leaves two marks on one monotonic clock of one process. A waterfall divides the time from the caller's last
sample to the reply's first sample among the stages, so that the parts sum to the whole. Each point in time belongs to
one stage, or to none. Time that belongs to none is `unattributed`: it is the overhead of the system and must stay near
zero.

Some stages run in parallel. After the tentative end of speech the turn detector decides (ENDPOINT) while the transcript
is made (STT), and the reply waits for both. Time that several stages cover belongs to the earliest one in pipeline
order. So of two parallel stages the first one counts in full. The second one counts only with the time that it took
beyond the end of the first. The turn would be that much shorter if the second stage took no time.

This rule attributes a delay to its cause. If one stage takes d longer, and the stages that wait for it shift by d, then
that stage grows by at most d, and no other stage grows. It grows by exactly d if it was the last one to end of its
parallel group.

The marks must show what the reply waited for. A reply that is prepared before the commit overlaps ENDPOINT without
waiting for it. ENDPOINT then starts when the reply is ready and held back, and not at the tentative end of speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    """Stages of a turn in pipeline order. Values are their names in JSON and in metrics.

    SILENCE: from the end of speech to the tentative end. ENDPOINT: until the turn is committed. STT: the transcript.
    LLM_FIRST_TOKEN: until the first token of the answer. FIRST_SEGMENT: until the first segment is complete.
    TTS_FIRST_AUDIO: until its first audio. DELIVERY: until that audio is sent.
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
    """When each stage of one turn started and ended, in monotonic seconds. The first of repeated marks counts.

    So a retried request is one stage, from its first attempt to its first success. An end without a start is ignored,
    and its time is unattributed.
    """

    _starts: dict[Stage, float] = field(default_factory=dict)
    _ends: dict[Stage, float] = field(default_factory=dict)

    def start(self, stage: Stage, now: float) -> None:
        """Record that a stage has started."""
        self._starts.setdefault(stage, now)

    def end(self, stage: Stage, now: float) -> None:
        """Record that a stage has ended."""
        self._ends.setdefault(stage, now)

    def started(self, stage: Stage) -> float | None:
        """Return when the stage started, or None."""
        return self._starts.get(stage)

    def ended(self, stage: Stage) -> float | None:
        """Return when the stage ended, or None."""
        return self._ends.get(stage)

    def join(self, other: Marks) -> None:
        """Add the marks of `other`. Existing marks stay."""
        self._starts = other._starts | self._starts
        self._ends = other._ends | self._ends

    def spans(self, finish: float) -> dict[Stage, tuple[float, float]]:
        """Return the (start, end) of each stage that has started, in pipeline order.

        A stage that has not ended lasts until `finish`.
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
        stages_s: Exclusive share of every stage, in pipeline order.
        raw_s: Duration of each marked stage, including time overlapped with other stages.
        unattributed_s: Time that belongs to no stage.
    """

    stages_s: Mapping[Stage, float]
    raw_s: Mapping[Stage, float]
    unattributed_s: float

    @property
    def total_s(self) -> float:
        """The whole time: all shares and the unattributed time."""
        return sum(self.stages_s.values()) + self.unattributed_s

    def as_ms(self) -> dict[str, float]:
        """Return the shares in milliseconds, to 0.1 ms, by stage name in pipeline order, with `unattributed` last."""
        shares = {stage.value: self.stages_s[stage] for stage in Stage} | {UNATTRIBUTED: self.unattributed_s}
        return {name: round(share * 1000, 1) for name, share in shares.items()}


def waterfall(marks: Marks, begin: float, finish: float) -> Waterfall:
    """Divide the time [begin, finish] among the stages. Marks outside of it are clipped.

    Args:
        marks: The marks of the turn.
        begin: Usually when the caller's last sample arrived.
        finish: Usually when the reply's first sample was sent.
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
    """Return how much of the free intervals [start, end) covers, and the intervals that remain free."""
    covered, rest = 0.0, []
    for low, high in free:
        inner_low, inner_high = max(low, start), min(high, end)
        if inner_low >= inner_high:
            rest.append((low, high))
            continue
        covered += inner_high - inner_low
        rest += [gap for gap in ((low, inner_low), (inner_high, high)) if gap[0] < gap[1]]
    return covered, rest
