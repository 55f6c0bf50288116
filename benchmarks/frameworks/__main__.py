"""`python -m benchmarks.frameworks`: compare the sessions per CPU core of Rejoinder, LiveKit Agents and Pipecat."""

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
    delete_probes,
    in_order,
    load_rows,
    probe_file,
    ratios,
    save_rows,
)
from benchmarks.frameworks.contestants import named


def _print_progress(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Measure the selected contenders that have no stored result, and print the table of all stored results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="measure only the row of this name; repeatable")
    parser.add_argument("--again", action="store_true", help="measure the selected rows again")
    parser.add_argument("--rows", type=Path, default=CACHE / "rows.json", help="file in which finished rows are kept")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    contestants = named(tuple(options.only))
    finished = load_rows(options.rows)
    if options.again:
        for contestant in contestants:
            finished.pop(contestant.name, None)
            delete_probes(probe_file(options.rows, contestant))
    uvloop.run(compare(contestants, finished, options.rows, _print_progress))
    rows = in_order(finished)
    print_table(rows)
    if options.json:
        save_rows(options.json, rows)


def table(rows: Sequence[FrameworkRow]) -> Table:
    """Return the table with one line per contender.

    The columns are the contender, its sessions per core, the required number, the verdict, the median and the 95th
    percentile of the added latency in ms, the share of the core that it used, and the memory per session in MB.
    """
    columns = ("contender", "sessions a core", "required", "verdict", "added p50 ms", "p95 ms", "core", "MB a session")
    lines = Table(*columns)
    for row in rows:
        knee = "not known" if row.sessions is None else str(row.sessions)
        required = str(row.bar) if row.bar else ""
        figures = (_figure(row.p50_ms, ".0f"), _figure(row.p95_ms, ".0f"), _figure(row.cpu, ".0%"))
        lines.add_row(row.title, knee, required, row.verdict, *figures, _figure(row.memory_mb, ".1f"))
    return lines


def print_table(rows: Sequence[FrameworkRow]) -> None:
    """Print the table of the contenders. Then print a line for each competing framework: our knee divided by its knee.

    The knee is the largest number of sessions that passes.
    """
    console = Console()
    console.print(table(rows))
    for ratio in ratios(rows):
        console.print(
            f"{ratio.ours} carries {ratio.ratio:.1f} times the sessions of {ratio.rival}"
            f" (required: {ratio.wanted:g}): {ratio.verdict}"
        )


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
