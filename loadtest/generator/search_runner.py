"""Run a search: each step of `loadtest.generator.search` is a load run followed by a recovery check.

The recovery check is a run with a small load, which must be answered as fast as before the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtest.generator.run import run
from loadtest.generator.search import CompletedStep, Search, SearchEnd, SearchStep, StepKind, recovered
from loadtest.results.result import RunOutcome, RunResult
from loadtest.scenario.scenario import Arrivals, Scenario
from rejoinder.core.errors import ConfigError

PROBE_SESSIONS = 4
"""Number of calls in the recovery check."""

PROBE_S = 20.0
"""Measured time of the recovery check in seconds."""

LONGER = 2.0
"""Factor on the measured time when an undecided step is repeated."""

Hold = Callable[[Scenario], RunResult]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Result of a search. The JSON document of `rejoinder load search` has one key for each attribute.

    Attributes:
        holds: Largest number of calls that passed, confirmed by three repeats unless the generator was the limit. 0 if
            none passed.
        breaks: Smallest number of calls that failed, or null if none did.
        ending: Reason why the search ended.
        steps: The completed steps, in order.
        baseline_ms: Median voice-to-voice latency under a small load before the search, in milliseconds.
        engines: Engine of each stage, as the server reports it.
    """

    holds: int
    breaks: int | None
    ending: SearchEnd
    steps: tuple[CompletedStep, ...]
    baseline_ms: float | None
    engines: dict[str, str]


def search(
    scenario: Scenario, start: int, most: int, on_step: Callable[[CompletedStep], None], *, hold: Hold = run
) -> SearchResult:
    """Find the largest number of calls that passes the limits of the scenario's tier.

    Args:
        scenario: What each step runs, except for `sessions` and `seed`.
        start: Number of calls of the first step.
        most: Largest number of calls to try.
        on_step: Called after each step.
        hold: Function that runs a scenario and returns its result.

    Raises:
        ConfigError: The bounds are invalid, or the scenario does not have a fixed number of calls.
    """
    if not 1 <= start <= most:
        raise ConfigError(f"cannot search from {start} to {most} calls.", "Use a --start from 1 to --most.", "--start")
    if scenario.arrivals is not Arrivals.RAMP:
        raise ConfigError(
            "a search needs a fixed number of calls.", "Use the default arrivals=ramp.", field="--set arrivals"
        )
    state = Search(start, most, scenario.seed)
    probe = replace(scenario, sessions=PROBE_SESSIONS, for_s=PROBE_S, warm_up_s=2.0, ramp_s=1.0)
    baseline = hold(probe)
    baseline_ms = _median(baseline)
    while (step := state.next()) is not None:
        completed = _run_step(scenario, step=step, probe=probe, baseline_ms=baseline_ms, hold=hold)
        state.record(completed)
        on_step(completed)
    ending = state.ending
    assert ending is not None  # `next` returns None only if the search has ended
    return SearchResult(
        state.holds,
        breaks=state.breaks,
        ending=ending,
        steps=tuple(state.completed),
        baseline_ms=baseline_ms,
        engines=baseline.engines,
    )


def _run_step(
    scenario: Scenario, step: SearchStep, probe: Scenario, baseline_ms: float | None, *, hold: Hold
) -> CompletedStep:
    """Run one step, and then its recovery check.

    An undecided run is repeated once with twice the measured time.

    Args:
        scenario: What the step runs, except for `sessions` and `seed`.
        step: The step.
        probe: Scenario of the recovery check: a small load.
        baseline_ms: Median voice-to-voice latency of `probe` before the search, in milliseconds. None without answers.
        hold: Function that runs a scenario and returns its result.
    """
    loaded = replace(scenario, sessions=step.sessions, seed=step.seed)
    result = hold(loaded)
    if result.outcome is RunOutcome.UNDECIDED:
        result = hold(replace(loaded, for_s=loaded.for_s * LONGER))
    if result.outcome is RunOutcome.INVALID and step.kind is StepKind.CONFIRM:
        # The generator failed its self-checks. It has passed them before with this number of calls, so a short delay on
        # a shared machine is the likely cause. Repeat the run once.
        result = hold(loaded)
    has_recovered = None
    if result.outcome is not RunOutcome.INVALID:
        has_recovered = recovered(baseline_ms, _median(hold(replace(probe, seed=step.seed))))
    return CompletedStep(
        step,
        outcome=result.outcome,
        p50_ms=_median(result),
        p95_ms=result.whole.p95_ms if result.whole else None,
        recovered=has_recovered,
        causes=result.causes,
    )


def _median(result: RunResult) -> float | None:
    return result.whole.p50_ms if result.whole else None
