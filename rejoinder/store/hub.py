"""Download of files from a model hub repository with huggingface_hub."""

from __future__ import annotations

import logging
from pathlib import Path

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import HubSource
from rejoinder.store.progress import Report
from rejoinder.store.verification import FULL_DISK_ERRNOS


def fetch_hub(source: HubSource, into: Path, endpoint: str | None, report: Report) -> None:
    """Download the source's files from the model hub into the folder `into`, under their names in the store.

    Args:
        source: The repository, its revision and the files.
        into: Folder for the files.
        endpoint: Address of the hub; None: HF_ENDPOINT, or the public hub.
        report: Called with the progress: the activity in words, the bytes done and the total bytes (0 if unknown).

    Raises:
        ModelError: A file cannot be downloaded, or huggingface_hub is not installed.
        OSError: The disk is full.
    """
    try:
        import huggingface_hub
        import huggingface_hub.utils.logging as hub_logging
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    except ImportError:
        remedy = "Run `pip install huggingface_hub`."
        raise ModelError("needs the package huggingface_hub.", remedy, str(source)) from None
    # The command line of Rejoinder shows the progress and the errors itself.
    disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    for name, path in source.files.items():
        report(f"downloading {source.repository}/{path}", 0, 0)
        try:
            downloaded = huggingface_hub.hf_hub_download(
                source.repository, path, revision=source.revision, local_dir=into / "hub", endpoint=endpoint
            )
        # Every exception is caught: huggingface_hub raises those of its HTTP library, which differs between versions.
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK_ERRNOS:
                raise
            remedy = "Check the network and HF_ENDPOINT; a private repository needs `hf auth login`."
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ModelError("cannot be downloaded.", remedy, path, found=found) from error
        Path(downloaded).replace(into / name)
