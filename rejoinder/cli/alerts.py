"""`rejoinder alerts`: Prometheus rules from the guide's thresholds, and a configuration that scrapes every replica."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.alerts import Timing, as_yaml, configuration, omissions, rules

RULES, CONFIGURATION = "rules.yml", "prometheus.yml"


def alerts(
    folder: Annotated[
        Path | None, typer.Argument(help=f"Write {RULES} and {CONFIGURATION} here; without it, print the rules.")
    ] = None,
    url: Annotated[str, typer.Option(help="The running system's HTTP address.")] = "http://127.0.0.1:8000",
    window: Annotated[str, typer.Option(help="Percentiles are over so long.")] = Timing().window,
    hold: Annotated[str, typer.Option("--for", help="A threshold must be exceeded for so long.")] = Timing().hold,
    *,
    interval: Annotated[str, typer.Option(help="Scrape and evaluate so often.")] = Timing().interval,
) -> None:
    """Prometheus recording and alert rules for the latency guide's table 7.1."""
    timing = Timing(window, hold, interval)
    text = as_yaml(rules(timing), f"Written by `rejoinder alerts` from the latency guide, section 7.1.\n{omissions()}")
    if folder is None:
        typer.echo(text, nl=False)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RULES).write_text(text, encoding="utf-8")
    (folder / CONFIGURATION).write_text(as_yaml(configuration(url, RULES, timing)), encoding="utf-8")
    typer.echo(f"Wrote {folder / RULES} and {folder / CONFIGURATION}. Start: prometheus --config.file={CONFIGURATION}")
