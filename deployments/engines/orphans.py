"""Processes that must not outlive this one: when it dies, however it dies, a guard ends them.

A replica that is killed outright (kill -9, out of memory) cannot end its engine's processes, and Ray ends only the
replica. vLLM's would stay, with the card's memory, and the replica that replaces it could not start.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import psutil

# A line on the pipe: no longer needed. Its end without one: the process that held the other end is dead.
_SCRIPT = 'read -r line && exit 0; kill -TERM "$@" 2>/dev/null; sleep 5; kill -KILL "$@" 2>/dev/null'


class Guard:
    """Watches over `pids` from a process of its own, until released."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)
        self._process = subprocess.Popen(
            ["sh", "-c", _SCRIPT, "guard", *map(str, self.pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and the end of a process group are not for it.
            start_new_session=True,
        )

    def release(self) -> None:
        """They may live on, or are gone already."""
        if self._process.poll() is None:
            self._process.communicate(b"\n")


def descendants() -> set[int]:
    """The processes that this one has started, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
