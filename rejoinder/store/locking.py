"""One worker per model and store, across processes and machines that share the folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rejoinder.store.progress import Report


@contextmanager
def exclusive(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever has it; the kernel frees the lock of a process that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that works on this model", 0, 0)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
