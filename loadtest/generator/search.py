"""Search for the largest number of calls with which a system meets its limits.

The search doubles the number of calls until a step fails. Then it bisects until the smallest failing number is at most
5% above the largest passing one. Three repeats confirm the passing number.

Every step is a whole run: ramp and warm-up (discarded), measured time, drain, and a recovery check. In the recovery
check, a small load must be answered as fast as before the search. Otherwise the system has not recovered from the step
by itself, which is a metastable failure.

If the generator fails its self-checks in a step, the search ends as generator-limited, because the capacity beyond this
load is unknown. An undecided step is repeated once with a longer measured time. If it stays undecided, it counts as
failed.

This module does no input or output: `Search` returns the next step and receives its outcome.
`loadtest.generator.search_runner` runs the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from loadtest.results.result import RunOutcome

PRECISION = 0.05
"""Relative width of the interval between a passing and a failing number of calls at which the search ends."""

REPEATS = 3
"""Number of runs that confirm the result."""

RECOVERY_SLACK = 0.10
RECOVERY_SLACK_MS = 20.0
"""Accepted growth of the median in a recovery check: the share `RECOVERY_SLACK` plus this number of milliseconds. The
median varies by as much on a shared machine."""


class SearchEnd(Enum):
    """Why a search ended. The values are shown to users and written to JSON.

    Attributes:
        SYSTEM_LIMITED: The largest passing number of calls is known, because a larger number failed.
        GENERATOR_LIMITED: The load generator failed its self-checks in a step.
        BOUND_REACHED: The largest allowed number of calls passed.
        NOTHING_PASSES: Not even the smallest number of calls passed.
    """

    SYSTEM_LIMITED = "system-limited"
    GENERATOR_LIMITED = "generator-limited"
    BOUND_REACHED = "reached the bound of the search"
    NOTHING_PASSES = "even the smallest load fails"


class StepKind(Enum):
    """Purpose of a step.

    Attributes:
        SEARCH: Find the limit.
        CONFIRM: Repeat the largest passing number of calls, to confirm it.
    """

    SEARCH = "search"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One run of a search.

    Attributes:
        sessions: Number of calls that are open at the same time.
        seed: Seed of the scenario. Each step has its own seed.
        kind: Whether the step searches for the limit or confirms it.
    """

    sessions: int
    seed: int
    kind: StepKind


@dataclass(frozen=True, slots=True)
class CompletedStep:
    """A step and its outcome.

    Attributes:
        step: The step.
        outcome: Verdict on the run.
        p50_ms: Median voice-to-voice latency in milliseconds, or None if nothing was measured.
        p95_ms: 95th percentile of the voice-to-voice latency in milliseconds, or None if nothing was measured.
        recovered: True if a small load after the step was answered as fast as before the search. None if not checked.
        causes: Failed self-checks of the generator, in words.
    """

    step: SearchStep
    outcome: RunOutcome
    p50_ms: float | None = None
    p95_ms: float | None = None
    recovered: bool | None = None
    causes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if the run passed and the system has recovered from it (or recovery was not checked)."""
        return self.outcome is RunOutcome.PASS and self.recovered is not False


@dataclass(slots=True)
class Search:
    """State of a search: `next` returns the step to run, and `record` receives its outcome.

    Attributes:
        start: Number of calls of the first step.
        most: Largest number of calls to try.
        seed: Seed of the first step. Each later step adds 1.
        completed: The completed steps, in order.
    """

    start: int
    most: int
    seed: int = 1
    completed: list[CompletedStep] = field(default_factory=list)
    _passing: int = 0
    _failing: int | None = None
    _confirmed: int = 0
    _ending: SearchEnd | None = None

    @property
    def ending(self) -> SearchEnd | None:
        """Reason why the search ended, or None while it continues."""
        return self._ending

    @property
    def holds(self) -> int:
        """Largest number of calls that passed, or 0.

        When the search has ended, repeats have confirmed this number, unless the ending is GENERATOR_LIMITED.
        """
        return self._passing

    @property
    def breaks(self) -> int | None:
        """Smallest number of calls that failed, or None if none has failed."""
        return self._failing

    def next(self) -> SearchStep | None:
        """Return the next step to run, or None if the search has ended."""
        if self._ending:
            return None
        seed = self.seed + len(self.completed)
        if not self._located:
            return SearchStep(self._candidate(), seed, StepKind.SEARCH)
        return SearchStep(self._passing, seed, StepKind.CONFIRM)

    def record(self, run: CompletedStep) -> None:
        """Record the outcome of the step that `next` returned."""
        self.completed.append(run)
        if run.outcome is RunOutcome.INVALID:
            self._ending = SearchEnd.GENERATOR_LIMITED
        elif run.passed:
            self._pass(run.step)
        else:
            self._fail(run.step)

    def _pass(self, step: SearchStep) -> None:
        self._passing = step.sessions
        self._confirmed = self._confirmed + 1 if step.kind is StepKind.CONFIRM else 0
        if self._located and self._confirmed >= REPEATS:
            self._ending = SearchEnd.SYSTEM_LIMITED if self._failing else SearchEnd.BOUND_REACHED

    def _fail(self, step: SearchStep) -> None:
        self._failing = step.sessions
        self._confirmed = 0
        passed = [earlier.step.sessions for earlier in self.completed if earlier.passed]
        self._passing = max((sessions for sessions in passed if sessions < step.sessions), default=0)
        if step.sessions <= 1 or (not self._passing and step.sessions <= max(1, self.start // 16)):
            self._ending = SearchEnd.NOTHING_PASSES

    @property
    def _located(self) -> bool:
        """True if the limit is known within `PRECISION`, or if the largest number of calls to try has passed."""
        if self._failing is None:
            return self._passing >= self.most
        return self._passing > 0 and self._failing - self._passing <= max(1, PRECISION * self._failing)

    def _candidate(self) -> int:
        if self._failing is None:
            return min(self.most, max(self.start, self._passing * 2))
        if not self._passing:
            return max(1, self._failing // 2)
        return (self._passing + self._failing) // 2


def recovered(before_ms: float | None, after_ms: float | None) -> bool:
    """Return True if the system has recovered: the median latency under a small load is as before.

    The median may have grown by 10% plus 20 ms. If nothing was answered before, any answer after counts as recovery.

    Args:
        before_ms: Median before the search in milliseconds, or None if nothing was answered.
        after_ms: Median after the step in milliseconds, or None if nothing was answered.
    """
    if before_ms is None or after_ms is None:
        return after_ms is not None
    return after_ms <= before_ms * (1 + RECOVERY_SLACK) + RECOVERY_SLACK_MS
