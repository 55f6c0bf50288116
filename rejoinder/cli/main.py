"""The one command line, `rejoinder`: its commands, and where their errors end."""

from __future__ import annotations

import typer

from rejoinder.cli import alerts, demo, doctor, models, serve, talk
from rejoinder.cli.bench import app as bench
from rejoinder.cli.load import app as load
from rejoinder.cli.plan import command as plan
from rejoinder.core.errors import RejoinderError

FAILED = 2

app = typer.Typer(name="rejoinder", help=__doc__, no_args_is_help=True, add_completion=False)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(load.app, name="load")
app.command()(serve.serve)
app.command()(alerts.alerts)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(talk.talk)
app.command()(plan.plan)


@app.callback()
def root() -> None:
    """Self-hosted serving of real-time voice conversations on Ray Serve."""


def run() -> None:
    """Entry point: a typed error becomes one line that says what was wrong and what to do, and exit status 2."""
    try:
        app()
    except RejoinderError as error:
        typer.secho(" ".join(str(error).split()), fg=typer.colors.RED, err=True)
        raise SystemExit(FAILED) from None
