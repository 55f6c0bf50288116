"""Download of files from a model hub repository with huggingface_hub."""

from __future__ import annotations

import io
import logging
import shutil
from pathlib import Path
from typing import Any

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import HubSource
from rejoinder.store.progress import Report
from rejoinder.store.verification import FULL_DISK_ERRNOS


class FileNotOnHub(ModelError):
    """A file that the repository does not have at this revision."""


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
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
    except ImportError:
        remedy = "Run `pip install huggingface_hub`."
        raise ModelError("needs the package huggingface_hub.", remedy, str(source)) from None
    # The command line of Rejoinder shows the errors itself.
    hub_logging.set_verbosity(logging.ERROR)
    for name, path in source.files.items():
        report(f"downloading {source.repository}/{path}", 0, 0)
        try:
            downloaded = huggingface_hub.hf_hub_download(
                source.repository,
                path,
                revision=source.revision,
                local_dir=into / "hub",
                endpoint=endpoint,
                tqdm_class=_progress_bar(f"downloading {source.repository}/{path}", report),
            )
        except RemoteEntryNotFoundError as error:
            remedy = "Check the path and the revision in the repository."
            raise FileNotOnHub("cannot be downloaded.", remedy, path, found=_reason(error)) from error
        except LocalEntryNotFoundError as error:
            # huggingface_hub suggests to look at its own cache, which is not used here.
            remedy = "Check the network and HF_ENDPOINT, or use another source."
            raise ModelError(
                "the model hub cannot be reached.", remedy, path, found=_reason(error.__cause__ or error)
            ) from error
        # Every exception is caught: huggingface_hub raises those of its HTTP library, which differs between versions.
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK_ERRNOS:
                raise
            remedy = "Check the network and HF_ENDPOINT; a private repository needs `hf auth login`."
            raise ModelError("cannot be downloaded.", remedy, path, found=_reason(error)) from error
        Path(downloaded).replace(into / name)
    shutil.rmtree(into / "hub", ignore_errors=True)  # the records of huggingface_hub


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _progress_bar(activity: str, report: Report) -> type[Any]:
    """Return a class for huggingface_hub's progress bars that draws nothing and calls `report`."""
    from tqdm import tqdm

    class Reporting(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # an option of huggingface_hub's own class
            super().__init__(*arguments, **options | {"file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            report(activity, int(self.n), int(self.total or 0))
            return drawn

    return Reporting
