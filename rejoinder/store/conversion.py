"""Conversions of a stored model into the form that an engine reads. Each conversion is made once and kept.

A result is stored in `converted/MODEL/FORM-KEY`. KEY is a hash of the source's hashes and of the versions of the
converting packages, so new weights or a new converter give a new folder.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import rejoinder
from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import ConversionForm, Model, ModelFile
from rejoinder.store.progress import Report
from rejoinder.store.verification import sha256_of, write_stamps

Converter = Callable[[ConversionForm, Path, Path], None]
"""Function of (form, source folder, destination folder) that writes the converted model to the destination.

It raises ModelError, or OSError on a full disk.
"""

CONVERTING_PACKAGES = ("ctranslate2", "transformers", "gguf", "torch")
# Version of the module `convert_model`, part of the key of a conversion. Increase it when the module's output changes.
RECIPE = 1
KEY_DIGITS = 16


def conversion_folder(name: str, model: Model, form: ConversionForm) -> str:
    """Return the folder of the model's conversion to `form`, relative to the store: `converted/MODEL/FORM-KEY`.

    Raises:
        ModelError: A package that the conversion needs is not installed.
    """
    try:
        versions = {package: importlib.metadata.version(package) for package in CONVERTING_PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"Run `pip install {error.name}`."
        raise ModelError("conversion needs a missing package.", remedy, name, expected=str(error.name)) from None
    hashes = {file_name: file.sha256 for file_name, file in model.files.items()}
    recipe = json.dumps([RECIPE, form, hashes, versions], sort_keys=True)
    return f"converted/{name}/{form}-{hashlib.sha256(recipe.encode()).hexdigest()[:KEY_DIGITS]}"


def convert_in_subprocess(form: ConversionForm, source: Path, destination: Path) -> None:
    """Run `rejoinder.store.convert_model` in its own process, so that no replica keeps torch in memory.

    The default `Converter` of the model store. Raises ModelError with the last line of the process's error output.
    """
    root = str(Path(rejoinder.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # Without HF_HUB_OFFLINE, the converters look up a local folder on the hub.
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = (sys.executable, "-m", "rejoinder.store.convert_model", form, str(source), str(destination))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        remedy = "Check the versions of transformers, gguf and ctranslate2."
        raise ModelError(f"conversion to {form} failed.", remedy, str(source), found=lines[-1])


def build(form: ConversionForm, source: Path, staging: Path, *, convert: Converter, report: Report) -> Path:
    """Convert the model in the folder `source` into a new folder below `staging`, and return that folder.

    The result has a stamp (see `verification`), so that later changes of its files are noticed.

    Args:
        form: The form to convert to.
        source: Folder of the verified model files.
        staging: Folder for work in progress.
        convert: Converts the files.
        report: Called with the progress: the activity in words, the bytes done and the total bytes (0 if unknown).
    """
    report(f"converting to {form}", 0, 0)
    result = staging / form
    convert(form, source, result)
    paths = sorted(path for path in result.iterdir() if path.is_file())
    write_stamps(
        result,
        {path.name: ModelFile(size_bytes=path.stat().st_size, sha256=sha256_of(path, report)) for path in paths},
    )
    return result
