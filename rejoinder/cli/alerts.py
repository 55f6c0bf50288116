"""`rejoinder alerts`: Prometheus rules from the latency guide's thresholds, and a Prometheus configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cluster.monitoring.alerts import Timing, as_yaml, configuration, rules
from rejoinder.core.errors import ConfigError

RULES, CONFIGURATION = "rules.yml", "prometheus.yml"


def alerts(
    folder: Annotated[
        Path | None, typer.Argument(help=f"Folder for {RULES} and {CONFIGURATION}. Without it the rules are printed.")
    ] = None,
    url: Annotated[
        str, typer.Option(help="HTTP address of the running server, from which Prometheus gets its targets.")
    ] = "http://127.0.0.1:8000",
    window: Annotated[
        str, typer.Option(help="Time over which percentiles are computed, in Prometheus notation.")
    ] = Timing().window,
    hold: Annotated[
        str, typer.Option("--for", help="Time for which a threshold must be exceeded before an alert fires.")
    ] = Timing().hold,
    *,
    key_file: Annotated[
        str,
        typer.Option(help="File on Prometheus's machine with an API key of the scope metrics, if the hosts have keys."),
    ] = "",
    ca: Annotated[
        str,
        typer.Option(help="File on Prometheus's machine with the certificate authority of an https URL."),
    ] = "",
    alertmanager: Annotated[
        str, typer.Option(help="Address of the Alertmanager that gets the alerts, as HOST:PORT. Without it none does.")
    ] = "",
    interval: Annotated[
        str, typer.Option(help="Time between two scrapes, and between two evaluations.")
    ] = Timing().interval,
) -> None:
    """Write Prometheus recording and alert rules for the thresholds of the latency guide's table 7.1.

    With a folder, also write a Prometheus configuration that scrapes every replica.

    Exit status: 0, or 2 after an error.
    """
    timing = Timing(window, hold, interval)
    text = as_yaml(rules(timing), "Written by `rejoinder alerts` from the latency guide, section 7.1.")
    if folder is None:
        typer.echo(text, nl=False)
        return
    document = configuration(url, RULES, timing, key_file=key_file, ca_file=ca, alertmanager=alertmanager)
    write_files(folder, {RULES: text, CONFIGURATION: as_yaml(document)})
    typer.echo(f"Wrote {folder / RULES} and {folder / CONFIGURATION}. Start: prometheus --config.file={CONFIGURATION}")


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, by name with their text, to a folder. Make the folder if it is missing.

    Raises:
        ConfigError: The folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error}).", "Name another folder.", field="folder") from None
