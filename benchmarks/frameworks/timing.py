"""Added latency and the rule for passing. Pure arithmetic, the same for every contender.

Every turn has an ideal answer, that of an infinitely fast machine:

- Speech recognition starts where the contender's own rules allow it. This time is found offline on the same audio.
- The language model starts when the transcript is available and the configured silence has passed.
- Text to speech starts when the language model is done.

The *added* latency is the time from the ideal answer to the first audible sample of the real one. Both frameworks
transcribe after the silence, so their ideal answer comes 330 ms (the time of the engines) after the end of that
silence. A contender that transcribes during the silence has an earlier ideal answer, so the overlap gives it no
advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

LIMIT_MS = 50.0
"""Maximum 95th percentile of the added latency in a passing run, in milliseconds."""

LATE_FRAMES_MS = 5.0
"""Maximum 99th percentile of the delay with which the feeder sends frames, in milliseconds. Above it the harness would
measure its own delay, so the run is INVALID.
"""

FOREIGN_SHARE = 0.25
"""Maximum share of the contender's core that other processes may use. They run at lower priority, in the contender's
idle time.
"""

EARLY_MS = 100.0
"""Milliseconds by which an answer may come before its ideal time. A probability near its threshold can end speech a few
windows earlier than in the offline pass. An even earlier reply does not answer this turn.
"""


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Fixed times that speech to text, language model and text to speech take, in milliseconds."""

    stt_ms: float = 100.0
    llm_ms: float = 150.0
    tts_ms: float = 80.0


@dataclass(frozen=True, slots=True)
class TimedEdge:
    """An end of speech by the contender's own rules, in ms after the first frame of its cycle is due.

    Attributes:
        work_ms: When speech recognition can begin.
        commit_ms: When the silence that the rules require has passed.
    """

    work_ms: float
    commit_ms: float

    def ideal_ms(self, engines: EngineTimes) -> float:
        """Return when the answer would be audible on an infinitely fast machine, in ms after the cycle's start."""
        return max(self.work_ms + engines.stt_ms, self.commit_ms) + engines.llm_ms + engines.tts_ms


@dataclass(frozen=True, slots=True)
class Answers:
    """Latencies and errors of the answers to the turns after the warm-up.

    Attributes:
        added_ms: Added latency of each answered turn in milliseconds.
        missed: Number of turns without an answer.
        stray: Number of replies that belong to no turn.
    """

    added_ms: tuple[float, ...]
    missed: int
    stray: int

    @property
    def turns(self) -> int:
        """Number of turns, answered and missed ones."""
        return len(self.added_ms) + self.missed


def judge(ideal: Sequence[float], sounded: Sequence[float], idle_timeout_s: float, counted_from: float) -> Answers:
    """Return the answers of one session: match its replies to its turns.

    Args:
        ideal: Times of the ideal answers in seconds, sorted.
        sounded: Times at which a reply became audible in seconds, sorted.
        idle_timeout_s: An answer must come at most this many seconds after its ideal time, and at most `EARLY_MS`
            before it.
        counted_from: Time in seconds. Turns before it are the warm-up: they are matched but not counted.
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
    """Return the answers of all sessions of a run in one object: latencies joined, counts added up."""
    added = tuple(value for part in answers for value in part.added_ms)
    return Answers(added, sum(part.missed for part in answers), sum(part.stray for part in answers))


class ProbeOutcome(Enum):
    """Outcome of one run. INVALID means that the harness was disturbed, so the run proves nothing."""

    PASS = "PASS"
    FAIL = "FAIL"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class HarnessCheck:
    """Self-check of the harness in one run.

    Attributes:
        late_p99_ms: 99th percentile of the delay with which the feeder sent frames, in milliseconds.
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
        turns: Number of turns after the warm-up.
        missed: Turns without an answer.
        stray: Replies that belong to no turn.
        p50_ms: Median of the added latency in milliseconds. None if no turn was answered.
        p95_ms: 95th percentile of the added latency in milliseconds. None if no turn was answered.
        p99_ms: 99th percentile of the added latency in milliseconds. None if no turn was answered.
        late_p99_ms: 99th percentile of the delay with which the feeder sent frames, in milliseconds.
        foreign_share: Share of the contender's core that other processes used.
        cpu: Average number of cores that the contender used.
        memory_mb: Memory of the contender's process tree in MB (proportional set size).
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
    """Return the outcome of a run, and in words why it did not pass ("" for PASS).

    The run is INVALID if the self-check of the harness fails or no turn was due.
    """
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
    """Return the percentile `rank` (0 to 100) by the nearest-rank method. None without values."""
    return float(np.percentile(values, rank, method="inverted_cdf")) if values else None
