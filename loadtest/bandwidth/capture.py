"""Packet capture on a virtual Ethernet pair: recorded by dumpcap, read by tshark.

The number of captured packets is compared with the interface's counters. If the capture has fewer, an error is raised,
so lost packets never lower a result.
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

# Number of bytes that dumpcap stores of each packet: enough for its headers. The capture file has the full length, too.
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
    """One IP packet.

    Attributes:
        at: Time of the capture in seconds since the Unix epoch.
        source: IPv4 address of the sender.
        source_port: TCP or UDP port of the sender.
        target_port: TCP or UDP port of the receiver.
        ip_bytes: Length in bytes, with the IP header.
        payload: Number of bytes after the TCP or UDP header.
        acknowledgement: True for a TCP packet without payload that neither opens nor closes the connection.
        handshake: True for a TCP packet that opens or closes the connection (SYN, FIN or RST).
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
    """Result of a capture, filled in when the capture ends.

    Attributes:
        packets: The captured IPv4 packets, in order.
        other_frames: Number of frames that are not IPv4, such as address resolution (ARP).
    """

    packets: list[Packet] = field(default_factory=list)
    other_frames: int = 0


@dataclass(frozen=True, slots=True)
class CapturedTraffic:
    """Sums of bytes and packets over a set of captured packets.

    Attributes:
        data: IP bytes and number of all packets except pure acknowledgements and handshakes.
        payload: Number of payload bytes of the packets in `data`.
        acknowledgements: IP bytes and number of TCP's pure acknowledgements, which have no payload.
    """

    data: NetworkLoad = NOTHING
    payload: int = 0
    acknowledgements: NetworkLoad = NOTHING

    @property
    def all(self) -> NetworkLoad:
        """IP bytes and number of packets: data and pure acknowledgements together."""
        return self.data + self.acknowledgements


def traffic(packets: Iterable[Packet]) -> CapturedTraffic:
    """Return the sums of bytes and packets over captured packets, without those that open or close a connection."""
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
    """Capture all packets on one end of the virtual Ethernet pair while the context lasts.

    Yields:
        The capture. It is empty until the context ends.

    Raises:
        BackendError: dumpcap or tshark failed, or the capture lost packets.
    """
    capture = Capture()
    with tempfile.TemporaryDirectory(prefix="rejoinder-capture-") as folder:
        file = Path(folder) / "wire.pcapng"
        words = ("dumpcap", "-i", side.interface, "-s", str(_SNAP), "-B", str(_BUFFER_MB), "-w", str(file))
        with subprocess.Popen(side.command(*words), stderr=subprocess.PIPE, text=True) as dumpcap:
            try:
                _wait_until_capturing(dumpcap, file)
                before = side.packet_count()
                yield capture
                counted = side.packet_count() - before
                # The kernel passes packets in blocks. Wait until the last, partly filled block has reached dumpcap.
                time.sleep(_SETTLE_S)
            finally:
                dumpcap.send_signal(signal.SIGINT)
                output = dumpcap.communicate(timeout=_STOP_S)[1]
        capture.packets, capture.other_frames = read(file)
        recorded = len(capture.packets) + capture.other_frames
        if recorded < counted:
            raise BackendError(f"the capture lost {counted - recorded} packets ({output.strip()}).", stage="bandwidth")


def _wait_until_capturing(dumpcap: subprocess.Popen[str], file: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not file.exists() or file.stat().st_size == 0:
        if dumpcap.poll() is not None or time.monotonic() > deadline:
            raise BackendError("dumpcap did not start.", "Run dumpcap by hand to see why.", stage="bandwidth")
        time.sleep(0.02)


def read(file: Path) -> tuple[list[Packet], int]:
    """Read a capture file. Return its IPv4 packets and the number of frames that are not IPv4.

    Raises:
        BackendError: tshark failed.
    """
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
        handshake = bool(int(flags, 16) & _SYN_FIN_RST)
        ends = (int(tcp_from), int(tcp_to), int(ip_bytes), int(tcp_payload))
        return Packet(float(at), source, *ends, not int(tcp_payload) and not handshake, handshake)
    return Packet(
        float(at),
        source=source,
        source_port=int(udp_from),
        target_port=int(udp_to),
        ip_bytes=int(ip_bytes),
        payload=int(udp_length) - _UDP_HEADER,
    )
