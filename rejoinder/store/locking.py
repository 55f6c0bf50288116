"""File locks: one process at a time changes a model, on all machines that share the store."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rejoinder.store.progress import Report


@contextmanager
def exclusive(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process has it. The kernel releases the lock of a dead process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that works on this model", 0, 0)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
