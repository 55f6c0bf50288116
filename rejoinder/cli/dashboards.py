"""`rejoinder dashboards`: Grafana dashboards over the metrics of a running system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cluster.monitoring.alerts import Timing
from cluster.monitoring.dashboards import dashboards as all_dashboards
from cluster.monitoring.dashboards import grafana
from rejoinder.cli.alerts import write_files


def dashboards(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the JSON files.")],
    window: Annotated[
        str, typer.Option(help="Time over which rates are computed, in Prometheus notation. As in `rejoinder alerts`.")
    ] = Timing().window,
) -> None:
    """Write Grafana dashboards: overview, stages of a turn, regions, capacity, reliability, and how callers fare.

    They need the rules of `rejoinder alerts`. Import the files in Grafana, or mount the folder as a dashboard provider.

    Exit status: 0, or 2 after an error.
    """
    timing = Timing(window)
    made = all_dashboards(timing)
    files = {f"{one.name}.json": json.dumps(grafana(one, timing), indent=2) + "\n" for one in made}
    write_files(folder, files)
    typer.echo(f"Wrote {len(files)} dashboards with {sum(len(one.panels) for one in made)} panels to {folder}.")
