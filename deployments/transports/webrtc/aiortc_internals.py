"""Every use of an undocumented internal of aiortc and aioice, in one module.

Each function names the internal and why the public interface is not enough.
`tests/deployments/transports/webrtc/test_aiortc_internals.py` has a contract test for each. Checked against aiortc
1.16.0 and aioice 0.13.0: https://github.com/aiortc/aiortc/tree/1.16.0/src/aiortc.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol, get_host_addresses, server_reflexive_candidate
from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtpPacket

GATHER_S = 5.0
"""Seconds that a STUN server has to answer."""
HALF_SEQUENCE = 1 << 15
"""Half of the 16-bit sequence numbers of RTP. A packet that is this far ahead is behind."""


class PassAtOnce:
    """Stands in for a receiver's jitter buffer: passes each packet on at once, and drops packets that come too late.

    aiortc's own holds four packets back, which delays every turn by 80 ms. After one lost packet it waits for 16 more,
    and its delay then stays 300 ms, because each packet that arrives takes one out.
    """

    def __init__(self) -> None:
        self._newest: int | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Return (False, the packet's frame), or (False, None) for a packet that is older than one passed on."""
        number = packet.sequence_number
        if self._newest is not None and not 0 < (number - self._newest) % (2 * HALF_SEQUENCE) < HALF_SEQUENCE:
            return False, None
        self._newest = number
        data: bytes = vars(packet)["_data"]  # the receiver adds it
        return False, JitterFrame(data=data, timestamp=packet.timestamp)


class DecodeInPlace(queue.Queue[Any]):
    """Stands in for the queue of a receiver's decoder thread: what is put is decoded at once, on the event loop.

    Decoding 20 ms of Opus takes 30 microseconds. Passing them to a thread and its result back takes longer, and the
    track of a receiver has a queue without a limit.
    """

    def __init__(self, decode: Callable[[bytes], None]) -> None:
        super().__init__()
        self._decode = decode
        self._closed = threading.Event()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Decode the packet of `item`, which is (codec, frame). None ends the decoder thread."""
        if item is None:
            self._closed.set()
        else:
            self._decode(item[1].data)

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        """Let the decoder thread wait until the receiver stops, and tell it to end."""
        self._closed.wait()


def decode_with(receiver: RTCRtpReceiver, decode: Callable[[bytes], None]) -> None:
    """Pass each Opus packet of a receiver to `decode` as soon as it arrives. Call before the receiver starts.

    Uses `RTCRtpReceiver.__decoder_queue` and `__jitter_buffer`, and `RtpPacket._data`.
    """
    vars(receiver)["_RTCRtpReceiver__decoder_queue"] = DecodeInPlace(decode)
    vars(receiver)["_RTCRtpReceiver__jitter_buffer"] = PassAtOnce()


def packets_received(connection: RTCPeerConnection) -> int:
    """Return the number of packets that a connection has received. Uses `RTCDtlsTransport._get_stats`.

    `RTCPeerConnection.getStats` makes reports of all tracks, which is too much to be asked once a second.
    """
    transports = {transceiver.receiver.transport for transceiver in connection.getTransceivers()}
    return sum(int(entry.packetsReceived) for transport in transports for entry in transport._get_stats().values())


def round_trip_s(connection: RTCPeerConnection) -> float | None:
    """Return the smoothed round-trip time of a connection in seconds; None until the client has reported it.

    Uses `RTCRtpSender.__rtt`, which `RTCRtpSender.getStats` reports as `roundTripTime` with much else.
    """
    times = (vars(sender)["_RTCRtpSender__rtt"] for sender in connection.getSenders())
    return next((float(seconds) for seconds in times if seconds is not None), None)


def max_event_bytes(connection: RTCPeerConnection) -> int:
    """Return the maximum size of one message that the client accepts; 0 for any. Uses `_remote_max_message_size`."""
    return int(connection.sctp._remote_max_message_size) if connection.sctp else 0


def bind_media(connection: RTCPeerConnection, addresses: Sequence[str], ports: range) -> None:
    """Let a connection use only some addresses and UDP ports. Call between its remote and its local description.

    aioice has no setting for either. Uses `RTCIceGatherer._connection` and replaces its `get_component_candidates`.

    Args:
        connection: The connection.
        addresses: The addresses; none for all but loopback.
        ports: The ports; none for any free port.
    """
    for transport in {transceiver.receiver.transport for transceiver in connection.getTransceivers()}:
        ice = transport.transport.iceGatherer._connection
        vars(ice)["get_component_candidates"] = partial(_candidates, ice, addresses, ports)


async def _candidates(
    ice: Connection, own: Sequence[str], ports: range, *, component: int, addresses: list[str]
) -> list[Candidate]:
    """Return the candidates of a connection: its sockets, what a STUN server sees of them, and those of TURN."""
    protocols = []
    for address in own or get_host_addresses(use_ipv4=True, use_ipv6=True):
        protocol = await _bound(ice, address, ports)
        if protocol is None:
            continue
        host, port = protocol.transport.get_extra_info("sockname")[:2]
        protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", host),
            component=component,
            transport="udp",
            priority=candidate_priority(component, "host"),
            host=host,
            port=port,
            type="host",
        )
        protocols.append(protocol)
    ice._protocols += protocols
    found = [protocol.local_candidate for protocol in protocols]
    if ice.stun_server and protocols:
        asking = [
            asyncio.ensure_future(server_reflexive_candidate(protocol, ice.stun_server))
            for protocol in protocols
            if ":" not in protocol.local_candidate.host
        ]
        _, late = await asyncio.wait(asking, timeout=GATHER_S)
        for task in late:
            task.cancel()
        found += [task.result()[0] for task in asking if task.done() and not task.cancelled() and not task.exception()]
    return found


async def _bound(ice: Connection, address: str, ports: range) -> StunProtocol | None:
    """Return a socket on a free port of the range, None if the address has none or is not this machine's."""
    tried = random.sample(ports, len(ports)) if ports else [0]
    for port in tried:
        try:
            _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: StunProtocol(ice), local_addr=(address, port)
            )
        except OSError:
            continue
        return protocol
    return None
