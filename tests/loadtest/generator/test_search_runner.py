"""Tests of the search runner, which searches for the largest number of calls that passes, with simulated runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from loadtest.generator.search import CompletedStep, SearchEnd, StepKind
from loadtest.generator.search_runner import LONGER, PROBE_S, PROBE_SESSIONS, SearchResult, search
from loadtest.results.result import RunOutcome, RunResult
from loadtest.scenario.scenario import Arrivals, Scenario
from rejoinder.core.errors import ConfigError
from tests.loadtest.results.sample_results import result

SCENARIO = Scenario("ws://127.0.0.1:9/v1", 1, 60)


@dataclass
class System:
    """A simulated system and load generator.

    Attributes:
        capacity: Largest number of calls that passes.
        slow_after: After a run with more calls than this, the system stays slow under a small load.
        undecided: Maps a number of calls to how many of its next runs are UNDECIDED.
        invalid: Maps a number of calls to how many of its next runs are INVALID.
        runs: The scenarios that were run.
        steps: The steps that were reported.
    """

    capacity: int = 100
    slow_after: int = 10**9
    undecided: dict[int, int] = field(default_factory=dict)
    invalid: dict[int, int] = field(default_factory=dict)
    runs: list[Scenario] = field(default_factory=list)
    steps: list[CompletedStep] = field(default_factory=list)

    def hold(self, scenario: Scenario) -> RunResult:
        self.runs.append(scenario)
        calls = scenario.sessions
        if calls == PROBE_SESSIONS and scenario.for_s == PROBE_S:
            slow = max(each.sessions for each in self.runs) > self.slow_after
            return result(whole_ms=900.0 if slow else 400.0)
        for left, outcome in ((self.undecided, RunOutcome.UNDECIDED), (self.invalid, RunOutcome.INVALID)):
            if left.get(calls):
                left[calls] -= 1
                return result(outcome, causes=("late",) if outcome is RunOutcome.INVALID else ())
        return result(RunOutcome.PASS if calls <= self.capacity else RunOutcome.FAIL)

    def search(self, start: int = 50, most: int = 1000) -> SearchResult:
        return search(SCENARIO, start=start, most=most, on_step=self.steps.append, hold=self.hold)

    def lengths_s(self, calls: int) -> list[float]:
        """Return the measured time in seconds of each run with this number of calls."""
        return [each.for_s for each in self.runs if each.sessions == calls]


def test_every_step_is_reported_and_followed_by_a_recovery_check() -> None:
    """Each step is reported to `on_step` and followed by a run with a small load.

    The result has the numbers of calls that passed and failed, and the first small load's median latency and engines.
    """
    system = System(capacity=100)
    found = system.search()
    assert (found.ending, found.holds) == (SearchEnd.SYSTEM_LIMITED, 100)
    assert found.breaks is not None
    assert 100 < found.breaks <= 106
    assert found.steps == tuple(system.steps)
    assert len(system.lengths_s(PROBE_SESSIONS)) == 1 + len(found.steps)
    assert (found.baseline_ms, found.engines) == (400.0, result().engines)
    assert len({each.seed for each in system.runs if each.sessions == 100}) == len(system.lengths_s(100))


def test_an_undecided_step_is_repeated_once_for_longer() -> None:
    """An UNDECIDED step is repeated once, for `LONGER` times the measured time.

    If the repeat is also UNDECIDED, the step has not passed.
    """
    system = System(undecided={50: 1, 100: 2})
    found = system.search(most=100)
    assert system.lengths_s(50)[:2] == [60, 60 * LONGER]
    assert found.steps[0].passed
    assert system.lengths_s(100)[:2] == [60, 60 * LONGER]
    assert found.steps[1].outcome is RunOutcome.UNDECIDED
    assert not found.steps[1].passed


def test_an_invalid_run_is_repeated_only_while_confirming() -> None:
    """If the first run with a number of calls is INVALID, the search ends.

    A confirming run follows runs with this number of calls that were valid. If it is INVALID, it is repeated once.
    """
    found = System(invalid={100: 1}).search(start=100, most=100)
    assert (found.ending, found.steps[-1].step.kind) == (SearchEnd.GENERATOR_LIMITED, StepKind.SEARCH)

    class Later(System):
        """A system whose second run with 100 calls is INVALID."""

        def hold(self, scenario: Scenario) -> RunResult:
            if scenario.sessions == 100 and len(self.lengths_s(100)) == 1:
                self.invalid = {100: 1}
            return super().hold(scenario)

    later = Later()
    assert later.search(start=100, most=100).ending is SearchEnd.BOUND_REACHED
    assert len(later.lengths_s(100)) == 1 + 3 + 1


def test_a_system_that_stays_slow_has_failed_the_step() -> None:
    """A step fails if a small load is answered in 900 ms after the step, but in 400 ms before it."""
    system = System(capacity=10**6, slow_after=60)
    found = system.search()
    assert [step.recovered for step in found.steps[:2]] == [True, False]
    assert found.steps[1].outcome is RunOutcome.PASS
    assert found.breaks is not None


@pytest.mark.parametrize(("start", "most"), [(0, 10), (20, 10)])
def test_invalid_bounds_are_refused(start: int, most: int) -> None:
    """A start of 0 calls, or a start above the maximum, raises ConfigError before any run."""
    system = System()
    with pytest.raises(ConfigError, match="--most"):
        system.search(start, most)
    assert not system.runs


def test_a_search_needs_ramp_arrivals() -> None:
    """Arrivals other than `ramp` do not keep a fixed number of calls open, so they raise ConfigError."""
    with pytest.raises(ConfigError, match="ramp"):
        search(
            replace(SCENARIO, arrivals=Arrivals.POISSON), start=1, most=2, on_step=lambda _: None, hold=System().hold
        )
