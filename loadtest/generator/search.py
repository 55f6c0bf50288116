"""How many calls does it hold: doubling until a step fails, then bisection to 5%, then three confirming repeats.

Every step is a whole run: ramp and warm-up (discarded), a measured hold, a drain to idle, and a recovery check: a small
load must be answered as fast as before the step, or the system did not come back by itself (a metastable failure).
A step whose generator was not fit ends the search as generator-limited: what the system holds beyond is unknown. A step
that stays undecided is repeated once for longer; if that decides nothing, it counts as failed, and says so.

Pure: `Search` asks for the next step and takes its outcome; `loadtest.generator.search_runner` performs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from loadtest.results.result import RunOutcome

PRECISION = 0.05
REPEATS = 3
RECOVERY_SLACK = 0.10
RECOVERY_SLACK_MS = 20.0


class SearchEnd(Enum):
    """Why a search is over."""

    SYSTEM_LIMITED = "system-limited"
    GENERATOR_LIMITED = "generator-limited"
    BOUND_REACHED = "reached the bound of the search"
    NOTHING_PASSES = "even the smallest load fails"


class StepKind(Enum):
    SEARCH = "search"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One run to hold; each has a seed of its own."""

    sessions: int
    seed: int
    kind: StepKind


@dataclass(frozen=True, slots=True)
class CompletedStep:
    """A step and what came of it. `recovered` is None when no recovery check was made."""

    step: SearchStep
    outcome: RunOutcome
    p50_ms: float | None = None
    p95_ms: float | None = None
    recovered: bool | None = None
    causes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome is RunOutcome.PASS and self.recovered is not False


@dataclass(slots=True)
class Search:
    """Ask `next` until it is None, and `take` each step's outcome."""

    start: int
    most: int
    seed: int = 1
    taken: list[CompletedStep] = field(default_factory=list)
    _passing: int = 0
    _failing: int | None = None
    _confirmed: int = 0
    _ending: SearchEnd | None = None

    @property
    def ending(self) -> SearchEnd | None:
        """None while the search goes on."""
        return self._ending

    @property
    def holds(self) -> int:
        """The largest number of calls that passed three times (or so far); 0 if none did."""
        return self._passing

    @property
    def breaks(self) -> int | None:
        """The smallest number that failed."""
        return self._failing

    def next(self) -> SearchStep | None:
        """The next run; None when the search is over."""
        if self._ending:
            return None
        seed = self.seed + len(self.taken)
        if not self._located:
            return SearchStep(self._candidate(), seed, StepKind.SEARCH)
        return SearchStep(self._passing, seed, StepKind.CONFIRM)

    def take(self, taken: CompletedStep) -> None:
        """What the step that `next` named came to."""
        self.taken.append(taken)
        if taken.outcome is RunOutcome.INVALID:
            self._ending = SearchEnd.GENERATOR_LIMITED
        elif taken.passed:
            self._pass(taken.step)
        else:
            self._fail(taken.step)

    def _pass(self, step: SearchStep) -> None:
        self._passing = step.sessions
        self._confirmed = self._confirmed + 1 if step.kind is StepKind.CONFIRM else 0
        if self._located and self._confirmed >= REPEATS:
            self._ending = SearchEnd.SYSTEM_LIMITED if self._failing else SearchEnd.BOUND_REACHED

    def _fail(self, step: SearchStep) -> None:
        self._failing = step.sessions
        self._confirmed = 0
        passed = [earlier.step.sessions for earlier in self.taken if earlier.passed]
        self._passing = max((sessions for sessions in passed if sessions < step.sessions), default=0)
        if step.sessions <= 1 or (not self._passing and step.sessions <= max(1, self.start // 16)):
            self._ending = SearchEnd.NOTHING_PASSES

    @property
    def _located(self) -> bool:
        """Whether the frontier is known to the search's precision."""
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
    """Whether the small load's median is back within 10% (and 20 ms, below which a shared machine's noise lies)."""
    if before_ms is None or after_ms is None:
        return after_ms is not None
    return after_ms <= before_ms * (1 + RECOVERY_SLACK) + RECOVERY_SLACK_MS
