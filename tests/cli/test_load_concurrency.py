"""Tests of the tables of `rejoinder load concurrency`, and of options that it refuses."""

from __future__ import annotations

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loadtest.capacity.concurrency import Cell, CellStatus
from rejoinder.cli.load.concurrency import table
from rejoinder.cli.main import app
from rejoinder.core.errors import ConfigError


def test_a_table_shows_every_cell_with_its_status() -> None:
    """For each cell of a table of the latency guide, the result, its status and its source are printed.

    The status is, for example, "measured" or "does not hold". If the guide's value is not enough, the
    configuration that would be enough is printed too.
    """
    cells = [
        Cell(
            "4.3",
            row="TTS",
            column="minimum",
            guide="2 GB",
            found="enough: 130 MB, 15x",
            status=CellStatus.MEASURED,
            source="a process of its own",
        ),
        Cell(
            "4.3",
            row="LLM",
            column="minimum",
            guide="80 GB",
            found="too little",
            status=CellStatus.FAILS,
            source="arithmetic",
            would="INT4 weights",
        ),
    ]
    console = Console(width=200, record=True)
    console.print(table(cells))
    printed = console.export_text()
    for text in ("Guide 4.3", "enough: 130 MB, 15x", "measured", "does not hold", "INT4 weights", "arithmetic"):
        assert text in printed


@pytest.mark.parametrize("rows", ["ten", "", "10,-1"])
def test_rows_are_numbers(rows: str) -> None:
    """Numbers of sessions (--rows) that are not positive integers are refused before anything is measured."""
    result = CliRunner().invoke(app, ["load", "concurrency", "--rows", rows])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.field == "--rows"
