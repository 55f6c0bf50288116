"""Processes that must not outlive this one: when it dies, however it dies, a guard ends them.

A replica that is killed outright (kill -9, out of memory) cannot end its engine's processes, and Ray ends only the
replica. vLLM's would stay, with the card's memory, and the replica that replaces it could not start.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

# Reads process ids. The pipe's end without a word before it: the process that held the other end is dead.
_SCRIPT = """
pids=
while read -r line; do
  [ "$line" = released ] && exit 0
  pids="$pids $line"
done
kill -TERM $pids 2>/dev/null
sleep 5
kill -KILL $pids 2>/dev/null
"""
# Between two looks for what was started: a process younger than that may be missed.
LOOK_S = 0.5


class ProcessGuard:
    """Watches over processes from one of its own, until released."""

    def __init__(self) -> None:
        self.pids: frozenset[int] = frozenset()
        self._process = subprocess.Popen(
            ["sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and the end of a process group are not for it.
            start_new_session=True,
            text=True,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What this process starts inside the block, and what that starts, is watched over."""
        before, over = descendants(), threading.Event()

        def look() -> None:
            while not over.wait(LOOK_S):
                self._include(descendants() - before)

        thread = threading.Thread(target=look, name="guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._include(descendants() - before)

    def release(self) -> None:
        """They may live on, or are gone already."""
        if self._process.poll() is None:
            self._process.communicate("released\n")

    def _include(self, pids: set[int]) -> None:
        new, self.pids = pids - self.pids, self.pids | pids
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed the guard: the engine runs unguarded
            self._process.stdin.write("".join(f"{pid}\n" for pid in sorted(new)))
            self._process.stdin.flush()


def descendants() -> set[int]:
    """The processes that this one has started, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
