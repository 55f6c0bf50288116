"""Performs a search: each step of `loadtest.generator.search` as a run, with a recovery check behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtest.generator.run import run
from loadtest.generator.search import CompletedStep, Search, SearchEnd, SearchStep, StepKind, recovered
from loadtest.results.result import RunOutcome, RunResult
from loadtest.scenario.scenario import Arrivals, Scenario
from rejoinder.core.errors import ConfigError

PROBE_SESSIONS = 4
PROBE_S = 20.0
LONGER = 2.0

Hold = Callable[[Scenario], RunResult]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to: `holds` passed three times (once, if the generator was the limit), `breaks` failed (None
    if nothing did).
    """

    holds: int
    breaks: int | None
    ending: SearchEnd
    steps: tuple[CompletedStep, ...]
    baseline_ms: float | None
    engines: dict[str, str]


def search(
    scenario: Scenario, start: int, most: int, tell: Callable[[CompletedStep], None], *, hold: Hold = run
) -> SearchResult:
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
        taken = _run_step(scenario, step=step, probe=probe, baseline_ms=baseline_ms, hold=hold)
        machine.take(taken)
        tell(taken)
    ending = machine.ending
    assert ending is not None  # next() is None only then
    return SearchResult(
        machine.holds,
        breaks=machine.breaks,
        ending=ending,
        steps=tuple(machine.taken),
        baseline_ms=baseline_ms,
        engines=first.engines,
    )


def _run_step(
    scenario: Scenario, step: SearchStep, probe: Scenario, baseline_ms: float | None, *, hold: Hold
) -> CompletedStep:
    asked = replace(scenario, sessions=step.sessions, seed=step.seed)
    found = hold(asked)
    if found.outcome is RunOutcome.UNDECIDED:
        found = hold(replace(asked, for_s=asked.for_s * LONGER))
    if found.outcome is RunOutcome.INVALID and step.kind is StepKind.CONFIRM:
        found = hold(asked)  # a shared machine's hiccup in a load that passed before says nothing about the generator
    back = None
    if found.outcome is not RunOutcome.INVALID:
        back = recovered(baseline_ms, _median(hold(replace(probe, seed=step.seed))))
    p95_ms = found.whole.p95_ms if found.whole else None
    return CompletedStep(
        step, outcome=found.outcome, p50_ms=_median(found), p95_ms=p95_ms, recovered=back, causes=found.causes
    )


def _median(found: RunResult) -> float | None:
    return found.whole.p50_ms if found.whole else None
