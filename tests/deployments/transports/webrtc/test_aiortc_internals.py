"""Contract tests of `aiortc_internals`: each fails if aiortc or aioice changes what that module relies on."""

from __future__ import annotations

import socket

from aiortc import RTCPeerConnection
from aiortc.rtp import RtpPacket

from deployments.transports.webrtc.aiortc_internals import (
    PassAtOnce,
    bind_media,
    decode_with,
    max_event_bytes,
    packets_received,
    round_trip_s,
)
from tests.deployments.transports.webrtc.webrtc_client import Microphone


def _packet(number: int) -> RtpPacket:
    packet = RtpPacket(payload_type=96, sequence_number=number, timestamp=number * 960)
    vars(packet)["_data"] = bytes([number % 256])
    return packet


def test_packets_pass_at_once_and_late_ones_are_dropped() -> None:
    """A gap delays nothing, and the sequence numbers may wrap. A packet that is older than the newest is dropped."""
    order = PassAtOnce()
    passed = [order.add(_packet(number))[1] for number in (65534, 65535, 0, 3, 2, 3, 4)]
    assert [frame and frame.data for frame in passed] == [b"\xfe", b"\xff", b"\x00", b"\x03", None, None, b"\x04"]


async def test_media_uses_the_given_address_and_a_free_port_of_the_range() -> None:
    """Of two ports one is taken by another socket: the offer has the other one, and only the given address."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection = RTCPeerConnection()
    try:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ports = range(port, port + 20)
        connection.addTrack(Microphone())
        bind_media(connection, ["127.0.0.1"], ports)
        await connection.setLocalDescription(await connection.createOffer())
        lines = connection.localDescription.sdp.splitlines()
        candidates = {tuple(line.split(" ")[4:6]) for line in lines if line.startswith("a=candidate")}
        assert {address for address, _ in candidates} == {"127.0.0.1"}
        assert all(int(used) in ports and int(used) != port for _, used in candidates)
        assert packets_received(connection) == 0
        assert round_trip_s(connection) is None
        assert max_event_bytes(connection) == 0
        connection.createDataChannel("oai-events")
        assert max_event_bytes(connection) > 0
    finally:
        await connection.close()
        taken.close()


async def test_the_receiver_uses_the_replaced_queue_and_buffer() -> None:
    """The names that are replaced exist in a receiver, so that a new version that renames them is noticed."""
    connection = RTCPeerConnection()
    receiver = connection.addTransceiver("audio").receiver
    names = ("_RTCRtpReceiver__decoder_queue", "_RTCRtpReceiver__jitter_buffer")
    before = [vars(receiver)[name] for name in names]
    decode_with(receiver, lambda _: None)
    assert all(vars(receiver)[name] is not old for name, old in zip(names, before, strict=True))
    await connection.close()
