"""End child processes when this process dies, even if it is killed.

A replica that is killed (kill -9, out of memory) cannot end its engine's processes, and Ray ends only the replica.
vLLM's processes would keep the card's memory, and the replacement replica could not start.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

# Shell script of the guard. It reads process ids from its standard input. If the input ends without "released", the
# parent process is dead, and the script ends the processes: SIGTERM, 5 s later SIGKILL.
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
# Seconds between two searches for new processes. A process that starts within this time before the parent dies may be
# missed.
SEARCH_S = 0.5


class ProcessGuard:
    """A shell process that ends the registered processes when this process dies without calling `release`.

    Attributes:
        pids: The registered processes.
    """

    def __init__(self) -> None:
        """Start the guard process."""
        self.pids: frozenset[int] = frozenset()
        self._process = subprocess.Popen(
            ["sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The guard runs in a separate Unix session: Ctrl-C and signals to the process group do not reach it.
            start_new_session=True,
            text=True,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Register every process that this process, or a descendant, starts inside the `with` block."""
        before, ended = descendants(), threading.Event()

        def search() -> None:
            while not ended.wait(SEARCH_S):
                self._include(descendants() - before)

        thread = threading.Thread(target=search, name="guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._include(descendants() - before)

    def release(self) -> None:
        """End the guard, and leave the registered processes running."""
        if self._process.poll() is None:
            self._process.communicate("released\n")

    def _include(self, pids: set[int]) -> None:
        new, self.pids = pids - self.pids, self.pids | pids
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the guard was killed: the engine's processes run without it
            self._process.stdin.write("".join(f"{pid}\n" for pid in sorted(new)))
            self._process.stdin.flush()


def descendants() -> set[int]:
    """Return the ids of this process's children and of their descendants."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
