"""`rejoinder doctor`: the checks of `cluster.doctor` as a table."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.config_file import read_config
from cluster.doctor.examine import examine
from cluster.doctor.finding import Finding, Grade
from cluster.environment import REQUIRED, advised

COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="The ray_config.yaml to check. Without it the default settings are checked.")
    ] = None,
    address: Annotated[
        str,
        typer.Option(help="Ray cluster whose nodes are checked: auto, or HOST:PORT. Default: this machine."),
    ] = "",
    environment: Annotated[
        bool, typer.Option("--environment", help="Only print the environment that `ray start` needs.")
    ] = False,
) -> None:
    """Check ports, memory, disk, file limits, models, packages, servers and GPUs, and print a fix for each problem.

    Exit status: 0 if no check fails (warnings are allowed), 1 if one fails, 2 after an error.
    """
    if environment:
        for name, value in (REQUIRED | advised()).items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        return
    findings = examine(read_config(config), address)
    Console().print(table(findings))
    if any(finding.grade is Grade.FAIL for finding in findings):
        raise typer.Exit(1)


def table(findings: list[Finding]) -> Table:
    """Return a table with one row for each finding: the check, its grade, what was found, and the fix.

    Square brackets in these texts are printed and not interpreted as rich markup.
    """
    rows = Table("check", "", "found", "fix")
    for finding in findings:
        grade = Text(finding.grade.value, style=COLOURS[finding.grade])
        rows.add_row(finding.check, grade, Text(finding.found), Text(finding.fix))
    return rows
