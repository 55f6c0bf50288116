"""Two network namespaces joined by a virtual Ethernet pair: a cable of our own, on which every packet can be counted.

MTU 1500, and segmentation, coalescing and checksum offload are off at both ends, so what is captured is what a cable
would carry: without that, the kernel would hand packets of 64 KB across. IPv6 is off, since its neighbour discovery
would be counted as traffic. Nothing outside the two namespaces is touched, and both are removed at the end.
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

# Tool, and Debian's package of it.
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
    """One end of the cable: its namespace, the interface in it, and the interface's address."""

    namespace: str
    interface: str
    address: str

    def command(self, *words: str) -> list[str]:
        """A command line that runs inside the namespace."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        """An IPv4 socket that belongs to the namespace, whoever uses it; raises BackendError if it cannot be made."""
        made: list[socket.socket | OSError] = []
        # Only a thread of its own may leave: the namespace is the thread's, a socket keeps the one it was made in.
        thread = threading.Thread(target=_make_socket, args=(self.namespace, kind, made))
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise BackendError(f"no socket in namespace {self.namespace} ({made[0]}).", stage="bandwidth")
        return made[0]

    def counted(self) -> int:
        """Packets that the interface has sent and received."""
        folder = f"/sys/class/net/{self.interface}/statistics"
        found = _run(self.command("cat", f"{folder}/tx_packets", f"{folder}/rx_packets"))
        return sum(int(count) for count in found.split())


@dataclass(frozen=True, slots=True)
class Pair:
    """The callers' side and ours."""

    caller: Side
    server: Side


def missing() -> list[str]:
    """What this machine lacks to make and watch a pair, in words; empty if nothing."""
    lacks = [f"{tool} (Debian package {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return [*(["root"] if os.geteuid() else []), *lacks]


@contextmanager
def pair() -> Iterator[Pair]:
    """A fresh pair, removed at the end whatever happens; raises ConfigError naming what the machine lacks."""
    if lacks := missing():
        raise ConfigError(
            f"network namespaces need {', '.join(lacks)}.", "Install it, and run as root.", field="load bandwidth"
        )
    sides = [Side(f"rejoinder-{os.getpid()}-{end}", f"rj{end}", f"10.203.0.{number}") for number, end in _ENDS]
    made: list[str] = []
    _remove_stale()
    try:
        for side in sides:
            _run(["ip", "netns", "add", side.namespace])
            made.append(side.namespace)
        _join(*sides)
        yield Pair(*sides)
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, timeout=_COMMAND_S)


_ENDS = ((1, "caller"), (2, "server"))


def _remove_stale() -> None:
    """Remove what a run left behind that was killed before it could."""
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
            # Some kernels have some of them fixed; whether the three that matter are off is read back below.
            subprocess.run(
                side.command("ethtool", "-K", side.interface, offload, "off"),
                check=False,
                capture_output=True,
                timeout=_COMMAND_S,
            )
        features = _run(side.command("ethtool", "-k", side.interface))
        on = [name for name in _MUST_BE_OFF if f"{name}: off" not in features]
        if on:
            raise BackendError(f"{side.interface} keeps {', '.join(on)} on.", "Use another kernel.", stage="bandwidth")


def _make_socket(namespace: str, kind: socket.SocketKind, made: list[socket.socket | OSError]) -> None:
    handle = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # asyncio recognizes a TCP socket, and turns Nagle's algorithm off, only by its protocol's number.
        protocol = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else 0
        made.append(socket.socket(socket.AF_INET, kind, protocol))
    except OSError as error:
        made.append(error)
    finally:
        os.close(handle)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise BackendError(
            f"`{' '.join(command)}` failed: {said}.", "It needs the right to administer networks.", stage="bandwidth"
        ) from None
    return done.stdout
