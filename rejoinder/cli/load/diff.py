"""`rejoinder load diff`: compare the results of two load runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rejoinder.cli.extras import need_load_extra
from rejoinder.core.errors import ConfigError

# At run time the command imports it itself: it needs the extra `load`.
if TYPE_CHECKING:
    from loadtest.judging.comparison import Comparison

_COLOURS = {"better": "green", "worse": "bold red", "no difference shown": "dim"}


def diff(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="Result of the first run (`load run --json`).")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Result of the second run.")],
) -> None:
    """Compare two load runs, with 95% confidence intervals of the differences.

    Exit status: 0 nothing is worse, 1 at least one figure is worse, 2 a file cannot be read.
    """
    need_load_extra()
    from loadtest.judging.comparison import compare

    found = compare(_read(before), _read(after))
    show(Console(highlight=False), found)
    raise typer.Exit(1 if found.worse else 0)


def show(console: Console, found: Comparison) -> None:
    """Print the warnings, and one row for each figure: both runs, the difference with its interval, what it shows."""
    for warning in found.warnings:
        console.print(warning, style="yellow")
    table = Table("figure", box=None, padding=(0, 2, 0, 0))
    for heading in ("A", "B", "B - A", "95% interval"):
        table.add_column(heading, justify="right")
    table.add_column("shows")
    for row in found.differences:
        digits = 0 if row.unit == "ms" else 1
        figures = (f"{value:.{digits}f} {row.unit}" for value in (row.before, row.after))
        change = f"{row.after - row.before:+.{digits}f}"
        interval = f"{row.low:+.{digits}f} to {row.high:+.{digits}f}"
        shows = row.change.value
        table.add_row(row.name, *figures, change, interval, f"[{_COLOURS[shows]}]{shows}[/]")
    console.print(table)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", "Name a file that `load run --json` wrote.") from None
