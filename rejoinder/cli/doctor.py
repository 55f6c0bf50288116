"""`rejoinder doctor`: the checks of cluster.doctor as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.doctor import examine
from cluster.environment import REQUIRED, advised
from cluster.finding import Finding, Grade
from cluster.launch import read_config

COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


def doctor(
    config: Annotated[Path | None, typer.Argument(help="ray_config.yaml; without it, the defaults.")] = None,
    address: Annotated[
        str, typer.Option(help="auto or HOST:PORT: count the GPUs of that Ray cluster instead of this machine's.")
    ] = "",
    environment: Annotated[bool, typer.Option("--environment", help="Only print what `ray start` needs.")] = False,
) -> None:
    """Check ports, memory, file limits, models and packages; exit status 1 if something must be mended."""
    if environment:
        for name, value in (REQUIRED | advised()).items():
            typer.echo(f"export {name}={value}")
        return
    findings = examine(read_config(config), address)
    Console().print(table(findings))
    if any(finding.grade is Grade.FAIL for finding in findings):
        raise typer.Exit(1)


def table(findings: list[Finding]) -> Table:
    """One row a finding; what was found is shown as it is, brackets included."""
    shown = Table("check", "", "found", "fix")
    for finding in findings:
        grade = Text(finding.grade.value, style=COLOURS[finding.grade])
        shown.add_row(finding.check, grade, Text(finding.found), Text(finding.fix))
    return shown
