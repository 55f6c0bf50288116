"""Load runs in order of time, each with what changed since the run before that offered the same calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.judging.comparison import Change, compare
from loadtest.results.result import VOICE_TO_VOICE


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run of a history. Latencies are voice to voice, in milliseconds; None if no turn was measured.

    Attributes:
        name: Name of the result's file.
        started_at: Start of the run, ISO 8601 in UTC.
        outcome: PASS, FAIL, UNDECIDED or INVALID.
        tier: Latency tier of the run.
        sessions: Number of calls of the scenario.
        turns: Number of measured turns.
        p50_ms: Median.
        p95_ms: 95th percentile.
        before: Name of the file of the run that it is compared with; "" if no earlier run offered the same calls.
        worse: Figures that are shown to be worse than in that run.
        better: Figures that are shown to be better.
    """

    name: str
    started_at: str
    outcome: str
    tier: str
    sessions: int
    turns: int
    p50_ms: float | None
    p95_ms: float | None
    before: str
    worse: tuple[str, ...]
    better: tuple[str, ...]


def is_result(document: object) -> bool:
    """Return True if a parsed JSON document is a result of `rejoinder load run --json`."""
    needed = {"outcome", "scenario", "started_at", "latencies", "counts", "engines", "schedule_sha256"}
    return isinstance(document, Mapping) and needed <= document.keys()


def history(results: Mapping[str, Mapping[str, Any]]) -> tuple[PastRun, ...]:
    """Return the runs of `results`, which are parsed JSON by the name of their file, oldest first.

    A run is compared with the newest earlier run that is not INVALID and has the same schedule, number of calls and
    perturbations. An INVALID run is not compared.
    """
    newest: dict[tuple[object, ...], str] = {}
    runs = []
    for name, run in sorted(results.items(), key=lambda item: (item[1]["started_at"], item[0])):
        scenario = run["scenario"]
        key = (run["schedule_sha256"], *(scenario.get(part) for part in ("sessions", "background", "snr_db", "loss")))
        before = newest.get(key, "") if run["outcome"] != "INVALID" else ""
        changes = compare(results[before], run).differences if before else ()
        whole = run["latencies"].get(VOICE_TO_VOICE)
        runs.append(
            PastRun(
                name,
                started_at=run["started_at"],
                outcome=run["outcome"],
                tier=scenario["tier"],
                sessions=scenario["sessions"],
                turns=run["counts"]["turns"],
                p50_ms=whole["p50_ms"] if whole else None,
                p95_ms=whole["p95_ms"] if whole else None,
                before=before,
                worse=tuple(found.name for found in changes if found.change is Change.WORSE),
                better=tuple(found.name for found in changes if found.change is Change.BETTER),
            )
        )
        if run["outcome"] != "INVALID":
            newest[key] = name
    return tuple(runs)
