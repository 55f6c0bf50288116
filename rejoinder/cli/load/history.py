"""`rejoinder load history`: the load runs of a folder, with what changed from run to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rejoinder.cli.extras import need_load_extra
from rejoinder.core.errors import ConfigError

# At run time the command imports it itself: it needs the extra `load`.
if TYPE_CHECKING:
    from loadtest.judging.history import PastRun

_COLOURS = {"PASS": "green", "FAIL": "red", "UNDECIDED": "yellow", "INVALID": "magenta"}


def history(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with results of `load run --json`.")],
) -> None:
    """List the load runs of a folder, oldest first, with the figures that got worse or better.

    A run is compared with the newest run before it that offered the same calls, at 95% confidence, as `load diff`
    does. Other JSON files of the folder are ignored.

    Exit status: 0, or 2 if the folder has no result or a file cannot be read.
    """
    need_load_extra()
    from loadtest.judging.history import history as made

    show(Console(highlight=False), made(read_results(folder)))


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results in a folder, as parsed JSON by the name of their file.

    Raises:
        ConfigError: The folder has no result, or a file cannot be read.
    """
    from loadtest.judging.history import is_result

    try:
        found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    except (OSError, ValueError) as error:
        raise ConfigError(f"a file cannot be read ({error}).", "Remove or repair it.", field=str(folder)) from None
    results = {name: document for name, document in found.items() if is_result(document)}
    if not results:
        remedy = "Write results into it with `rejoinder load run --json DIR/NAME.json`."
        raise ConfigError("the folder has no result of a load run.", remedy, field=str(folder))
    return results


def show(console: Console, runs: tuple[PastRun, ...]) -> None:
    """Print one row for each run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("started (UTC)", "file", "outcome"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls", "turns", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    table.add_column("since the run before")
    for run in runs:
        figures = (f"{run.sessions}", f"{run.turns}", _number(run.p50_ms), _number(run.p95_ms))
        outcome = f"[{_COLOURS[run.outcome]}]{run.outcome}[/] ({run.tier})"
        table.add_row(run.started_at[:16].replace("T", " "), escape(run.name), outcome, *figures, _changes(run))
    console.print(table)


def _changes(run: PastRun) -> str:
    if not run.before:
        return "[dim]nothing to compare with[/]"
    parts = [f"[red]worse: {', '.join(run.worse)}[/]"] if run.worse else []
    parts += [f"[green]better: {', '.join(run.better)}[/]"] if run.better else []
    return "; ".join(parts) or "[dim]no difference shown[/]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
