"""`rejoinder load concurrency`: the guide's tables of sessions, placement, cards, precisions and memory by cell."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rejoinder.core.errors import ConfigError

if TYPE_CHECKING:
    from loadtest.capacity.concurrency import Cell, ConcurrencyRun, Measurements
    from loadtest.generator.measuring import MeasuredWindow
    from loadtest.results.result import RunResult

MEASURED_ROWS = "10,100"
IDLE, IDLE_S = "IDLE", 5.0
STYLES = {
    "measured": "green",
    "projected": "cyan",
    "published": "blue",
    "does not hold": "bold red",
    "not known": "dim",
}


def concurrency(
    url: Annotated[str, typer.Option(help="Measure session rows against this server (ws://HOST:PORT/v1).")] = "",
    rows: Annotated[str, typer.Option(help="Session rows to run; the others are projected from them.")] = MEASURED_ROWS,
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long each row is measured.")] = "30s",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE|@FILE", help="Of the scenario: see load run.")
    ] = None,
    *,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the cells; keys: loadtest/capacity/concurrency.py."),
    ] = None,
) -> None:
    """Every cell measured here, projected (the arithmetic is shown), published (the source is named), or not holding.

    Engines are measured one by one on one core (about two minutes); with --url the session rows run first. A row that
    does not hold names the configuration in which it would.
    """
    from loadtest.capacity.concurrency import ram, sessions
    from loadtest.capacity.hardware_cells import gpus, placement, quantization
    from rejoinder.cli.load.app import write_json

    counts = _counts(rows)
    known = _known(_runs(url, counts, for_, settings or []) if url else [])
    parts = (sessions(known), placement(known), gpus(), quantization(known), ram(known))
    tables = [list(part) for part in parts]
    console = Console(highlight=False)
    for cells in tables:
        console.print(table(cells))
    console.print(_summary(cell for cells in tables for cell in cells))
    write_json(json_file, [cell for cells in tables for cell in cells])


def _counts(rows: str) -> list[int]:
    try:
        counts = [int(row) for row in rows.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise ConfigError(f"{rows!r} are no numbers of sessions.", "For example 10,100.", field="--rows")
    return counts


def _runs(url: str, counts: Sequence[int], for_: str, settings: list[str]) -> list[ConcurrencyRun]:
    from loadtest.generator.measuring import idle, measure
    from loadtest.scenario.parsing import scenario, seconds
    from rejoinder.cli.load.app import API_KEY

    found = [_run(0, IDLE, None, idle(url, IDLE_S))]
    for count in counts:
        fixed = {"url": url, "sessions": count, "for_s": seconds(for_, "--for")}
        wanted = scenario(fixed | {"api_key": os.environ.get(API_KEY) or "none"}, settings)
        result, window = measure(wanted)
        found.append(_run(count, result.outcome.value, result, window))
    return found


def _run(sessions: int, outcome: str, result: RunResult | None, window: MeasuredWindow) -> ConcurrencyRun:
    from loadtest.capacity.concurrency import ConcurrencyRun

    host = window.stages.get("host")
    cores, memory_mb = (host.cpu_s / window.for_s, host.memory_mb) if host else (0.0, 0.0)
    causes = result.causes if result else ()
    whole = result.whole if result else None
    return ConcurrencyRun(
        sessions,
        outcome=outcome,
        p95_ms=whole.p95_ms if whole else None,
        host_cores=cores,
        host_memory_mb=memory_mb,
        causes=causes,
    )


def _known(runs: list[ConcurrencyRun]) -> Measurements:
    """Measure the engines, and draw the lines of the runs whose generator was fit."""
    from deployments.studies import engine_cost, quantization
    from loadtest.capacity.concurrency import MeasuredEngine, Measurements, Quantized
    from loadtest.capacity.footprint import line
    from rejoinder.core.settings.settings import ModelStoreSettings
    from rejoinder.store import open_store

    needs = engine_cost.study()
    compared = quantization.study(open_store(ModelStoreSettings()), threads=1)
    # A run that failed used all there was, not all it needed; one whose generator was late says nothing.
    fit = [run for run in runs if run.outcome not in ("INVALID", "FAIL")]
    sessions = [float(run.sessions) for run in fit]
    return Measurements(
        engines={need.engine: MeasuredEngine(need.memory_mb, need.job_ms, need.pace) for need in needs},
        quantized=[Quantized(row.model, row.speedup, row.error, row.what) for row in compared],
        runs=[run for run in runs if run.sessions],
        cores_line=line(sessions, [run.host_cores for run in fit]) if len(fit) > 1 else None,
        memory_line=line(sessions, [run.host_memory_mb for run in fit]) if len(fit) > 1 else None,
        cores=os.cpu_count() or 1,
    )


def table(cells: Sequence[Cell]) -> Table:
    """One of the guide's tables."""
    shown = Table("row", "column", "guide", "found", "status", "source", "would hold", title=f"Guide {cells[0].table}")
    for cell in cells:
        status = f"[{STYLES[cell.status.value]}]{cell.status.value}[/]"
        shown.add_row(cell.row, cell.column, cell.guide, cell.found, status, cell.source, cell.would)
    return shown


def _summary(cells: Iterable[Cell]) -> str:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.status.value] = counts.get(cell.status.value, 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items())
