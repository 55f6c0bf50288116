"""First process of a machine of the module `machines`: it prepares the machine's files and adopts orphaned processes.

It runs as process 1 in new namespaces (network, processes, mounts, hostname), so its mounts are visible only there. It
never ends by itself. Killing it kills every process of the machine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

# Flags of mount(2), from linux/mount.h.
_MS_BIND = 4096
_MS_REC = 16384


def main() -> None:
    """Prepare the machine, print "ready", and adopt processes for ever.

    The command line: the hostname, the folder with `hosts` and `resolv.conf`, the folders to replace by empty ones
    (separated by colons), and the folders to keep although they are inside of one of those.
    """
    name, folder, private, visible = sys.argv[1:5]
    socket.sethostname(name)
    # A mount hides what was in its folder before. So whatever is needed afterwards is opened now.
    kept = {path: os.open(path, os.O_PATH) for path in visible.split(":") if path}
    shared = {file: os.open(f"{folder}/{file}", os.O_PATH) for file in ("hosts", "resolv.conf")}
    for path in private.split(":"):
        _mount("tmpfs", path, "tmpfs", 0)
    for path, handle in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{handle}", path, None, _MS_BIND | _MS_REC)
    for file, handle in shared.items():
        # On some systems the file is a link into /run, which is empty now.
        target = Path(f"/etc/{file}").resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        _mount(f"/proc/self/fd/{handle}", str(target), None, _MS_BIND)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("ready", flush=True)
    _adopt()


def _adopt() -> None:
    """Wait for the end of each child process. Orphaned processes become children of process 1."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount of {source} on {target}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
