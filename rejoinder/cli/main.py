"""The command `rejoinder`: its subcommands, and the reporting of their errors."""

from __future__ import annotations

import typer

from rejoinder.cli import alerts, chat, dashboards, demo, doctor, models, serve, talk, top
from rejoinder.cli.bench import app as bench
from rejoinder.cli.launch.app import app as launch
from rejoinder.cli.load import app as load
from rejoinder.cli.phone import command as phone
from rejoinder.cli.plan import command as plan
from rejoinder.core.errors import RejoinderError

FAILED = 2
"""Exit status after a typed error, and of click after a wrong option."""

app = typer.Typer(name="rejoinder", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(load.app, name="load")
app.add_typer(launch, name="launch")
app.command()(serve.serve)
app.command()(alerts.alerts)
app.command()(dashboards.dashboards)
app.command()(top.top)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(talk.talk)
app.command()(chat.chat)
app.command()(plan.plan)
app.command()(phone.phone)


@app.callback()
def root() -> None:
    """Self-hosted serving of real-time voice conversations on Ray Serve.

    Every command exits with status 2 after an error, and prints what is wrong and what to do about it.
    """


def run() -> None:
    """Run the command line. Print a RejoinderError as one line with its remedy, and exit with status 2."""
    try:
        app()
    except RejoinderError as error:
        typer.secho(" ".join(str(error).split()), fg=typer.colors.RED, err=True)
        raise SystemExit(FAILED) from None
