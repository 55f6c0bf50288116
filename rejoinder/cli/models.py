"""`rejoinder models`: list, fetch and verify model files."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import rich.progress
import typer
from rich.console import Console
from rich.table import Table

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import ModelStore, open_store

app = typer.Typer(help="List, fetch and verify model files.", no_args_is_help=True, rich_markup_mode="markdown")

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="Names of models. Default: all models.")]
Directory = Annotated[str, typer.Option(help="Folder of the model store. Default: ~/.cache/rejoinder/models.")]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="DIR", help="Folder with MODEL/FILE, tried before the manifest's sources."),
]
Form = Annotated[
    str, typer.Option(help="The only form to convert to, for example hf for vLLM. Default: the manifest's forms.")
]


class Bars:
    """`PullProgress` that draws a progress bar for each model on a terminal, and prints a line for each outcome."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.fields[model]}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.DownloadColumn(),
            rich.progress.TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None:
        """Show how many bytes of an activity (a download, a check) are done. `total_bytes` is 0 if it is unknown."""
        if model not in self._tasks:
            self._tasks[model] = self._bars.add_task("", model=model, total=None)
        self._bars.update(self._tasks[model], description=activity, completed=done_bytes, total=total_bytes or None)

    def finish(self, model: str, outcome: str) -> None:
        """Replace the model's bar by a line with the outcome."""
        if model in self._tasks:
            self._bars.remove_task(self._tasks.pop(model))
        self._console.print(f"{model}: {outcome}", highlight=False, soft_wrap=True)


@app.command("list")
def list_models(directory: Directory = "") -> None:
    """Print every model with its role, size, licence and status: absent, unverified or ready.

    Exit status: 0, or 2 after an error.
    """
    store = _open(directory)
    table = Table("model", "role", "size", "licence", "status", box=None)
    for name, model in store.manifest.models.items():
        table.add_row(name, model.role, f"{model.size_bytes / 1e6:.1f} MB", model.licence, store.status(name).value)
    console = Console()
    console.print(table)
    console.print(f"in {store.directory}", highlight=False, soft_wrap=True)


@app.command()
def pull(names: Names = None, directory: Directory = "", local: From = None, form: Form = "") -> None:
    """Download, verify and convert missing models. A complete store needs no network.

    Exit status: 0 if all models are complete, 2 after an error.
    """
    with Bars(Console()) as bars:
        _open(directory).pull(names or (), bars, local, form)


@app.command()
def verify(names: Names = None, directory: Directory = "") -> None:
    """Verify the SHA-256 of every file.

    Exit status: 0 if all files are complete and undamaged, 2 if one is missing or damaged.
    """
    store = _open(directory)
    with Bars(Console()) as bars:
        results = store.verify(names or (), bars)
        for name, error in results.items():
            bars.finish(name, "verified" if error is None else str(error))
    if any(results.values()):
        raise typer.Exit(2)


def _open(directory: str) -> ModelStore:
    return open_store(ModelStoreSettings(directory=directory))
