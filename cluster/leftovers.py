"""Processes and folders of nodes that `rejoinder serve` started, and how none of them outlives it.

A node's files are in a folder of its own below /tmp. A process belongs to the node if its command line names a file in
the folder, or if it has one open: every process of Ray writes its log there. Ray's own processes usually end with the
head. HAProxy does not: it keeps the port and answers every request with status 500 or 503. If a raylet (Ray's process
per node) is killed, its workers may stay too.

`NodeGuard` ends them when the owner dies, however it dies. `stop_leftovers` ends those that a guard could not end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

NODE_FOLDER = "rj-"
"""Beginning of the name of the folder in which `rejoinder serve` keeps a node's files."""
OWNER_FILE = "owner"
"""File in that folder with the id and the start time of the process that owns it."""
STOP_S = 5.0
"""Seconds that a leftover process has to end before it is killed."""

# The guard waits for its standard input to end, which happens when its parent dies. If a line came before, the parent
# released it. Otherwise it gives Ray's processes a moment to end by themselves and then ends what is left.
_GUARD = 'read -r line && exit 0; sleep 2; exec "$0" -m cluster.leftovers'


class NodeGuard:
    """A process that ends the processes of this process's nodes if this process dies without calling `release`."""

    def __init__(self) -> None:
        """Start the guard."""
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, sys.executable],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and signals to the process group of the terminal must not reach the guard.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def release(self) -> None:
        """End the guard. Call it when the node's processes have ended."""
        with suppress(BrokenPipeError):  # somebody ended the guard
            self._process.communicate(b"released\n")


def write_owner(folder: Path) -> None:
    """Write down in a node's folder that this process owns it."""
    process = psutil.Process()
    (folder / OWNER_FILE).write_text(f"{process.pid} {process.create_time()}", encoding="ascii")


def stop_leftovers() -> list[int]:
    """Stop the processes of nodes whose owner no longer runs, delete the nodes' folders, and return the process ids.

    HAProxy is stopped also if its node's folder is gone. Processes that have nothing to do with a folder of a node are
    left alone, such as HAProxy processes of others.
    """
    orphaned = [
        folder
        for folder in Path("/tmp").glob(f"{NODE_FOLDER}*")
        if (folder / OWNER_FILE).exists() and not _owned(folder)
    ]
    leftovers = [process for folder in orphaned for process in processes_of(folder)]
    for process in psutil.process_iter(["cmdline", "name"]):
        folder = _node_folder(process.info["cmdline"] or [])
        if folder and "haproxy" in (process.info["name"] or "") and process not in leftovers and not _owned(folder):
            leftovers.append(process)
    end(leftovers)
    for folder in orphaned:
        shutil.rmtree(folder, ignore_errors=True)
    return [process.pid for process in leftovers]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes of a node, except this one."""
    inside = f"{folder}{os.sep}"
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            named = any(inside in argument for argument in process.info["cmdline"] or [])
            if process.pid != os.getpid() and (
                named or any(file.path.startswith(inside) for file in process.open_files())
            ):
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    """End processes with SIGTERM, and kill those that have not ended after STOP_S seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
            process.resume()  # a stopped process would not notice
    _, alive = psutil.wait_procs(processes, STOP_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
    psutil.wait_procs(alive, STOP_S)


def _node_folder(command: list[str]) -> Path | None:
    """Return the folder of the node in a command line of HAProxy, None if it names none."""
    for argument in command:
        for part in Path(argument).parents:
            if part.name.startswith(NODE_FOLDER) and part.parent == Path("/tmp"):
                return part
    return None


def _owned(folder: Path) -> bool:
    """Return True if the process that owns the node still runs. A folder that is gone or unmarked has no owner."""
    try:
        pid, created = (folder / OWNER_FILE).read_text(encoding="ascii").split()
        owner = psutil.Process(int(pid))
        return owner.create_time() == float(created) and owner.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False


if __name__ == "__main__":
    stop_leftovers()
