"""`rejoinder top`: a live view of a running system in the terminal, without Prometheus and Grafana."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.monitoring.live_view import SystemFrame, frame
from cluster.monitoring.readings import SystemReading, read_system
from rejoinder.cli.trust import trust
from rejoinder.core.errors import BackendError

API_KEY = "REJOINDER_API_KEY"


def top(
    url: Annotated[str, typer.Option(help="HTTP address of the running server.")] = "http://127.0.0.1:8000",
    every: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="Time between two readings.")] = 2.0,
    window: Annotated[
        float, typer.Option(min=1.0, metavar="SECONDS", help="Time over which percentiles and events are counted.")
    ] = 60.0,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print one view, of the time --every, and exit. For scripts.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file with the only certificate authority to trust.")
    ] = None,
) -> None:
    """Show a running system: calls and places, percentiles of turns by stage, replicas, refusals, hedges and errors.

    It reads the metrics of every replica, so this machine must reach the nodes' own addresses. If the hosts have
    keys, put one of the scope `metrics` into the environment variable REJOINDER_API_KEY. Ctrl-C ends it.

    Exit status: 0, or 2 if nothing answers.
    """
    trust(ca)
    console = Console(highlight=False)
    try:
        asyncio.run(_once(console, url, every) if once else _follow(console, url, every, window))
    except KeyboardInterrupt:
        return


async def _once(console: Console, url: str, every_s: float) -> None:
    before = await read_system(url, os.environ.get(API_KEY, ""))
    await asyncio.sleep(every_s)
    console.print(view(frame(before, await read_system(url, os.environ.get(API_KEY, ""))), url))


async def _follow(console: Console, url: str, every_s: float, window_s: float) -> None:
    """Draw the newest state until cancelled. Errors are shown after the first reading, and the view goes on."""
    readings: deque[SystemReading] = deque([await read_system(url, os.environ.get(API_KEY, ""))])
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            fault = ""
            await asyncio.sleep(every_s)
            try:
                readings.append(await read_system(url, os.environ.get(API_KEY, "")))
            except BackendError as error:
                fault = str(error)
            while len(readings) > 2 and readings[-1].at_s - readings[1].at_s >= window_s:
                readings.popleft()
            live.update(view(frame(readings[0], readings[-1]), url, fault), refresh=True)


def view(shown: SystemFrame, url: str, fault: str = "") -> RenderableType:
    """Return the view of a system's state. `fault` says why the state is old; "" if it is not."""
    lines = [Text(f"{url}   last {shown.seconds:.0f} s", style="bold"), _summary(shown)]
    if fault:
        lines.append(Text(fault, style="bold red"))
    if shown.silent:
        lines.append(Text(f"{len(shown.silent)} replicas do not answer: {', '.join(shown.silent[:3])}", style="red"))
    return Group(*lines, Text(), _times(shown), Text(), _stages(shown), Text(), _events(shown.events))


def _summary(shown: SystemFrame) -> Text:
    served = "" if shown.served is None else f", by stages {shown.served} ({shown.limit})"
    return Text(
        f"calls {shown.calls}, turns/s {shown.turns_per_s:.2f}   places {shown.places}, free {shown.free}{served}",
        style="red" if shown.places and not shown.free else "",
    )


def _times(shown: SystemFrame) -> Table:
    table = _table("ms", "count", "added, mean", "p50", "p95", "p99")
    for row in shown.times:
        cells = (f"{row.count}", _number(row.added_ms), _number(row.p50_ms), _number(row.p95_ms), _number(row.p99_ms))
        table.add_row(row.name, *cells, style="bold red" if row.alert else "")
    return table


def _stages(shown: SystemFrame) -> Table:
    """Return the table of the stages' replicas: how many run and are wanted, the requests inside them, slots in use.

    "wait" and "serve" are the 95th percentiles of the time before and during service, in milliseconds.
    """
    headings = ("runs", "wanted", "inside", "used", "req/s", "failed", "wait", "serve", "cores", "MB")
    table = _table("stage", *headings)
    for row in shown.stages:
        wanted = "-" if row.wanted is None else f"{row.wanted}"
        used = "-" if row.utilisation is None else f"{row.utilisation:.0%}"
        cells = (f"{row.requests_per_s:.1f}", f"{row.failed}", _number(row.queue_p95_ms), _number(row.service_p95_ms))
        lacking = row.wanted is not None and row.running < row.wanted
        figures = (f"{row.running}", wanted, f"{row.in_flight}", used, *cells)
        table.add_row(row.stage, *figures, f"{row.cores:.2f}", f"{row.memory_mb:.0f}", style="red" if lacking else "")
    return table


def _events(events: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("events", "count", box=None, padding=(0, 2, 0, 0))
    for title, counts in events.items():
        listed = ", ".join(f"{value} {count}" for value, count in counts.items())
        table.add_row(title, listed or "none", style="" if counts else "dim")
    return table


def _table(first: str, *headings: str) -> Table:
    table = Table(first, box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
