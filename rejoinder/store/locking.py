"""File locks: one process at a time changes a model, on all machines that share the store."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rejoinder.store.progress import Report


@contextmanager
def exclusive(path: Path, report: Report) -> Iterator[None]:
    """Lock the file `path` while the context is open. First wait until no other process holds the lock.

    The operating system releases the lock of a process that dies. `report` is called once, with a text and two zeros,
    if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that works on this model", 0, 0)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
