"""Performs a search: each step of `loadtest.generator.search` as a run, with a recovery check behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtest.generator.run import run
from loadtest.generator.search import Ending, Kind, Search, Step, Taken, recovered
from loadtest.results.result import Outcome, RunResult
from loadtest.scenario.scenario import Arrivals, Scenario
from rejoinder.core.errors import ConfigError

PROBE_SESSIONS = 4
PROBE_S = 20.0
LONGER = 2.0

Hold = Callable[[Scenario], RunResult]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: `holds` passed three times (once, if the generator was the limit), `breaks` failed (None
    if nothing did).
    """

    holds: int
    breaks: int | None
    ending: Ending
    steps: tuple[Taken, ...]
    baseline_ms: float | None
    engines: dict[str, str]


def search(scenario: Scenario, start: int, most: int, tell: Callable[[Taken], None], hold: Hold = run) -> Found:
    """Find the largest number of calls that the scenario's gates pass; raises ConfigError if the bounds are none."""
    if not 1 <= start <= most:
        raise ConfigError(
            f"cannot search from {start} to {most}.", "Start at 1 or more, and not above --most.", "--start"
        )
    if scenario.arrivals is not Arrivals.RAMP:
        raise ConfigError("a search holds its calls.", "Leave arrivals at ramp.", field="--set arrivals")
    machine = Search(start, most, scenario.seed)
    probe = replace(scenario, sessions=PROBE_SESSIONS, for_s=PROBE_S, warm_up_s=2.0, ramp_s=1.0)
    first = hold(probe)
    baseline_ms = _median(first)
    while (step := machine.next()) is not None:
        taken = _take(scenario, step, probe, baseline_ms, hold)
        machine.take(taken)
        tell(taken)
    ending = machine.ending
    assert ending is not None  # next() is None only then
    return Found(machine.holds, machine.breaks, ending, tuple(machine.taken), baseline_ms, first.engines)


def _take(scenario: Scenario, step: Step, probe: Scenario, baseline_ms: float | None, hold: Hold) -> Taken:
    asked = replace(scenario, sessions=step.sessions, seed=step.seed)
    found = hold(asked)
    if found.outcome is Outcome.UNDECIDED:
        found = hold(replace(asked, for_s=asked.for_s * LONGER))
    if found.outcome is Outcome.INVALID and step.kind is Kind.CONFIRM:
        found = hold(asked)  # a shared machine's hiccup in a load that passed before says nothing about the generator
    back = None
    if found.outcome is not Outcome.INVALID:
        back = recovered(baseline_ms, _median(hold(replace(probe, seed=step.seed))))
    p95_ms = found.whole.p95_ms if found.whole else None
    return Taken(step, found.outcome, _median(found), p95_ms, back, found.causes)


def _median(found: RunResult) -> float | None:
    return found.whole.p50_ms if found.whole else None
