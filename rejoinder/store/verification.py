"""Verification of a folder's files: a full SHA-256 once, a cheap comparison afterwards.

The stamp (`.verified.json` in the folder) records the hash, size and modification time of each file when its hash was
checked. A file with the same size and time counts as unchanged. Any other file is hashed again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import ModelFile
from rejoinder.store.progress import Report

STAMP_FILE = ".verified.json"
CHUNK_BYTES = 1 << 20
FULL_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


def sha256_of(path: Path, report: Report) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    After each chunk, `report` is called with the activity in words, the bytes done and the total bytes.
    """
    digest = hashlib.sha256()
    done, total = 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            report(f"verifying {path.name}", done, total)
    return digest.hexdigest()


def is_stamped(folder: Path, files: Mapping[str, ModelFile]) -> bool:
    """Return True if every file has the size and modification time that it had when its hash was last verified."""
    stamps = _read_stamps(folder)
    try:
        return all(stamps.get(name) == _stamp(folder / name, file.sha256) for name, file in files.items())
    except OSError:
        return False


def verify(folder: Path, files: Mapping[str, ModelFile], label: str, report: Report) -> None:
    """Check the size and the SHA-256 of every file in a folder.

    Args:
        folder: Folder of the files.
        files: The expected size and hash of each file, by name.
        label: Beginning of the file's name in errors, for example the model's name.
        report: Called with the progress: the activity in words, the bytes done and the total bytes.

    Raises:
        ModelError: A file is missing or differs. The error names the first such file.
    """
    for name, file in files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(
                "is missing.", file=f"{label}/{name}", expected=f"{file.size_bytes} bytes", found="no file"
            )
        size_bytes = path.stat().st_size
        if size_bytes != file.size_bytes:
            expected, found = f"{file.size_bytes} bytes", f"{size_bytes} bytes"
            raise ModelError("has the wrong size.", file=f"{label}/{name}", expected=expected, found=found)
        sha256 = sha256_of(path, report)
        if sha256 != file.sha256:
            expected, found = f"SHA-256 {file.sha256}", f"SHA-256 {sha256}"
            raise ModelError("has the wrong content.", file=f"{label}/{name}", expected=expected, found=found)


def write_stamps(folder: Path, files: Mapping[str, ModelFile]) -> None:
    """Write the stamp of `folder`, which records that these files were just verified.

    Raises:
        OSError: The folder cannot be written.
    """
    stamps = {name: _stamp(folder / name, file.sha256) for name, file in files.items()}
    temporary = folder / f"{STAMP_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(stamps, indent=1), encoding="utf-8")
    temporary.replace(folder / STAMP_FILE)


def recorded_files(folder: Path) -> dict[str, ModelFile]:
    """Return the files that the folder's stamp lists, by name. Empty without a stamp.

    This is for conversions, whose files are not in the manifest.
    """
    return {
        name: ModelFile(size_bytes=int(stamp["size_bytes"]), sha256=str(stamp["sha256"]))
        for name, stamp in _read_stamps(folder).items()
    }


def _stamp(path: Path, sha256: str) -> dict[str, int | str]:
    status = path.stat()
    return {"sha256": sha256, "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_stamps(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return the entry of each file in the folder's stamp, by name: sha256, size_bytes and mtime_ns.

    If the stamp is absent or unreadable, the result is empty, and the files are hashed again.
    """
    try:
        stamps = json.loads((folder / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
