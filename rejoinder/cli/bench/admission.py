"""The row of `rejoinder bench capacity` that is about admission: refused calls against Erlang B."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from loadtest.capacity.capacity_rows import ADMISSION, ADMISSION_ROW, BASE, AdmissionResult, settings_of
from loadtest.generator.run import run
from loadtest.scenario.scenario import Arrivals, CallerBehavior, Scenario
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings

_ADMITTED = TypeAdapter(AdmissionResult)
Serving = Callable[[Settings], AbstractContextManager[str]]


def known(folder: Path) -> AdmissionResult:
    """The prediction, written before anything is measured, and the repeats that there are already."""
    path = _path(folder)
    if not path.exists():
        path.write_text(json.dumps(asdict(AdmissionResult(ADMISSION.refused)), indent=1) + "\n", encoding="utf-8")
    return _ADMITTED.validate_json(path.read_bytes())


def measured(folder: Path, repeats: int, for_s: float, serving: Serving, *, console: Console) -> AdmissionResult:
    """Measure what is missing."""
    found = known(folder)
    if len(found.refused) >= repeats:
        return found
    with serving(settings_of(BASE, {"host": {"max_sessions": ADMISSION.max_sessions}})) as url:
        while len(found.refused) < repeats:
            counts = run(scenario(url, for_s, seed=1 + len(found.refused))).counts
            if not counts.sessions_scheduled:
                raise ConfigError("no call was made.", "Run longer.", field="--for")
            share = counts.sessions_refused / counts.sessions_scheduled
            console.print(
                f"{ADMISSION_ROW}, repeat {len(found.refused) + 1}: {share:.1%} of {counts.sessions_scheduled}"
            )
            refused, calls = (*found.refused, share), (*found.calls, counts.sessions_scheduled)
            found = AdmissionResult(found.predicted, refused, calls)
            _path(folder).write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    return found


def scenario(url: str, for_s: float, seed: int) -> Scenario:
    """Calls that come at random, say nothing, and leave when their time is over; all of the run counts."""
    return Scenario(
        url=f"{url.replace('http', 'ws', 1)}/v1",
        sessions=ADMISSION.max_sessions,
        for_s=max(60.0, for_s),
        arrivals=Arrivals.POISSON,
        rate_per_s=ADMISSION.calls_per_s,
        session_s=ADMISSION.session_s,
        warm_up_s=0.0,
        seed=seed,
        behavior=CallerBehavior(muted=1.0, muted_between_turns=True),
    )


def shown(found: AdmissionResult) -> str:
    """One line, as the other rows' table has it."""
    return (
        f"{ADMISSION_ROW}: refused {found.predicted:.1%} predicted (Erlang B), {found.measured:.1%} measured, "
        f"error {found.error:+.1%}, noise {found.noise:.1%}, {'holds' if found.holds else 'does not hold'}"
    )


def _path(folder: Path) -> Path:
    return folder / f"measured-{ADMISSION_ROW}.json"
