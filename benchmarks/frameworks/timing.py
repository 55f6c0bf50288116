"""Added latency and the rule for passing. Pure arithmetic, the same for every contender.

Every turn has an ideal answer, that of an infinitely fast machine:

- Speech recognition starts where the contender's own rules allow it. This edge is found offline on the same audio.
- The language model starts when the transcript is there and the configured silence has passed.
- The voice follows the language model.

The *added* latency is the time from the ideal answer to the first audible sample of the real one. Both frameworks
transcribe after the silence, so their ideal answer comes the engines' 330 ms after their own end of speech and silence.
A contender that transcribes during the silence has an earlier ideal answer, so the overlap gives it no advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

LIMIT_MS = 50.0
"""Largest 95th percentile of the added latency in a passing run."""

LATE_FRAMES_MS = 5.0
"""Largest 99th percentile of the feeder's lateness. A later feeder measures itself, so the run is INVALID."""

FOREIGN_SHARE = 0.25
"""Largest share of the contender's core that other processes may use. They run at lower priority in its idle time."""

EARLY_MS = 100.0
"""How much earlier than its ideal time an answer may come. A probability near its threshold can end speech a few
windows earlier than in the offline pass. An even earlier answer belongs to something else."""


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """The engines' fixed times."""

    stt_ms: float = 100.0
    llm_ms: float = 150.0
    tts_ms: float = 80.0


@dataclass(frozen=True, slots=True)
class TimedEdge:
    """An end of speech by the contender's own rules, in ms after the first frame of its cycle is due.

    Attributes:
        work_ms: When speech recognition can begin.
        commit_ms: When the configured silence has passed.
    """

    work_ms: float
    commit_ms: float

    def ideal_ms(self, engines: EngineTimes) -> float:
        """Return when the answer would sound on an infinitely fast machine, in ms of the cycle."""
        return max(self.work_ms + engines.stt_ms, self.commit_ms) + engines.llm_ms + engines.tts_ms


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the turns that count.

    Attributes:
        added_ms: Added latency of each answered turn.
        missed: Number of turns without an answer.
        stray: Number of replies that belong to no turn.
    """

    added_ms: tuple[float, ...]
    missed: int
    stray: int

    @property
    def turns(self) -> int:
        """Number of turns, answered or missed."""
        return len(self.added_ms) + self.missed


def judge(ideal: Sequence[float], sounded: Sequence[float], idle_timeout_s: float, counted_from: float) -> Answers:
    """Match the replies of one session to its turns.

    Args:
        ideal: Times of the ideal answers in seconds, sorted.
        sounded: Times at which a reply began to sound in seconds, sorted.
        idle_timeout_s: An answer must come at most this long after its ideal time (and at most `EARLY_MS` before it).
        counted_from: Turns before this time are the warm-up. They are matched but not counted.
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


def merge(answers: Sequence[Answers]) -> Answers:
    """Add up the answers of all sessions of a run."""
    added = tuple(value for part in answers for value in part.added_ms)
    return Answers(added, sum(part.missed for part in answers), sum(part.stray for part in answers))


class ProbeOutcome(Enum):
    """Outcome of one run. INVALID means that the harness could not measure."""

    PASS = "PASS"
    FAIL = "FAIL"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class HarnessCheck:
    """Self-check of the harness in one run.

    Attributes:
        late_p99_ms: 99th percentile of the feeder's lateness.
        foreign_share: Share of the contender's core that other processes used.
    """

    late_p99_ms: float
    foreign_share: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Result of one run.

    Attributes:
        sessions: Number of sessions.
        outcome: PASS, FAIL or INVALID.
        cause: Why the run did not pass, in words.
        turns: Number of turns that count.
        missed: Turns without an answer.
        stray: Replies that belong to no turn.
        p50_ms: Median of the added latency. None without an answer.
        p95_ms: Its 95th percentile.
        p99_ms: Its 99th percentile.
        late_p99_ms: 99th percentile of the feeder's lateness.
        foreign_share: Share of the contender's core that other processes used.
        cpu: Cores that the contender used.
        memory_mb: Proportional set size of its process tree.
    """

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


def verdict(answers: Answers, check: HarnessCheck) -> tuple[ProbeOutcome, str]:
    """Return the outcome of a run and its cause. A failed self-check makes every run INVALID."""
    if check.late_p99_ms > LATE_FRAMES_MS:
        return ProbeOutcome.INVALID, f"the feeder was {check.late_p99_ms:.1f} ms late"
    if check.foreign_share > FOREIGN_SHARE:
        return ProbeOutcome.INVALID, f"other processes used {check.foreign_share:.0%} of the contender's core"
    if not answers.turns:
        return ProbeOutcome.INVALID, "no turn was due"
    if answers.missed or answers.stray:
        return ProbeOutcome.FAIL, f"{answers.missed} turns missed, {answers.stray} replies out of turn"
    p95 = percentile(answers.added_ms, 95)
    if p95 is None or p95 > LIMIT_MS:
        return ProbeOutcome.FAIL, f"p95 {p95:.0f} ms"
    return ProbeOutcome.PASS, ""


def percentile(values: Sequence[float], rank: float) -> float | None:
    """Return the percentile by nearest rank, always a measured value. None without values."""
    return float(np.percentile(values, rank, method="inverted_cdf")) if values else None
