"""The admission row of `rejoinder bench capacity`: the share of refused calls, compared with Erlang B."""

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
"""Context manager that serves the application with these settings while it is open, and yields its URL (http)."""


def stored(folder: Path) -> AdmissionResult:
    """Return the predicted share of refused calls, and the shares measured so far, from the file in `folder`.

    If there is no such file, write one with the prediction by Erlang B and without measurements.
    """
    path = _path(folder)
    if not path.exists():
        path.write_text(json.dumps(asdict(AdmissionResult(ADMISSION.refused)), indent=1) + "\n", encoding="utf-8")
    return _ADMITTED.validate_json(path.read_bytes())


def measured(folder: Path, repeats: int, for_s: float, serving: Serving, *, console: Console) -> AdmissionResult:
    """Measure the share of refused calls `repeats` times. Return all measured shares, with the prediction.

    Repeats whose result is already in `folder` are not run again. Each new result is written there.

    Args:
        folder: Folder of the results.
        repeats: Number of repeats.
        for_s: Duration of each repeat in seconds; at least 60 s are measured.
        serving: Called with settings. Returns a context manager that serves the application and yields its URL (http).
        console: Receives one line for each repeat.

    Raises:
        ConfigError: The run was so short that no call arrived in it.
    """
    result = stored(folder)
    if len(result.refused) >= repeats:
        return result
    with serving(settings_of(BASE, {"host": {"max_sessions": ADMISSION.max_sessions}})) as url:
        while len(result.refused) < repeats:
            counts = run(scenario(url, for_s, seed=1 + len(result.refused))).counts
            if not counts.sessions_scheduled:
                raise ConfigError("no call was made.", "Run longer.", field="--for")
            share = counts.sessions_refused / counts.sessions_scheduled
            console.print(
                f"{ADMISSION_ROW}, repeat {len(result.refused) + 1}: {share:.1%} of {counts.sessions_scheduled}"
            )
            refused, calls = (*result.refused, share), (*result.calls, counts.sessions_scheduled)
            result = AdmissionResult(result.predicted, refused, calls)
            _path(folder).write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def scenario(url: str, for_s: float, seed: int) -> Scenario:
    """Return a load test of silent calls with Poisson arrivals and a fixed length. The whole run is measured.

    Args:
        url: Address of the server (http).
        for_s: Duration of the run in seconds. It is raised to 60 if it is shorter.
        seed: Seed of everything that is drawn at random.
    """
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


def summary(result: AdmissionResult) -> str:
    """Return one line of text: the predicted and the measured share of refused calls, and whether the prediction holds.

    The line also has the relative error of the prediction, in percent, and the noise. The noise is half the range of
    the repeats, relative to the measured share. The prediction holds if its error is within a fixed bound.
    """
    return (
        f"{ADMISSION_ROW}: refused {result.predicted:.1%} predicted (Erlang B), {result.measured:.1%} measured, "
        f"error {result.error:+.1%}, noise {result.noise:.1%}, {'holds' if result.holds else 'does not hold'}"
    )


def _path(folder: Path) -> Path:
    return folder / f"measured-{ADMISSION_ROW}.json"
