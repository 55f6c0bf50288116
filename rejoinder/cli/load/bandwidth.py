"""`rejoinder load bandwidth`: what a session costs on the wire, measured, and the guide's tables held against it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

FAILED = 1


def bandwidth(
    seconds: Annotated[float, typer.Option(min=4, max=120, help="Length of each media stream.")] = 24.0,
    agents: Annotated[int, typer.Option(min=0, max=50, help="Calls to hold at once for the first server row.")] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything; keys: docs/bandwidth.md.")
    ] = None,
) -> None:
    """Bytes and packets per session and direction on a virtual Ethernet pair, against the formula; then the guide's
    bandwidth tables. Needs root and Linux network namespaces. Exit status 1 if a row is beyond 3% of its formula.
    """
    # Only here: the codecs are an extra, and no other command may miss them.
    from loadtest.bandwidth import opus
    from loadtest.bandwidth.rows import TOLERANCE
    from loadtest.bandwidth.run import measure
    from rejoinder.cli.load.bandwidth_tables import document, tables

    console = Console(highlight=False)
    with _cleaning_up():
        report = measure(seconds, agents, lambda text: console.print(text, style="dim"))
    for table in tables(report):
        console.print(table)
        console.print()
    console.print(f"{opus.version()}. Frames that were not IPv4, and not counted: {report.strangers}.")
    if json_file:
        json_file.write_text(json.dumps(document(report), indent=1) + "\n", encoding="utf-8")
    if not report.ok:
        console.print(f"A row is beyond {TOLERANCE:.0%} of its formula.", style="bold red")
        raise typer.Exit(FAILED)


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """Let a SIGTERM unwind the stack, which removes the namespaces and ends the servers."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    typer.run(bandwidth)
