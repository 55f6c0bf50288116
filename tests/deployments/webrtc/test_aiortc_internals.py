"""Contract tests of the internals of aiortc and aioice in use: they fail if a new version changes one."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtpPacket

from deployments.webrtc import aiortc_internals as internals
from tests.deployments.webrtc.webrtc_client import Microphone

PORTS = range(45_310, 45_330)


async def _described(connection: RTCPeerConnection, addresses: list[str], ports: range) -> RTCSessionDescription:
    """Return the local description of a connection, made with the given addresses and ports."""
    make = connection.createOffer if connection.remoteDescription is None else connection.createAnswer
    internals.bind_media(connection, addresses, ports)
    await connection.setLocalDescription(await make())
    return connection.localDescription


async def test_packets_are_decoded_at_once_on_the_event_loop() -> None:
    """A receiver passes on the payload of each packet; its media has only addresses and ports that were allowed."""
    caller, host = RTCPeerConnection(), RTCPeerConnection()
    decoded: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        caller.addTrack(Microphone())
        caller.createDataChannel("events")
        await host.setRemoteDescription(await _described(caller, ["127.0.0.1"], PORTS))
        internals.decode_with(host.getTransceivers()[0].receiver, decoded.put_nowait)
        answer = await _described(host, ["127.0.0.1"], PORTS)
        found = re.findall(r"a=candidate:\S+ \d+ udp \d+ (\S+) (\d+) ", answer.sdp)
        assert found
        assert {(address, int(port) in PORTS) for address, port in found} == {("127.0.0.1", True)}
        await caller.setRemoteDescription(answer)
        async with asyncio.timeout(10):
            assert [len(await decoded.get()) > 0 for _ in range(3)] == [True] * 3
        assert internals.packets_received(host) >= 3
        assert internals.max_event_bytes(host) == 262_144
    finally:
        await caller.close()
        await host.close()


@pytest.mark.parametrize(("first", "second", "passed"), [(5, 6, True), (5, 9, True), (5, 5, False), (65_535, 0, True)])
def test_a_packet_older_than_the_newest_is_dropped(first: int, second: int, passed: bool) -> None:
    """The stand-in of the jitter buffer passes a packet on, unless a newer one came before. Numbers wrap around."""
    buffer = internals.PassAtOnce()
    frames = []
    for number in (first, second):
        packet = RtpPacket(sequence_number=number)
        vars(packet)["_data"] = b"opus"
        frames.append(buffer.add(packet)[1])
    assert [frame is not None for frame in frames] == [True, passed]
