"""The comparison as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.frameworks.comparison import Row, ratios


def table(rows: Sequence[Row]) -> Table:
    """One line a contender."""
    shown = Table("contender", "sessions a core", "bar", "verdict", "added p50", "p95 ms", "core", "MB a session")
    for row in rows:
        knee = "not known" if row.sessions is None else str(row.sessions)
        bar = str(row.bar) if row.bar else ""
        figures = (_figure(row.p50_ms, ".0f"), _figure(row.p95_ms, ".0f"), _figure(row.cpu, ".0%"))
        shown.add_row(row.title, knee, bar, row.verdict, *figures, _figure(row.memory_mb, ".1f"))
    return shown


def print_table(rows: Sequence[Row]) -> None:
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
