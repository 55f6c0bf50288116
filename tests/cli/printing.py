"""Helper that reads printed tables in tests."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table


def printed_rows(table: Table) -> list[list[str]]:
    """Return the cells of each row of a table, without the heading, as they are printed on a wide terminal."""
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(table)
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in capture.get().splitlines() if "│" in line]
