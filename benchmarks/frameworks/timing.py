"""Added latency, and whether so many conversations passed: pure arithmetic, the same for every contender.

A caller's turn has an ideal answer, that of an infinitely fast machine: speech recognition starts where the
contender's own rules let it (its edge, found offline on the same audio), the language model follows when both the
transcript is there and the configured silence has passed, and speech follows the model. What the first audible sample
of the answer comes later than that is *added*. A contender that hears and waits one after the other, as both
frameworks do, is thus charged from its own end of speech and silence plus the engines' 330 ms; one that does both at
once gets no credit for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

LIMIT_MS = 50.0
"""DESIGN section 5: what the system may add at its rated load, at the 95th percentile."""

LATE_FRAMES_MS = 5.0
"""A feeder that is later than this at its 99th percentile measured itself."""

FOREIGN_SHARE = 0.25
"""Others may use what the contender leaves idle, at lower priority; a core that they used this much of was shared."""

EARLY_MS = 100.0
"""A probability near its threshold may end speech a few windows sooner in one cycle than in the one that was decided
offline; an answer that is sooner still is an answer to something else."""


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """The engines' own times."""

    stt_ms: float = 100.0
    llm_ms: float = 150.0
    tts_ms: float = 80.0


@dataclass(frozen=True, slots=True)
class TimedEdge:
    """An end of speech by the contender's own rules, in ms after the first frame of its cycle was due."""

    work_ms: float
    commit_ms: float

    def ideal_ms(self, engines: EngineTimes) -> float:
        """When the answer sounds on an infinitely fast machine."""
        return max(self.work_ms + engines.stt_ms, self.commit_ms) + engines.llm_ms + engines.tts_ms


@dataclass(frozen=True, slots=True)
class Answers:
    """Of the turns that counted: added latency of the answered ones, and how many got no answer. `stray` replies
    belong to no turn: a contender that speaks out of turn answered something that nobody asked.
    """

    added_ms: tuple[float, ...]
    missed: int
    stray: int

    @property
    def turns(self) -> int:
        return len(self.added_ms) + self.missed


def judge(ideal: Sequence[float], sounded: Sequence[float], idle_timeout_s: float, counted_from: float) -> Answers:
    """One session: the ideal instants of its answers and those at which a reply began to sound, in seconds, sorted.

    An answer comes after its ideal instant (less EARLY_MS) and within `idle_timeout_s`. Turns before `counted_from`
    warm
    up: they are matched, not counted.
    """
    added: list[float] = []
    missed = 0
    used: set[int] = set()
    for due in ideal:
        match = next(
            (
                number
                for number, at in enumerate(sounded)
                if number not in used and due - EARLY_MS / 1000 <= at <= due + idle_timeout_s
            ),
            None,
        )
        if match is not None:
            used.add(match)
        if due < counted_from:
            continue
        if match is None:
            missed += 1
        else:
            added.append((sounded[match] - due) * 1000)
    stray = sum(1 for number, at in enumerate(sounded) if number not in used and at >= counted_from)
    return Answers(tuple(added), missed, stray)


def together(answers: Sequence[Answers]) -> Answers:
    """All sessions of one run."""
    added = tuple(value for part in answers for value in part.added_ms)
    return Answers(added, sum(part.missed for part in answers), sum(part.stray for part in answers))


class ProbeOutcome(Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class HarnessFitness:
    """What the harness itself did: lateness of its frames, and the share of the contender's core that was not the
    contender's.
    """

    late_p99_ms: float
    foreign_share: float


@dataclass(frozen=True, slots=True)
class Probe:
    """One run with so many sessions. `cpu`: cores used; `memory_mb`: proportional set size of the process tree."""

    sessions: int
    outcome: ProbeOutcome
    cause: str
    turns: int
    missed: int
    stray: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    late_p99_ms: float
    foreign_share: float
    cpu: float
    memory_mb: float


def verdict(answers: Answers, fitness: HarnessFitness) -> tuple[ProbeOutcome, str]:
    """The harness's own faults come first: they void the run, whatever it showed."""
    if fitness.late_p99_ms > LATE_FRAMES_MS:
        return ProbeOutcome.INVALID, f"the feeder was {fitness.late_p99_ms:.1f} ms late"
    if fitness.foreign_share > FOREIGN_SHARE:
        return ProbeOutcome.INVALID, f"others used {fitness.foreign_share:.0%} of the contender's core"
    if not answers.turns:
        return ProbeOutcome.INVALID, "no turn was due"
    if answers.missed or answers.stray:
        return ProbeOutcome.FAIL, f"{answers.missed} turns missed, {answers.stray} replies out of turn"
    p95 = percentile(answers.added_ms, 95)
    if p95 is None or p95 > LIMIT_MS:
        return ProbeOutcome.FAIL, f"p95 {p95:.0f} ms"
    return ProbeOutcome.PASS, ""


def percentile(values: Sequence[float], rank: float) -> float | None:
    """The smallest measured value that at least `rank` percent do not exceed; None of nothing."""
    return float(np.percentile(values, rank, method="inverted_cdf")) if values else None
