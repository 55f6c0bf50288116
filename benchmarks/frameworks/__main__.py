"""`python -m benchmarks.frameworks`: sessions a core, ours and two frameworks', by one rule."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.frameworks.comparison import (
    CACHE,
    FrameworkRow,
    compare,
    diary_of,
    forget_diary,
    in_order,
    load_rows,
    ratios,
    save_rows,
)
from benchmarks.frameworks.contestants import named


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Measure what is asked for, and print the table of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a row's name; repeatable")
    parser.add_argument("--again", action="store_true", help="measure those rows anew")
    parser.add_argument("--rows", type=Path, default=CACHE / "rows.json", help="where finished rows are kept")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    contestants = named(tuple(options.only))
    finished = load_rows(options.rows)
    if options.again:
        for contestant in contestants:
            finished.pop(contestant.name, None)
            forget_diary(diary_of(options.rows, contestant))
    uvloop.run(compare(contestants, finished, options.rows, _tell))
    rows = in_order(finished)
    print_table(rows)
    if options.json:
        save_rows(options.json, rows)


def table(rows: Sequence[FrameworkRow]) -> Table:
    """One line a contender."""
    shown = Table("contender", "sessions a core", "bar", "verdict", "added p50", "p95 ms", "core", "MB a session")
    for row in rows:
        knee = "not known" if row.sessions is None else str(row.sessions)
        bar = str(row.bar) if row.bar else ""
        figures = (_figure(row.p50_ms, ".0f"), _figure(row.p95_ms, ".0f"), _figure(row.cpu, ".0%"))
        shown.add_row(row.title, knee, bar, row.verdict, *figures, _figure(row.memory_mb, ".1f"))
    return shown


def print_table(rows: Sequence[FrameworkRow]) -> None:
    """The table, then the ratios."""
    console = Console()
    console.print(table(rows))
    for ratio in ratios(rows):
        console.print(
            f"{ratio.ours} holds {ratio.ratio:.1f} times the sessions of {ratio.rival}"
            f" (wanted: {ratio.wanted:g}): {ratio.verdict}"
        )


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
