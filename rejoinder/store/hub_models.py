"""Models that a reference names on a model hub (`owner/repo/file.gguf`). They are not in the manifest.

    DIRECTORY/hub/owner/repo@revision/PATH/   the files of one reference, and the stamp of their hashes

Nobody states the hashes of these files, so the hashes of the download are recorded. A later change is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rejoinder.core.errors import ModelError
from rejoinder.core.settings.model_reference import ModelReference
from rejoinder.store.hub import FileNotOnHub
from rejoinder.store.manifest import HubSource, LocalSource, ModelFile
from rejoinder.store.progress import Report
from rejoinder.store.sources import Fetcher
from rejoinder.store.verification import is_stamped, recorded_files, sha256_of, verify, write_stamps

# Files of a faster-whisper folder. A model has its vocabulary in one of two formats.
_WHISPER_FILES = ("config.json", "tokenizer.json", "model.bin")
_WHISPER_OPTIONAL = ("vocabulary.json", "vocabulary.txt", "preprocessor_config.json")
# Matches the number of a part and of all parts in the name of a GGUF file that is split.
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")


@dataclass(frozen=True)
class HubModels:
    """The models of a store that come from references to a model hub.

    Attributes:
        directory: Folder of the store.
        fetcher: Reads one source.
    """

    directory: Path
    fetcher: Fetcher

    def folder(self, reference: ModelReference) -> Path:
        """Return the folder of a reference's files, whether it exists or not."""
        return self.directory / "hub" / f"{reference.repository}@{reference.revision}" / reference.path

    def is_complete(self, reference: ModelReference) -> bool:
        """Return True if the files were downloaded, and have not changed since."""
        folder = self.folder(reference)
        files = recorded_files(folder)
        return bool(files) and is_stamped(folder, files)

    def verified(self, reference: ModelReference, report: Report, *, always: bool = False) -> Path:
        """Return the folder of the files; hash them if they may have changed.

        Args:
            reference: The model.
            report: Receives the progress.
            always: Hash the files even if they have not changed.

        Raises:
            ModelError: The model was not pulled, or a file is damaged.
        """
        folder = self.folder(reference)
        files = recorded_files(folder)
        remedy = f"Run `rejoinder models pull {reference.text}`."
        if not files:
            raise ModelError("is not in the store.", remedy, reference.text, expected=str(folder), found="nothing")
        if always or not is_stamped(folder, files):
            try:
                verify(folder, files, reference.text, report)
            except ModelError as error:
                error.remedy = remedy
                raise
            write_stamps(folder, files)
        return folder

    def fetch(self, reference: ModelReference, staging: Path, local: Path | None, report: Report) -> str:
        """Download the files and move them into their folder. Return "fetched from" and the source.

        Args:
            reference: The model.
            staging: Folder for the download.
            local: Folder that may contain the files below REFERENCE; it is tried first.
            report: Receives the progress.

        Raises:
            ModelError: A file is not on the hub, or cannot be downloaded.
        """
        paths, optional = _paths(reference)
        from_local = local / reference.text if local else None
        source: LocalSource | HubSource
        if from_local and from_local.is_dir():
            source = LocalSource(kind="local", directory=str(from_local))
            names = [path.name for path in (*paths, *optional) if (from_local / path.name).is_file()]
            self.fetcher.fetch(source, names, staging, report)
        else:
            source = _source(reference, paths)
            self.fetcher.fetch(source, list(source.files), staging, report)
            for path in optional:
                self._fetch_if_present(_source(reference, [path]), staging, report)
        place = self.folder(reference)
        place.mkdir(parents=True, exist_ok=True)
        downloaded = sorted(file for file in staging.iterdir() if file.is_file())
        files = {p.name: ModelFile(size_bytes=p.stat().st_size, sha256=sha256_of(p, report)) for p in downloaded}
        for file in downloaded:
            file.replace(place / file.name)
        write_stamps(place, files)
        return f"fetched from {source}"

    def _fetch_if_present(self, source: HubSource, staging: Path, report: Report) -> None:
        try:
            self.fetcher.fetch(source, list(source.files), staging, report)
        except FileNotOnHub:
            return  # the engine reports the models that cannot do without it


def _source(reference: ModelReference, paths: Sequence[PurePosixPath]) -> HubSource:
    files = {path.name: str(path) for path in paths}
    return HubSource(kind="hub", repository=reference.repository, revision=reference.revision, files=files)


def _paths(reference: ModelReference) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Return the paths of the files that a model needs in its repository, and of those that it may have."""
    path = PurePosixPath(reference.path)
    if reference.role == "tts":
        return [path, path.with_name(f"{path.name}.json")], []
    if reference.role == "llm":
        found = _PART.search(path.name)
        count = int(found[2]) if found else 1
        names = [_PART.sub(f"-{part:05}-of-{count:05}", path.name) for part in range(1, count + 1)]
        return [path.with_name(name) for name in names], []
    folder = path.parent if path.name == "model.bin" else path
    return [folder / name for name in _WHISPER_FILES], [folder / name for name in _WHISPER_OPTIONAL]
