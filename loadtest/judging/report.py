"""HTML report of a load run: one self-contained page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.judging import plots
from loadtest.judging.findings import TIPS, findings
from loadtest.judging.page import render_page
from loadtest.results.result import VOICE_TO_VOICE, RunOutcome, RunResult
from loadtest.results.turn_record import WATERFALL

_TEMPLATE = Path(__file__).with_name("report.html.jinja")

EXPLANATIONS: Mapping[RunOutcome, str] = {
    RunOutcome.PASS: "The system meets all limits that decide this tier.",
    RunOutcome.FAIL: "The system misses at least one of the limits that decide this tier.",
    RunOutcome.UNDECIDED: "No limit that decides this tier is missed, but at least one needs more turns.",
    RunOutcome.INVALID: "The load generator failed its self-checks, so this run does not judge the system.",
}
"""Meaning of each outcome of a run, in one sentence."""


@dataclass(frozen=True, slots=True)
class LargestStage:
    """The stage with the largest share of the average turn.

    Attributes:
        stage: Name of the stage.
        share: Share of the mean voice-to-voice latency, 0 to 1.
        tip: The first thing to try to make the stage faster.
    """

    stage: str
    share: float
    tip: str


def largest_stage(result: RunResult) -> LargestStage | None:
    """Return the stage with the largest mean, or None if no turn has stages.

    Means are compared because the means of the stages add up to the mean of the turn. Percentiles do not.
    """
    means = {name: result.latencies[name].mean_ms for name in WATERFALL if name in result.latencies}
    total = sum(means.values())
    if not total:
        return None
    stage = max(means, key=lambda name: means[name])
    return LargestStage(stage, means[stage] / total, TIPS[stage])


def html(result: RunResult) -> str:
    """Return the report of a run as an HTML page."""
    names = (*WATERFALL, VOICE_TO_VOICE, "eou", "audio", "rtt", "stop", "setup")
    return render_page(
        _TEMPLATE,
        result=result,
        explanation=EXPLANATIONS[result.outcome],
        rows=[(name, result.latencies[name]) for name in names if name in result.latencies],
        raw=[(name, row) for name, row in sorted(result.latencies.items()) if name.startswith("raw:")],
        largest=largest_stage(result),
        findings=findings(result),
        curves=plots.percentile_curves(result) if result.latencies else "",
        waterfall=plots.waterfall(result) if largest_stage(result) else "",
        timeline=plots.timeline(result) if result.timeline else "",
    )
