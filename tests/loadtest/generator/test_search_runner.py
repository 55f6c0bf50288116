"""A search as it is performed, with runs that are told instead of held."""

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
    """Holds `capacity` calls. `slow_after`: small loads are slow once more calls than that were offered. `undecided`
    and `unfit`: how many of a load's runs end so before one is decided.
    """

    capacity: int = 100
    slow_after: int = 10**9
    undecided: dict[int, int] = field(default_factory=dict)
    unfit: dict[int, int] = field(default_factory=dict)
    held: list[Scenario] = field(default_factory=list)
    told: list[CompletedStep] = field(default_factory=list)

    def hold(self, scenario: Scenario) -> RunResult:
        self.held.append(scenario)
        calls = scenario.sessions
        if calls == PROBE_SESSIONS and scenario.for_s == PROBE_S:
            slow = max(each.sessions for each in self.held) > self.slow_after
            return result(whole_ms=900.0 if slow else 400.0)
        for left, outcome in ((self.undecided, RunOutcome.UNDECIDED), (self.unfit, RunOutcome.INVALID)):
            if left.get(calls):
                left[calls] -= 1
                return result(outcome, causes=("late",) if outcome is RunOutcome.INVALID else ())
        return result(RunOutcome.PASS if calls <= self.capacity else RunOutcome.FAIL)

    def search(self, start: int = 50, most: int = 1000) -> SearchResult:
        return search(SCENARIO, start=start, most=most, tell=self.told.append, hold=self.hold)

    def of(self, calls: int) -> list[float]:
        """How long each run with so many calls was."""
        return [each.for_s for each in self.held if each.sessions == calls]


def test_every_step_is_told_and_has_a_recovery_check_behind_it() -> None:
    """And the result is that of the machine, with the small load's median and the engines of the first run."""
    system = System(capacity=100)
    found = system.search()
    assert (found.ending, found.holds) == (SearchEnd.SYSTEM_LIMITED, 100)
    assert found.breaks is not None
    assert 100 < found.breaks <= 106
    assert found.steps == tuple(system.told)
    assert len(system.of(PROBE_SESSIONS)) == 1 + len(found.steps)
    assert (found.baseline_ms, found.engines) == (400.0, result().engines)
    assert len({each.seed for each in system.held if each.sessions == 100}) == len(system.of(100))


def test_an_undecided_step_is_held_once_more_for_longer() -> None:
    """And if that decides nothing, it has failed, which the step says."""
    system = System(undecided={50: 1, 100: 2})
    found = system.search(most=100)
    assert system.of(50)[:2] == [60, 60 * LONGER]
    assert found.steps[0].passed
    assert system.of(100)[:2] == [60, 60 * LONGER]
    assert found.steps[1].outcome is RunOutcome.UNDECIDED
    assert not found.steps[1].passed


def test_an_unfit_generator_is_asked_again_only_in_a_repeat() -> None:
    """A hiccup under a load that passed before says nothing of the generator; under a new load it ends the search."""
    found = System(unfit={100: 1}).search(start=100, most=100)
    assert (found.ending, found.steps[-1].step.kind) == (SearchEnd.GENERATOR_LIMITED, StepKind.SEARCH)

    class Later(System):
        """Fit until 100 calls have passed, then unfit once."""

        def hold(self, scenario: Scenario) -> RunResult:
            if scenario.sessions == 100 and len(self.of(100)) == 1:
                self.unfit = {100: 1}
            return super().hold(scenario)

    later = Later()
    assert later.search(start=100, most=100).ending is SearchEnd.BOUND_REACHED
    assert len(later.of(100)) == 1 + 3 + 1


def test_a_system_that_stays_slow_has_failed_the_load() -> None:
    """The small load behind it is answered in 900 ms instead of 400."""
    system = System(capacity=10**6, slow_after=60)
    found = system.search()
    assert [taken.recovered for taken in found.steps[:2]] == [True, False]
    assert found.steps[1].outcome is RunOutcome.PASS
    assert found.breaks is not None


@pytest.mark.parametrize(("start", "most"), [(0, 10), (20, 10)])
def test_bounds_that_are_none_are_refused(start: int, most: int) -> None:
    """Before anything is held."""
    system = System()
    with pytest.raises(ConfigError, match="--most"):
        system.search(start, most)
    assert not system.held


def test_only_held_calls_can_be_searched() -> None:
    """A number of calls is what a ramp holds."""
    with pytest.raises(ConfigError, match="ramp"):
        search(replace(SCENARIO, arrivals=Arrivals.POISSON), start=1, most=2, tell=lambda _: None, hold=System().hold)
