"""Where a turn's time went: marks become a waterfall.

Every stage leaves two marks on one monotonic clock of one process. A waterfall divides the interval between the
caller's last sample and the reply's first among the stages, so that the parts sum to the whole: an instant belongs
to exactly one stage, or to none (`unattributed`, which is the system's own time and must stay near zero).

Some stages run side by side: from the soft end on, the turn model decides (ENDPOINT) while the transcript is made
(STT), and the reply waits for both. An instant that several stages cover belongs to the earliest in pipeline order.
So of two parallel stages the first counts in full and the second by what it took beyond the first: what removing
it would have saved. That rule gives the waterfall the property that makes it useful for blame. If one stage takes
d longer, and what waits for it shifts by d, then that stage grows by at most d, exactly d if it ended last of its
parallel group, and no other stage grows. The stages after it are only moved; parallel stages are only covered more.

The property needs marks that tell what was waited for. A reply prepared ahead of its commit overlaps ENDPOINT
without waiting for it: there ENDPOINT starts when the reply was ready and held back, not at the soft end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    """The stages of a turn in pipeline order; values are the names in JSON and in metrics."""

    SILENCE = "silence"
    ENDPOINT = "endpoint"
    STT = "stt"
    LLM_FIRST_TOKEN = "llm_first_token"
    FIRST_SEGMENT = "first_segment"
    TTS_FIRST_AUDIO = "tts_first_audio"
    DELIVERY = "delivery"


UNATTRIBUTED = "unattributed"


@dataclass(slots=True)
class Marks:
    """When each stage of one turn began and ended; of repeated marks the first counts.

    So a retried request is one stage from the first attempt to the first success. An end without a start leaves the
    stage out: its time shows as unattributed.
    """

    _starts: dict[Stage, float] = field(default_factory=dict)
    _ends: dict[Stage, float] = field(default_factory=dict)

    def start(self, stage: Stage, now: float) -> None:
        self._starts.setdefault(stage, now)

    def end(self, stage: Stage, now: float) -> None:
        self._ends.setdefault(stage, now)

    def started(self, stage: Stage) -> float | None:
        """When it began; None if it has not."""
        return self._starts.get(stage)

    def ended(self, stage: Stage) -> float | None:
        """When it ended; None if it has not."""
        return self._ends.get(stage)

    def join(self, other: Marks) -> None:
        """Take over what `other` noted; of repeated marks ours count."""
        self._starts = other._starts | self._starts
        self._ends = other._ends | self._ends

    def spans(self, finish: float) -> dict[Stage, tuple[float, float]]:
        """(start, end) of each stage that began, in pipeline order; one still open lasts until `finish`."""
        return {
            stage: (self._starts[stage], max(self._starts[stage], self._ends.get(stage, finish)))
            for stage in Stage
            if stage in self._starts
        }


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A divided interval. `stages_s` are exclusive shares of every stage, in pipeline order; with
    `unattributed_s` they sum to `total_s`. `raw_s` is each marked stage's own duration, overlaps included.
    """

    stages_s: Mapping[Stage, float]
    raw_s: Mapping[Stage, float]
    unattributed_s: float

    @property
    def total_s(self) -> float:
        return sum(self.stages_s.values()) + self.unattributed_s

    def as_ms(self) -> dict[str, float]:
        """Shares in milliseconds, to 0.1 ms, by stage name in pipeline order, then `unattributed`."""
        shares = {stage.value: self.stages_s[stage] for stage in Stage} | {UNATTRIBUTED: self.unattributed_s}
        return {name: round(share * 1000, 1) for name, share in shares.items()}


def waterfall(marks: Marks, begin: float, finish: float) -> Waterfall:
    """Divide [begin, finish]: usually the caller's last sample to the reply's first. Marks outside are cut off."""
    finish = max(begin, finish)
    spans = marks.spans(finish)
    clipped = {stage: (_clip(start, begin, finish), _clip(end, begin, finish)) for stage, (start, end) in spans.items()}
    shares = dict.fromkeys(Stage, 0.0)
    free = [(begin, finish)]
    for stage, (start, end) in clipped.items():
        taken, free = _take(free, start, end)
        shares[stage] = taken
    raw = {stage: end - start for stage, (start, end) in spans.items()}
    return Waterfall(shares, raw, sum(end - start for start, end in free))


def _clip(instant: float, begin: float, finish: float) -> float:
    return min(max(instant, begin), finish)


def _take(free: list[tuple[float, float]], start: float, end: float) -> tuple[float, list[tuple[float, float]]]:
    """How much of the free intervals [start, end) covers, and what remains free."""
    taken, rest = 0.0, []
    for low, high in free:
        inner_low, inner_high = max(low, start), min(high, end)
        if inner_low >= inner_high:
            rest.append((low, high))
            continue
        taken += inner_high - inner_low
        rest += [gap for gap in ((low, inner_low), (inner_high, high)) if gap[0] < gap[1]]
    return taken, rest
