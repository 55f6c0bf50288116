"""`rejoinder doctor`: the checks of cluster.doctor as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.doctor import Grade, examine
from cluster.environment import REQUIRED, advised
from cluster.launch import read_config

COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


def doctor(
    config: Annotated[Path | None, typer.Argument(help="ray_config.yaml; without it, the defaults.")] = None,
    environment: Annotated[bool, typer.Option("--environment", help="Only print what `ray start` needs.")] = False,
) -> None:
    """Check ports, memory, file limits, models and packages; exit status 1 if something must be mended."""
    if environment:
        for name, value in (REQUIRED | advised()).items():
            typer.echo(f"export {name}={value}")
        return
    table = Table("check", "", "found", "fix")
    findings = examine(read_config(config))
    for finding in findings:
        colour = COLOURS[finding.grade]
        table.add_row(finding.check, f"[{colour}]{finding.grade.value}[/]", finding.found, finding.fix)
    Console().print(table)
    if any(finding.grade is Grade.FAIL for finding in findings):
        raise typer.Exit(1)
