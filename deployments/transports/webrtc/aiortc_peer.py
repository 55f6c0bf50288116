"""A connection of aiortc (BSD-3-Clause, https://aiortc.readthedocs.io): ICE, DTLS, SRTP and the data channel.

aiortc's own Opus encoder sends 96 kbit/s in stereo, without DTX and FEC. So the track gives it packets of our encoder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from fractions import Fraction

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet
from av.stream import Stream

from deployments.transports.webrtc.aiortc_internals import (
    bind_media,
    decode_with,
    max_event_bytes,
    packets_received,
    round_trip_s,
)
from deployments.transports.webrtc.opus import OpusDecoder, OpusEncoder
from deployments.transports.webrtc.peer import CHANNEL, PeerPlan
from rejoinder.core.audio.output_buffer import FRAME_S, OutputBuffer
from rejoinder.core.audio.resample import OPUS_RATE
from rejoinder.core.wire.fields import refuse
from rejoinder.core.wire.sdp import with_addresses, with_opus_parameters

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
"""Seconds after which a connection that does not close is left."""

_TIME_BASE = Fraction(1, OPUS_RATE)
_FRAME_TICKS = round(FRAME_S * OPUS_RATE)


class OutputTrack(MediaStreamTrack):
    """Track with the agent's voice: one packet of Opus for each frame of the output, when it is due."""

    kind = "audio"

    def __init__(self, output: OutputBuffer, encode: Callable[[bytes], bytes]) -> None:
        """Create the track.

        Args:
            output: Decides what is due.
            encode: Returns the packet of 20 ms of audio.
        """
        super().__init__()
        self._output = output
        self._encode = encode
        self._changed = asyncio.Event()

    def output_changed(self) -> None:
        """Look again for what is due: audio was added or dropped."""
        self._changed.set()

    async def recv(self) -> Packet[Stream]:
        """Return the next packet at the time when it is due. aiortc calls this in a loop."""
        clock = asyncio.get_running_loop().time
        while self.readyState == "live":
            self._changed.clear()
            if frame := self._output.take(clock()):
                packet = Packet(self._encode(frame.pcm))
                packet.pts = frame.number * _FRAME_TICKS
                packet.time_base = _TIME_BASE
                return packet
            wait_s = self._output.wait_s(clock())
            if wait_s is None:
                await self._changed.wait()
            else:
                await asyncio.sleep(wait_s)
        raise MediaStreamError


class AiortcPeer:
    """Connection to one client (`MediaPeer`). Not thread-safe."""

    def __init__(self, plan: PeerPlan) -> None:
        """Prepare the connection; `answer` makes it."""
        settings = plan.settings
        self._plan = plan
        self._listener = plan.listener
        # aiortc asks Google's STUN server if the list is None.
        servers = [RTCIceServer(settings.stun)] if settings.stun else []
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._channel: RTCDataChannel | None = None
        fec = settings.fec and plan.offered.fec
        encoder = OpusEncoder(settings.opus_bitrate, fec=fec, expected_loss=settings.expected_loss)
        self._track = OutputTrack(plan.output, encoder.encode)
        self._decoder = OpusDecoder()
        self._connection.on("datachannel", self._open)
        self._connection.on("connectionstatechange", self._state_changed)

    async def answer(self) -> str:
        """Gather the addresses of this end and return the answer to the offer (SDP) (`MediaPeer`)."""
        connection, settings = self._connection, self._plan.settings
        transceiver = connection.addTransceiver(self._track, direction="sendrecv")
        known = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([codec for codec in known if codec.mimeType == "audio/opus"])
        decode_with(transceiver.receiver, self._decode)
        ports = range(settings.port_min, settings.port_max + 1) if settings.port_max else range(0)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(self._plan.offer, "offer"))
            bind_media(connection, settings.addresses, ports)
            await connection.setLocalDescription(await connection.createAnswer())
        except (ValueError, KeyError, IndexError, AttributeError, AssertionError) as error:
            # aiortc's parser raises them for descriptions that are not complete.
            raise refuse(f"The offer is malformed ({error}).", "sdp", remedy="Send the browser's offer.") from None
        except (OperationError, InvalidAccessError, InvalidStateError) as error:
            raise refuse(f"The offer cannot be answered: {error}", "sdp", remedy="Offer one audio track.") from None
        answer = with_opus_parameters(connection.localDescription.sdp, dtx=settings.dtx, bitrate=settings.opus_bitrate)
        return with_addresses(answer, settings.advertise)

    def send(self, text: str) -> None:
        """Queue an event for the client (`MediaPeer`)."""
        if self._channel and self._channel.readyState == "open":
            self._channel.send(text)

    def output_changed(self) -> None:
        """Tell the track that the output has changed (`MediaPeer`)."""
        self._track.output_changed()

    @property
    def unsent_bytes(self) -> int:
        """Size of the events that wait to be sent (`MediaPeer`)."""
        return self._channel.bufferedAmount if self._channel else 0

    @property
    def max_event_bytes(self) -> int:
        """Maximum size of one event that the client accepts (`MediaPeer`)."""
        return max_event_bytes(self._connection) or 1 << 30

    @property
    def packets_received(self) -> int:
        """Number of packets that the client has sent (`MediaPeer`)."""
        return packets_received(self._connection)

    @property
    def round_trip_s(self) -> float | None:
        """Smoothed round-trip time to the client in seconds (`MediaPeer`)."""
        return round_trip_s(self._connection)

    async def close(self) -> None:
        """Close the connection (`MediaPeer`)."""
        self._track.stop()
        self._track.output_changed()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            # aiortc waits for its own tasks. They may have been cancelled before, and the call's place must be freed.
            logger.warning("a connection over WebRTC did not close within %g s", CLOSE_S)

    def _open(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel:
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._listener.message)
        channel.on("close", self._listener.closed)
        self._listener.opened()

    def _state_changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._listener.closed()

    def _decode(self, packet: bytes) -> None:
        if pcm := self._decoder.decode(packet):
            self._listener.audio(pcm)


def connect(plan: PeerPlan) -> AiortcPeer:
    """Return a connection of aiortc (`peer.Connect`)."""
    return AiortcPeer(plan)
