"""Processes that listen on a TCP port of this machine, and HAProxy processes that an earlier `rejoinder serve` left.

If `rejoinder serve` is killed, Ray's own processes end with it, but HAProxy does not: it keeps the port and answers
every request with status 500 or 503.
"""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rejoinder.core.errors import ConfigError

NODE_FOLDER = "rj-"
"""Beginning of the name of the folder in which `rejoinder serve` keeps a node's files."""
OWNER_FILE = "owner"
"""File in that folder with the id and the start time of the process that owns it."""
STOP_S = 5.0
"""Seconds that a leftover process has to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens on a port.

    Attributes:
        pid: Its process id.
        command: Its command line, shortened.
    """

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def check_port(host: str, port: int, field: str) -> None:
    """Stop HAProxy processes that a dead `rejoinder serve` left, and raise ConfigError if the port cannot be used.

    Args:
        host: IPv4 address or name to listen on.
        port: The port. 0 is always right.
        field: Setting that the error names.

    Raises:
        ConfigError: Another process listens on the port, the address is not one of this machine, or the port needs
            privileges.
    """
    stop_leftovers()
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            message = f"the host name {host!r} is unknown ({error.strerror})."
            raise ConfigError(message, "Use an address of this machine, or 0.0.0.0.", field=field) from error
        except OSError as error:
            raise _refused(host, port, field, error) from error


def _refused(host: str, port: int, field: str, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        owner = next(listeners(port), None)
        who = f" by {owner}" if owner else ""
        remedy = f"Stop it{f' (kill {owner.pid})' if owner else ''}, or use another port (`--port 0` takes a free one)."
        return ConfigError(f"{host}:{port} is in use{who}.", remedy, field=field)
    if error.errno == errno.EACCES:
        remedy = "Use a port from 1024, or run a load balancer in front."
        return ConfigError(f"port {port} needs privileges.", remedy, field=field)
    return ConfigError(
        f"{host}:{port} cannot be used ({error.strerror}).", "Use an address of this machine, or 0.0.0.0.", field=field
    )


def listeners(port: int) -> Iterator[Listener]:
    """Yield the processes of this machine that listen on a TCP port, as far as this user may see them."""
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process = psutil.Process(connection.pid)
                    yield Listener(connection.pid, " ".join(process.cmdline())[:80] or process.name())


def write_owner(folder: Path) -> None:
    """Write down in a node's folder that this process owns it."""
    process = psutil.Process()
    (folder / OWNER_FILE).write_text(f"{process.pid} {process.create_time()}", encoding="ascii")


def stop_leftovers() -> list[int]:
    """Stop the HAProxy processes of nodes whose owner no longer runs, and return their process ids.

    The nodes' folders are deleted too.

    A process belongs to such a node if its command line names HAProxy's configuration file in the node's folder. Ray
    creates that folder for `rejoinder serve` only, so HAProxy processes of others are left alone.
    """
    leftovers = []
    for process in psutil.process_iter(["cmdline", "name"]):
        command = process.info["cmdline"] or []
        folder = _node_folder(command)
        if folder and "haproxy" in (process.info["name"] or "") and not _owned(folder):
            leftovers.append(process)
    for process in leftovers:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
    _, alive = psutil.wait_procs(leftovers, STOP_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
    psutil.wait_procs(alive, STOP_S)
    for folder in Path("/tmp").glob(f"{NODE_FOLDER}*"):
        if (folder / OWNER_FILE).exists() and not _owned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return [process.pid for process in leftovers]


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
        return psutil.Process(int(pid)).create_time() == float(created)
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False
