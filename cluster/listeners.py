"""Processes that listen on a TCP port of this machine, and the check of the port for HTTP."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from cluster.leftovers import stop_leftovers
from rejoinder.core.errors import ConfigError


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
    """Stop what a dead `rejoinder serve` left, and raise ConfigError if the port cannot be used.

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
