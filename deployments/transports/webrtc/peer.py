"""Protocols between a call over WebRTC and the library that connects it, so that the library can be exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rejoinder.core.audio.output_buffer import OutputBuffer
from rejoinder.core.settings.access.webrtc import WebRtcSettings
from rejoinder.core.wire.sdp import OfferedCall

CHANNEL = "oai-events"
"""Label of the data channel with the events, which OpenAI's clients open."""


class PeerListener(Protocol):
    """Receives what the client's end of a call does. The peer calls the methods, and none may block."""

    def opened(self) -> None:
        """Called when the channel for events is open."""
        ...

    def message(self, text: str | bytes) -> None:
        """Called with each message of the client on that channel."""
        ...

    def audio(self, pcm: bytes) -> None:
        """Called with the client's audio, 16-bit PCM at 48 kHz, mono."""
        ...

    def closed(self) -> None:
        """Called when the connection or the channel is closed, by the client or because no path works any more."""
        ...


class MediaPeer(Protocol):
    """The server's end of one connection. Not thread-safe."""

    async def answer(self) -> str:
        """Gather the addresses of this end and return the answer to the offer (SDP).

        Raises:
            CallerError: The library cannot use the offer.
        """
        ...

    def send(self, text: str) -> None:
        """Queue an event for the client. Nothing happens if the channel is not open."""
        ...

    def output_changed(self) -> None:
        """Tell the sender that audio was added to the output, or that it was cleared."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Size of the events that wait to be sent."""
        ...

    @property
    def max_event_bytes(self) -> int:
        """Maximum size of one event that the client accepts."""
        ...

    @property
    def packets_received(self) -> int:
        """Number of packets that the client has sent: audio, events and reports."""
        ...

    @property
    def round_trip_s(self) -> float | None:
        """Smoothed round-trip time to the client in seconds; None until the client has reported on our audio."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """What a connection is made from.

    Attributes:
        offer: The client's session description.
        offered: What the offer says.
        settings: Addresses, ports and encoder.
        output: Audio to send, at the time when it is due.
        listener: Is told what happens.
    """

    offer: str
    offered: OfferedCall
    settings: WebRtcSettings
    output: OutputBuffer
    listener: PeerListener


Connect = Callable[[PeerPlan], MediaPeer]
"""Function that makes a connection."""
