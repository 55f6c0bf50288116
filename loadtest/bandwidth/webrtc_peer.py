"""Caller over WebRTC for measurements: sends packets that were encoded before, and drops the voice that it gets."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction

import httpx2
import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaBlackhole
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet
from av.stream import Stream

from loadtest.bandwidth import opus
from loadtest.bandwidth.speech import SAMPLE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.fields import Json

CHANNEL = "oai-events"
"""Label of the data channel with the events."""
CONNECT_S = 30.0
FRAME_S = 0.02
_FRAME_SAMPLES = round(FRAME_S * SAMPLE_RATE)
DTX_FRAMES = 20
"""Frames between two packets of a silent browser with DTX: 400 ms."""


class PacketTrack(MediaStreamTrack):
    """Track that sends what it is given in real time, and otherwise silence."""

    kind = "audio"

    def __init__(self, *, dtx: bool = False) -> None:
        """Create a silent track. With `dtx`, silence is one packet every `DTX_FRAMES` frames of 20 ms."""
        super().__init__()
        (self._silence,) = opus.encode(np.zeros(_FRAME_SAMPLES, np.int16), opus.OpusSettings(32))
        self._silent_frames = DTX_FRAMES if dtx else 1
        self._speech: deque[bytes] = deque()
        self._number = 0
        self._began = asyncio.get_running_loop().time()

    def say(self, packets: Iterable[bytes]) -> None:
        """Send packets of 20 ms of Opus. b"" is a frame for which nothing is sent."""
        self._speech.extend(packets)

    @property
    def speaking(self) -> bool:
        """True while packets wait to be sent."""
        return bool(self._speech)

    async def recv(self) -> Packet[Stream]:
        """Return the next packet when it is due. aiortc calls this in a loop."""
        while self.readyState == "live":
            number = self._number
            self._number += 1
            await asyncio.sleep(max(0.0, self._began + number * FRAME_S - asyncio.get_running_loop().time()))
            silence = b"" if number % self._silent_frames else self._silence
            if content := self._speech.popleft() if self._speech else silence:
                packet: Packet[Stream] = Packet(content)
                packet.pts, packet.time_base = number * _FRAME_SAMPLES, Fraction(1, SAMPLE_RATE)
                return packet
        raise MediaStreamError


class WebRtcPeer:
    """The caller's end of one call. Create it with `open`."""

    def __init__(self, track: PacketTrack, turn: RTCIceServer | None) -> None:
        """Prepare a call; see `open`."""
        policy = RTCIceTransportPolicy.RELAY if turn else RTCIceTransportPolicy.ALL
        self._connection = RTCPeerConnection(RTCConfiguration([turn] if turn else [], policy))
        self._channel = self._connection.createDataChannel(CHANNEL)
        self._opened = asyncio.Event()
        self._channel.on("open", self._opened.set)
        self._connection.addTrack(track)
        self._heard = MediaBlackhole()
        self._connection.on("track", self._heard.addTrack)

    @classmethod
    async def open(
        cls,
        base_url: str,
        track: PacketTrack,
        *,
        turn: RTCIceServer | None = None,
        prepare: Callable[[RTCPeerConnection], None] = lambda _: None,
        take: Callable[[Json], None] = lambda _: None,
    ) -> WebRtcPeer:
        """Call a host.

        Args:
            base_url: The host's base URL, such as http://127.0.0.1:8000/v1.
            track: What the caller says.
            turn: TURN server that relays the media. There is no other path then. None for the direct path.
            prepare: Called with the connection before it gathers its addresses.
            take: Called with each event.

        Raises:
            BackendError: The host refuses the call, or no path to it is found.
        """
        peer = cls(track, turn)
        connection = peer._connection
        peer._channel.on("message", lambda text: take(json.loads(text)))
        prepare(connection)
        await connection.setLocalDescription(await connection.createOffer())
        async with httpx2.AsyncClient(timeout=CONNECT_S) as client:
            content, kind = connection.localDescription.sdp, {"Content-Type": "application/sdp"}
            answer = await client.post(f"{base_url}/realtime/calls", content=content, headers=kind)
        if answer.status_code != 201:
            raise BackendError(f"the host refuses the call: {answer.text}", stage="call")
        await connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await peer._heard.start()
        try:
            async with asyncio.timeout(CONNECT_S):
                await peer._opened.wait()
        except TimeoutError:
            raise BackendError("no path over WebRTC was found.", "Check UDP between caller and host.") from None
        return peer

    @property
    def port(self) -> int:
        """The caller's UDP port."""
        ice = self._connection.getTransceivers()[0].receiver.transport.transport.iceGatherer
        return int(ice.getLocalCandidates()[0].port)

    @property
    def relayed(self) -> bool:
        """True if the caller has no address but that on a TURN server."""
        ice = self._connection.getTransceivers()[0].receiver.transport.transport.iceGatherer
        return {candidate.type for candidate in ice.getLocalCandidates()} == {"relay"}

    def send(self, event: Json) -> None:
        """Send an event."""
        self._channel.send(json.dumps(event))

    async def close(self) -> None:
        """Hang up."""
        await self._heard.stop()
        await self._connection.close()
