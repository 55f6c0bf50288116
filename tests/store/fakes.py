"""Parts for tests of the model store: small models and wheels, fetchers without a network, a recorder of progress."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import ConversionForm, LocalSource, Manifest, Model, ModelFile, Source
from rejoinder.store.model_store import ModelStore
from rejoinder.store.progress import Report
from rejoinder.store.sources import Fetcher

CONTENT = b"weights " * 1000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_of(content: bytes) -> ModelFile:
    return ModelFile(size_bytes=len(content), sha256=sha256(content))


def model(
    files: dict[str, bytes], sources: list[Source] | None = None, prepare: tuple[ConversionForm, ...] = ()
) -> Model:
    """Return a manifest entry for a language model with these `files` (content by name).

    Args:
        files: Content by file name. The entry has its size and hash.
        sources: Where a pull finds the files, by default a folder that does not exist.
        prepare: The converted forms that a pull also makes.
    """
    return Model(
        role="llm",
        licence="MIT",
        files={name: file_of(content) for name, content in files.items()},
        sources=sources or [LocalSource(kind="local", directory="/nowhere")],
        prepare=prepare,
    )


def store(directory: Path, models: dict[str, Model], fetcher: Fetcher) -> ModelStore:
    return ModelStore(directory, Manifest(models=models), fetcher)


def write_wheel(folder: Path, package: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    """Write a minimal valid wheel of `package` with `members` (content by path in the wheel), and return its path."""
    module = package.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    metadata = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{metadata}/RECORD", "")
    return path


class GivesFiles:
    """Fetcher that writes `files` instead of reading the source, then raises `failure` if it is not None."""

    def __init__(self, files: dict[str, bytes], failure: BaseException | None = None) -> None:
        self.files = files
        self.failure = failure

    def fetch(self, source: Source, files: Collection[str], into: Path, report: Report) -> None:
        for name, content in self.files.items():
            (into / name).write_bytes(content)
        if self.failure is not None:
            raise self.failure


class NoNetwork:
    """Fetcher that fails the test if it is called."""

    def fetch(self, source: Source, files: Collection[str], into: Path, report: Report) -> None:
        raise AssertionError(f"fetched from {source}")


class Recorder:
    """Receiver of a pull's progress: records the outcome of each model, and every activity.

    `on_update` is called with each activity.
    """

    def __init__(self, on_update: Callable[[str], None] = lambda activity: None) -> None:
        self.outcomes: dict[str, str] = {}
        self.activities: list[str] = []
        self._on_update = on_update

    def update(self, model: str, activity: str, done_bytes: int, total_bytes: int) -> None:
        self.activities.append(activity)
        self._on_update(activity)

    def finish(self, model: str, outcome: str) -> None:
        self.outcomes[model] = outcome


def all_files(folder: Path) -> list[str]:
    """Return the relative paths of all files below `folder`, except lock files, in order."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if path.parts[0] != ".locks")


def ignore(activity: str, done_bytes: int, total_bytes: int) -> None:
    """Do nothing; a `Report` function for tests that do not check the progress."""


def facts(error: ModelError) -> tuple[str, str, str]:
    return error.file, error.expected, error.found
