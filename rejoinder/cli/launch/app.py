"""`rejoinder launch`: the group of commands that start a cluster from one description, or render what starts it."""

from __future__ import annotations

import typer

from rejoinder.cli.launch import operate, render

app = typer.Typer(
    help="Launch a cluster from one description: see cluster/description/example.yaml.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command()(render.render)
for command in (operate.up, operate.status, operate.drain, operate.down):
    app.command()(command)
