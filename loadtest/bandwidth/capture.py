"""Packets as they crossed the cable: captured by dumpcap, read by tshark, and counted against the interface.

A capture is complete only if it holds as many packets as the interface counted meanwhile; one that does not is an
error, never a lower figure.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.bandwidth.formula import NOTHING, NetworkLoad
from loadtest.bandwidth.netns import Side
from rejoinder.core.errors import BackendError

# Enough of each packet for its headers; its length is recorded beside.
_SNAP = 128
_BUFFER_MB = 64
_START_S, _STOP_S, _READ_S = 20.0, 20.0, 120.0
_SETTLE_S = 1.0
_FIELDS = ("frame.time_epoch", "ip.src", "ip.len", "tcp.len", "tcp.flags", "tcp.srcport", "tcp.dstport")
_UDP_FIELDS = ("udp.length", "udp.srcport", "udp.dstport")
_SYN_FIN_RST = 0x07
_UDP_HEADER = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet. `at`: seconds since the epoch; `ip_bytes` with the IP header; `payload` behind TCP's or UDP's.

    `acknowledgement`: TCP without payload that neither opens nor closes the connection.
    """

    at: float
    source: str
    source_port: int
    target_port: int
    ip_bytes: int
    payload: int
    acknowledgement: bool = False
    handshake: bool = False


@dataclass(slots=True)
class Capture:
    """`packets` once the capture has ended; `strangers` counts frames that are not IPv4 (address resolution)."""

    packets: list[Packet] = field(default_factory=list)
    strangers: int = 0


@dataclass(frozen=True, slots=True)
class CapturedTraffic:
    """One direction: packets with payload, and TCP's pure acknowledgements apart."""

    data: NetworkLoad = NOTHING
    payload: int = 0
    acknowledgements: NetworkLoad = NOTHING

    @property
    def all(self) -> NetworkLoad:
        return self.data + self.acknowledgements


def traffic(packets: Iterable[Packet]) -> CapturedTraffic:
    """The sum of some packets; handshakes are left out."""
    data, acknowledgements, payload = NOTHING, NOTHING, 0
    for packet in packets:
        if packet.handshake:
            continue
        if packet.acknowledgement:
            acknowledgements += NetworkLoad(packet.ip_bytes, 1)
        else:
            data += NetworkLoad(packet.ip_bytes, 1)
            payload += packet.payload
    return CapturedTraffic(data, payload, acknowledgements)


@contextmanager
def capturing(side: Side) -> Iterator[Capture]:
    """Capture on one end of the cable; raises BackendError if a packet was lost."""
    capture = Capture()
    with tempfile.TemporaryDirectory(prefix="rejoinder-capture-") as folder:
        file = Path(folder) / "wire.pcapng"
        words = ("dumpcap", "-i", side.interface, "-s", str(_SNAP), "-B", str(_BUFFER_MB), "-w", str(file))
        with subprocess.Popen(side.command(*words), stderr=subprocess.PIPE, text=True) as dumpcap:
            try:
                _started(dumpcap, file)
                before = side.counted()
                yield capture
                counted = side.counted() - before
                # What the kernel holds back for a fuller block must reach dumpcap first.
                time.sleep(_SETTLE_S)
            finally:
                dumpcap.send_signal(signal.SIGINT)
                said = dumpcap.communicate(timeout=_STOP_S)[1]
        capture.packets, capture.strangers = read(file)
        held = len(capture.packets) + capture.strangers
        if held < counted:
            raise BackendError(f"the capture lost {counted - held} packets ({said.strip()}).", stage="bandwidth")


def _started(dumpcap: subprocess.Popen[str], file: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not file.exists() or file.stat().st_size == 0:
        if dumpcap.poll() is not None or time.monotonic() > deadline:
            raise BackendError("dumpcap does not capture.", "Run it by hand to see why.", stage="bandwidth")
        time.sleep(0.02)


def read(file: Path) -> tuple[list[Packet], int]:
    """The IPv4 packets of a capture, and how many other frames there were."""
    fields = [word for name in _FIELDS + _UDP_FIELDS for word in ("-e", name)]
    command = ["tshark", "-r", str(file), "-n", "-T", "fields", "-E", "separator=,", "-E", "occurrence=f", *fields]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_READ_S)
    if done.returncode:
        raise BackendError(f"tshark cannot read the capture: {done.stderr.strip()}.", stage="bandwidth")
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return [_packet(row) for row in rows if row[2]], sum(1 for row in rows if not row[2])


def _packet(row: list[str]) -> Packet:
    at, source, ip_bytes, tcp_payload, flags, tcp_from, tcp_to, udp_length, udp_from, udp_to = row
    if tcp_payload:
        connecting = bool(int(flags, 16) & _SYN_FIN_RST)
        ends = (int(tcp_from), int(tcp_to), int(ip_bytes), int(tcp_payload))
        return Packet(float(at), source, *ends, not int(tcp_payload) and not connecting, connecting)
    return Packet(
        float(at),
        source=source,
        source_port=int(udp_from),
        target_port=int(udp_to),
        ip_bytes=int(ip_bytes),
        payload=int(udp_length) - _UDP_HEADER,
    )
