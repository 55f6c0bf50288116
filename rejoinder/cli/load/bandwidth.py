"""`rejoinder load bandwidth`: measured bandwidth of a session, compared with the latency guide's tables."""

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

from rejoinder.cli.extras import need_load_extra

FAILED = 1


def bandwidth(
    seconds: Annotated[float, typer.Option(min=4, max=120, help="Length of each media stream in seconds.")] = 24.0,
    agents: Annotated[
        int, typer.Option(min=0, max=50, help="Concurrent calls for the first row of the server table.")
    ] = 10,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for all results; keys: docs/results/bandwidth.md."),
    ] = None,
) -> None:
    """Measure bytes and packets of a session in each direction, and check the latency guide's bandwidth tables.

    The traffic crosses a virtual Ethernet pair and is compared with a formula. It needs root and Linux network
    namespaces.

    Exit status: 0 if every row is within 3% of its formula, 1 if not, 2 after an error.
    """
    need_load_extra()
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
    console.print(f"{opus.version()}. Frames that are not IPv4 and were not counted: {report.strangers}.")
    if json_file:
        json_file.write_text(json.dumps(document(report), indent=1) + "\n", encoding="utf-8")
    if not report.ok:
        console.print(f"A row differs from its formula by more than {TOLERANCE:.0%}.", style="bold red")
        raise typer.Exit(FAILED)


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """Turn SIGTERM into an exception while the context is open, so that `finally` blocks run.

    They remove the network namespaces and stop the servers.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    typer.run(bandwidth)
