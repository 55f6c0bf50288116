"""Two network namespaces joined by a virtual Ethernet pair, on which every packet can be counted.

The MTU is 1500. Segmentation, coalescing and checksum offload are off at both ends. Otherwise the kernel would pass
packets of up to 64 KB, which no cable carries. IPv6 is off, because its neighbour discovery would count as traffic.
Nothing outside the two namespaces changes, and both are removed at the end.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.bandwidth.formula import MTU
from rejoinder.core.errors import BackendError, ConfigError

# Required command-line tools, each with the Debian package that contains it.
TOOLS = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "dumpcap": "wireshark-common",
    "tshark": "tshark",
    "openssl": "openssl",
}
_OFFLOADS = ("tso", "gso", "gro", "lro", "tx", "rx", "sg")
_MUST_BE_OFF = ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload")
_CLONE_NEWNET = 0x40000000
_COMMAND_S = 20
_OURS = re.compile(r"rejoinder-(\d+)-(?:caller|server)")


@dataclass(frozen=True, slots=True)
class Side:
    """One end of the virtual Ethernet pair.

    Attributes:
        namespace: Name of the network namespace.
        interface: Name of the interface inside the namespace.
        address: IPv4 address of the interface.
    """

    namespace: str
    interface: str
    address: str

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs `words` inside the namespace."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        """Open an IPv4 socket inside the namespace. Any thread may use it.

        Raises:
            BackendError: The socket cannot be opened.
        """
        results: list[socket.socket | OSError] = []
        # A network namespace belongs to a thread, and a socket stays in the namespace in which it was opened. Therefore
        # a short-lived thread enters the namespace and opens the socket, while the calling thread stays in its own.
        thread = threading.Thread(target=_open_socket, args=(self.namespace, kind, results))
        thread.start()
        thread.join()
        if isinstance(results[0], OSError):
            raise BackendError(
                f"a socket could not be opened in namespace {self.namespace} ({results[0]}).", stage="bandwidth"
            )
        return results[0]

    def packet_count(self) -> int:
        """Return the number of packets that the interface has sent and received so far."""
        folder = f"/sys/class/net/{self.interface}/statistics"
        counts = _run(self.command("cat", f"{folder}/tx_packets", f"{folder}/rx_packets"))
        return sum(int(count) for count in counts.split())


@dataclass(frozen=True, slots=True)
class Pair:
    """Two network namespaces joined by a virtual Ethernet pair.

    Attributes:
        caller: The end with the callers.
        server: The end with the server.
    """

    caller: Side
    server: Side


def missing() -> list[str]:
    """Return what this machine lacks to create the namespaces, in words: root or tools. Empty if nothing."""
    tools = [f"{tool} (Debian package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return [*(["root"] if os.geteuid() else []), *tools]


@contextmanager
def pair() -> Iterator[Pair]:
    """Create two namespaces and a virtual Ethernet pair. Remove them when the context ends, also after an error.

    Yields:
        The pair of namespaces, with both interfaces up.

    Raises:
        ConfigError: The machine lacks root or a tool. The message names what is missing.
        BackendError: A command failed, or the kernel does not let offloading be turned off.
    """
    if lacking := missing():
        raise ConfigError(
            f"network namespaces need {', '.join(lacking)}.",
            "Install the missing tools and run as root.",
            field="load bandwidth",
        )
    sides = [Side(f"rejoinder-{os.getpid()}-{end}", f"rj{end}", f"10.203.0.{number}") for number, end in _ENDS]
    created: list[str] = []
    _remove_stale()
    try:
        for side in sides:
            _run(["ip", "netns", "add", side.namespace])
            created.append(side.namespace)
        _join(*sides)
        yield Pair(*sides)
    finally:
        for namespace in created:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, timeout=_COMMAND_S)


_ENDS = ((1, "caller"), (2, "server"))


def _remove_stale() -> None:
    """Remove the namespaces of earlier runs whose process was killed before it could remove them."""
    for name in _run(["ip", "netns", "list"]).split():
        owner = _OURS.fullmatch(name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            _run(["ip", "netns", "delete", name])


def _join(caller: Side, server: Side) -> None:
    link = ["ip", "link", "add", caller.interface, "netns", caller.namespace, "type", "veth"]
    _run([*link, "peer", "name", server.interface, "netns", server.namespace])
    for side in (caller, server):
        _run(side.command("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"))
        _run(["ip", "-n", side.namespace, "address", "add", f"{side.address}/30", "dev", side.interface])
        for link_up in (["lo", "up"], [side.interface, "mtu", str(MTU), "up"]):
            _run(["ip", "-n", side.namespace, "link", "set", *link_up])
        for offload in _OFFLOADS:
            # Some kernels do not let every offload be changed, so a failure is ignored here. The three offloads that
            # would merge or split packets are checked below.
            subprocess.run(
                side.command("ethtool", "-K", side.interface, offload, "off"),
                check=False,
                capture_output=True,
                timeout=_COMMAND_S,
            )
        features = _run(side.command("ethtool", "-k", side.interface))
        on = [name for name in _MUST_BE_OFF if f"{name}: off" not in features]
        if on:
            raise BackendError(
                f"{', '.join(on)} cannot be turned off on {side.interface}.", "Use another kernel.", stage="bandwidth"
            )


def _open_socket(namespace: str, kind: socket.SocketKind, results: list[socket.socket | OSError]) -> None:
    handle = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # Give TCP as the explicit protocol number. Otherwise asyncio does not turn off Nagle's algorithm for the
        # socket.
        protocol = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else 0
        results.append(socket.socket(socket.AF_INET, kind, protocol))
    except OSError as error:
        results.append(error)
    finally:
        os.close(handle)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        output = (getattr(error, "stderr", "") or str(error)).strip()
        raise BackendError(
            f"`{' '.join(command)}` failed: {output}.",
            "The command needs permission to administer networks (CAP_NET_ADMIN).",
            stage="bandwidth",
        ) from None
    return done.stdout
