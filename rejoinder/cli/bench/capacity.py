"""`rejoinder bench capacity`: the capacity plan checked on this machine, row by row.

A row is one configuration of the system. One folder contains the calibration, each row's prediction (written before the
row is measured), and each finished repeat. A run that was stopped continues with the missing steps.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from cluster.environment import free_port
from cluster.launch import application, cluster
from deployments.engines.emulated import WORDS
from loadtest.capacity import calibration as calibrations
from loadtest.capacity.calibration import Calibration, levels_for
from loadtest.capacity.capacity_rows import (
    ADMISSION_ROW,
    BASE,
    KNEE_WITHIN,
    LIMIT_MS,
    P95_WITHIN,
    ROWS,
    AdmissionResult,
    CapacityRow,
    Measured,
    Predicted,
    Repeat,
    network,
    predict_row,
    row,
    settings_of,
)
from loadtest.capacity.emulated_network import emulated_stage
from loadtest.capacity.network_fit import STAGES
from loadtest.generator.measuring import measure
from loadtest.scenario.clips import write_wave
from loadtest.scenario.scenario import CallerBehavior, Scenario
from loadtest.scenario.utterances import default_clips
from rejoinder.cli.bench import admission as bench_admission
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import Application, HttpOptions, ServeFile
from rejoinder.core.settings.settings import Settings

BEHAVIOR = CallerBehavior(think_s=0.2, think_sigma=0.3, muted_between_turns=True)
BASE_KNEE = 29
"""Approximate maximum number of sessions of the base configuration. It only determines the numbers of sessions at which
the system is calibrated."""

CLIP = "two_cities.wav@4.6"
CLIP_S = (0.2, 1.72)
"""Start and end in the clip, in seconds: "it was the age of wisdom", without a pause that could end the turn."""

_MEASURED = TypeAdapter(Measured)
_PREDICTED = TypeAdapter(Predicted)


@dataclass(frozen=True, slots=True)
class Validated:
    """Predictions and measurements of the rows, and of the admission row (the share of refused calls).

    Attributes:
        rows: One element for each requested row, except the admission row.
        admission: Predicted and measured share of refused calls, 0 to 1. None if the admission row was not requested.
    """

    rows: list[Measured]
    admission: AdmissionResult | None

    @property
    def holds(self) -> bool:
        """True if the errors of all rows are within their bounds."""
        return all(found.holds for found in self.rows) and (self.admission is None or self.admission.holds)

    def documents(self) -> list[dict[str, Any]]:
        """Return the list that `--json` writes: one dict for each row, with the admission row last."""
        admission = self.admission
        extra = [asdict(admission) | {"row": ADMISSION_ROW, "holds": admission.holds}] if admission else []
        return [document(found) for found in self.rows] + extra


def validate(folder: Path, rows: str, repeats: int, for_s: float) -> Validated:
    """Calibrate, predict and measure rows, and return them. Steps whose result is in the folder are not repeated.

    Args:
        folder: Folder of the results.
        rows: Names of rows, separated by commas; "": all rows.
        repeats: Number of measurements of each row; 0: only predict.
        for_s: Duration of each run in seconds.

    Raises:
        ConfigError: A name is unknown, or the load generator was too slow for a valid run.
    """
    names = rows.split(",") if rows else [*(row.name for row in ROWS), ADMISSION_ROW]
    chosen = [_named(name) for name in names if name != ADMISSION_ROW]
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    admission = bench_admission.stored(folder) if ADMISSION_ROW in names else None
    with tempfile.TemporaryDirectory(prefix="rejoinder-caller-") as work:
        clip = short_clip(Path(work))
        calibration = _calibrated(folder, clip, for_s, console)
        results = [_stored(folder, changed, calibration, console) for changed in chosen]
        done = [len(result.repeats) for result in results] + ([len(admission.refused)] if admission else [])
        if min(done) < repeats:
            with cluster("local"):
                results = [
                    _measured(folder, result, calibration=calibration, how=(clip, for_s, repeats), console=console)
                    for result in results
                ]
                if admission:
                    admission = bench_admission.measured(
                        folder, repeats=repeats, for_s=for_s, serving=served, console=console
                    )
    return Validated(results, admission)


def _named(name: str) -> CapacityRow:
    try:
        return row(name)
    except KeyError:
        names = ", ".join(row.name for row in ROWS)
        raise ConfigError(f"there is no row {name!r}.", f"Rows: {names}.", field="--rows") from None


def short_clip(folder: Path) -> Path:
    """Write the caller's speech to `caller.wav` in the folder, and return the path: 1.5 s of a human reading."""
    path = folder / "caller.wav"
    clip = next(clip for clip in default_clips() if clip.name == CLIP)
    begin, end = (round(seconds * WIRE_RATE) * SAMPLE_BYTES for seconds in CLIP_S)
    write_wave(path, clip.pcm[begin:end])
    return path


def scenario(url: str, clip: Path, sessions: int, for_s: float, *, seed: int) -> Scenario:
    """Return a load test whose callers speak for 1.5 s and think for 0.2 s. A turn ends after 200 ms of silence.

    Args:
        url: Address of the server (http).
        clip: Recording that every caller speaks in every turn.
        sessions: Number of concurrent callers.
        for_s: Measured time in seconds, after the warm-up.
        seed: Seed of everything that is drawn at random.
    """
    return Scenario(
        url=f"{url.replace('http', 'ws', 1)}/v1",
        sessions=sessions,
        for_s=for_s,
        ramp_s=3.0,
        warm_up_s=6.0,
        drain_s=15.0,
        seed=seed,
        behavior=BEHAVIOR,
        turn_detection="server_vad",
        silence_ms=200,
        clips=(str(clip),),
    )


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Serve the application with these settings on the connected cluster; yield its URL (http)."""
    document = ServeFile(http_options=HttpOptions(port=free_port()), applications=[Application(args=settings)])
    with application(document, lambda _: None) as url:
        yield url


def _calibrated(folder: Path, clip: Path, for_s: float, console: Console) -> Calibration:
    path = folder / "calibration.json"
    if path.exists():
        return calibrations.load(path)
    settings = settings_of(BASE, {})
    levels = []
    with cluster("local"), served(settings) as url:
        for sessions in levels_for(BASE_KNEE):
            console.print(f"calibrating at {sessions} sessions ...")
            result, window = measure(scenario(url, clip, sessions, for_s, seed=sessions))
            if result.causes:
                raise ConfigError("invalid load generator: " + "; ".join(result.causes), "Retry.", field="--out")
            levels.append(calibrations.level(result, window))
    calibration = Calibration(
        levels=tuple(levels),
        engines=result.engines,
        slots={name: emulated_stage(settings, name).slots for name in STAGES},
        behavior=BEHAVIOR,
        settings=settings.model_dump(mode="json"),
    )
    calibrations.save(calibration, path)
    return calibration


def _stored(folder: Path, changed: CapacityRow, calibration: Calibration, console: Console) -> Measured:
    """Return the prediction and the finished repeats of the row `changed` from `folder`.

    Without stored repeats, return the prediction alone, and print it on `console`. If there is no stored prediction,
    compute it from the calibration and store it.
    """
    path = folder / f"measured-{changed.name}.json"
    if path.exists():
        return _MEASURED.validate_json(path.read_bytes())
    return Measured(_predicted(folder, changed, calibration, console))


def _measured(
    folder: Path, result: Measured, calibration: Calibration, how: tuple[Path, float, int], *, console: Console
) -> Measured:
    """Measure the missing repeats of a row, and return the row with all repeats. Write each repeat when it ends.

    Args:
        folder: Folder of the results.
        result: The row's prediction, and the repeats measured so far.
        calibration: The calibration, which contains the settings of the base configuration.
        how: The caller's clip, the duration of a run in seconds, and the number of repeats.
        console: Receives one line for each repeat.

    Raises:
        ConfigError: The load generator was too slow for a valid run.
    """
    clip, for_s, repeats = how
    predicted = result.predicted
    if len(result.repeats) >= repeats:
        return result
    path = folder / f"measured-{predicted.row}.json"
    with served(settings_of(calibration.settings, row(predicted.row).changes)) as url:
        while len(result.repeats) < repeats:
            repeat = _repeat(url, clip, predicted, for_s, seed=1 + len(result.repeats))
            console.print(f"{predicted.row}, repeat {len(result.repeats) + 1}: {_comparison(predicted, repeat)}")
            if repeat.invalid:
                causes = "; ".join(repeat.invalid)
                raise ConfigError(f"invalid load generator: {causes}", "Run it again: it continues here.", "--out")
            result = Measured(predicted, (*result.repeats, repeat))
            path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def _predicted(folder: Path, changed: CapacityRow, calibration: Calibration, console: Console) -> Predicted:
    """Return the prediction of the row `changed` from `folder`, and print it on `console`.

    If there is none, compute it from the calibration and write it to the folder.
    """
    path = folder / f"predicted-{changed.name}.json"
    if not path.exists():
        prediction = predict_row(network(calibration, changed, WORDS), changed)
        path.write_text(json.dumps(asdict(prediction), indent=1) + "\n", encoding="utf-8")
    predicted = _PREDICTED.validate_json(path.read_bytes())
    console.print(f"{changed.name}: predicted knee {predicted.knee}, p95 {predicted.p95_ms} at {predicted.sessions}")
    return predicted


def _repeat(url: str, clip: Path, predicted: Predicted, for_s: float, *, seed: int) -> Repeat:
    results = []
    for sessions in predicted.sessions:
        result, _ = measure(scenario(url, clip=clip, sessions=sessions, for_s=for_s, seed=seed))
        results.append(result)
    latencies = [result.latencies["voice_to_voice"] for result in results]
    return Repeat(
        p50_ms=tuple(latency.p50_ms for latency in latencies),
        p95_ms=tuple(latency.p95_ms for latency in latencies),
        turns=tuple(result.counts.turns for result in results),
        seconds=for_s,
        invalid=tuple(cause for result in results for cause in result.causes),
    )


def _comparison(predicted: Predicted, repeat: Repeat) -> str:
    pairs = zip(predicted.sessions, predicted.p95_ms, repeat.p95_ms, repeat.turns, strict=True)
    return "; ".join(
        f"{n} sessions: p95 {p95:.0f} ms (predicted {expected:.0f}), {turns} turns" for n, expected, p95, turns in pairs
    )


def document(found: Measured) -> dict[str, Any]:
    """Return a row as the dict that `--json` writes: the fields of `Measured`, and values computed from them.

    The further keys are `knee` (measured largest number of sessions within the limit), `knee_error` and `p95_errors`
    (errors of the predictions), `knee_noise` and `p95_noise` (half the range of the repeats), and `holds` (True if the
    errors are within their bounds). Errors and noise are relative: 0.1 is 10%.
    """
    return asdict(found) | {
        "knee": round(found.knee, 2),
        "knee_error": round(found.knee_error, 4),
        "knee_noise": round(found.knee_noise, 4),
        "p95_errors": [round(error, 4) for error in found.p95_errors],
        "p95_noise": round(found.p95_noise, 4),
        "holds": found.holds,
    }


def table(measured: list[Measured]) -> Table:
    """Return a table with one line for each row, except the admission row.

    A line has the predicted and the measured knee (the largest number of sessions within the latency limit), its error,
    the errors of the predicted p95 latencies, the noise of both, and whether the bounds are met. The noise is half the
    range of the repeats. Errors and noise are in percent.
    """
    bounds = f"knee {KNEE_WITHIN:.0%}, p95 {P95_WITHIN:.0%}"
    title = f"p95 limit {LIMIT_MS:g} ms; bounds: {bounds}; noise: half the repeats' range"
    shown = Table("row", "knee predicted", "measured", "error", "noise", "p95 error", "noise", "holds", title=title)
    for found in measured:
        p95 = ", ".join(f"{error:+.0%}" for error in found.p95_errors)
        shown.add_row(
            found.predicted.row,
            str(found.predicted.knee),
            f"{found.knee:.1f} ({np.min(found.knees):.1f}-{np.max(found.knees):.1f})",
            f"{found.knee_error:+.1%}",
            f"{found.knee_noise:.1%}",
            p95,
            f"{found.p95_noise:.1%}",
            "yes" if found.holds else "no",
        )
    return shown
