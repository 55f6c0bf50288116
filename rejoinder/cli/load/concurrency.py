"""`rejoinder load concurrency`: a check of each cell of the latency guide's tables of concurrency on this machine.

The tables are about sessions, placement, GPUs, numeric precisions and memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rejoinder.cli.extras import need_load_extra
from rejoinder.core.errors import ConfigError

if TYPE_CHECKING:
    from loadtest.capacity.concurrency import Cell, ConcurrencyRun, Measurements
    from loadtest.generator.measuring import MeasuredWindow
    from loadtest.results.result import RunResult

MEASURED_ROWS = "10,100"
IDLE, IDLE_S = "IDLE", 5.0
"""Name and length in seconds of the measurement without calls."""
STYLES = {
    "measured": "green",
    "projected": "cyan",
    "published": "blue",
    "does not hold": "bold red",
    "not known": "dim",
}


def concurrency(
    url: Annotated[
        str, typer.Option(help="Server for the session rows, ws://HOST:PORT/v1. Default: no session rows.")
    ] = "",
    rows: Annotated[
        str, typer.Option(help="Numbers of sessions to measure, with commas. Other rows are projected from them.")
    ] = MEASURED_ROWS,
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="Duration of each session row, for example 30s.")
    ] = "30s",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE|@FILE", help="Further keys of the scenario; see load run."),
    ] = None,
    *,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for the cells; keys: loadtest/capacity/concurrency.py."),
    ] = None,
) -> None:
    """Check the latency guide's tables of concurrency on this machine, cell by cell.

    Each cell is measured, projected (with its arithmetic), published (with its source), not known, or does not
    hold. A cell that does not hold names a configuration with which it would. The engines are measured one after
    another on one core, which takes about two minutes. With --url the session rows run first.

    Exit status: 0, or 2 after an error.
    """
    need_load_extra()
    from loadtest.capacity.concurrency import ram, sessions
    from loadtest.capacity.hardware_cells import gpus, placement, quantization
    from rejoinder.cli.load.app import write_json

    counts = _counts(rows)
    measured = _measurements(_runs(url, counts, for_, settings or []) if url else [])
    parts = (sessions(measured), placement(measured), gpus(), quantization(measured), ram(measured))
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
        raise ConfigError(f"{rows!r} is not a list of positive numbers.", "Write for example 10,100.", field="--rows")
    return counts


def _runs(url: str, counts: Sequence[int], for_: str, settings: list[str]) -> list[ConcurrencyRun]:
    from loadtest.generator.measuring import idle, measure
    from loadtest.scenario.parsing import scenario, seconds
    from rejoinder.cli.load.app import API_KEY

    found = [_run(0, IDLE, None, idle(url, IDLE_S))]
    for count in counts:
        fixed = {"url": url, "sessions": count, "for_s": seconds(for_, "--for")}
        result, window = measure(scenario(fixed | {"api_key": os.environ.get(API_KEY) or "none"}, settings))
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


def _measurements(runs: list[ConcurrencyRun]) -> Measurements:
    """Measure the engines, and return their results with the runs.

    The result contains two straight lines fitted to the runs that are neither INVALID nor FAIL: the host's cores and
    its memory in MB, by number of sessions. They are None with fewer than two such runs.
    """
    from deployments.studies import engine_cost, quantization
    from loadtest.capacity.concurrency import MeasuredEngine, Measurements, Quantized
    from loadtest.capacity.footprint import fit_line
    from rejoinder.core.settings.settings import ModelStoreSettings
    from rejoinder.store import open_store

    needs = engine_cost.study()
    compared = quantization.study(open_store(ModelStoreSettings()), threads=1)
    # In a failed run the server was overloaded, so its usage is not what the sessions need. In an invalid run the load
    # generator was at fault.
    valid = [run for run in runs if run.outcome not in ("INVALID", "FAIL")]
    sessions = [float(run.sessions) for run in valid]
    return Measurements(
        engines={need.engine: MeasuredEngine(need.memory_mb, need.job_ms, need.pace) for need in needs},
        quantized=[Quantized(row.model, row.speedup, row.error, row.what) for row in compared],
        runs=[run for run in runs if run.sessions],
        cores_line=fit_line(sessions, [run.host_cores for run in valid]) if len(valid) > 1 else None,
        memory_line=fit_line(sessions, [run.host_memory_mb for run in valid]) if len(valid) > 1 else None,
        cores=os.cpu_count() or 1,
    )


def table(cells: Sequence[Cell]) -> Table:
    """Return a table with one row for each cell of one of the guide's tables. There must be at least one cell.

    A row has the cell's row and column, the guide's value, the value found, its status and source, and the
    configuration with which the guide's value would hold.
    """
    rows = Table("row", "column", "guide", "found", "status", "source", "would hold", title=f"Guide {cells[0].table}")
    for cell in cells:
        status = f"[{STYLES[cell.status.value]}]{cell.status.value}[/]"
        rows.add_row(cell.row, cell.column, cell.guide, cell.found, status, cell.source, cell.would)
    return rows


def _summary(cells: Iterable[Cell]) -> str:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.status.value] = counts.get(cell.status.value, 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items())
