"""Bytes and packets of a message or a media frame, computed from header sizes for a path with MTU 1500.

Header sizes in bytes, with the RFC that defines them:

- IPv4 (RFC 791) 20, IPv6 (RFC 8200) 40, UDP (RFC 768) 8.
- TCP (RFC 9293) 20, its timestamp option (RFC 7323) 12.
- A TLS 1.3 record (RFC 8446): header 5, content type 1, tag 16.
- A WebSocket frame (RFC 6455): header 2 to 10, and a client's mask 4.
- RTP (RFC 3550) 12. SRTP tag: HMAC-SHA1-80 (RFC 3711) 10, AES-GCM (RFC 7714) 16. TURN ChannelData (RFC 8656) 4.
- Ethernet adds 38 to every packet: header 14, check sequence 4, preamble 8, gap 12.

`NetworkLoad` counts whole IP packets, headers included. The formulas leave out handshakes, RTCP and ICE consent, as
published bandwidth tables do. They also leave out TCP's pure acknowledgements: those depend on the receiver's timers
and can only be measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

MTU = 1500
IPV4, IPV6 = 20, 40
UDP = 8
TCP, TCP_TIMESTAMPS = 20, 12
TLS_RECORD, TLS_RECORD_MAX = 22, 16_384
WEBSOCKET_MASK = 4
RTP = 12
RTP_EXTENSIONS = 12
"""Bytes of a typical browser's RTP header extensions: audio level, transport sequence number and mid (RFC 8285)."""
TURN_CHANNEL = 4
ETHERNET = 38


class Srtp(Enum):
    """SRTP protection profile. The value is the number of bytes that it adds to a packet."""

    NONE = 0
    HMAC_SHA1_80 = 10
    AEAD_AES_128_GCM = 16


@dataclass(frozen=True, slots=True)
class NetworkLoad:
    """A number of IP bytes (headers included) and a number of packets. Two loads can be added.

    A load can also be multiplied by a number.
    """

    ip_bytes: float = 0
    packets: float = 0

    def __add__(self, other: NetworkLoad) -> NetworkLoad:
        return NetworkLoad(self.ip_bytes + other.ip_bytes, self.packets + other.packets)

    def __mul__(self, times: float) -> NetworkLoad:
        return NetworkLoad(self.ip_bytes * times, self.packets * times)

    @property
    def ethernet_bytes(self) -> float:
        """Bytes on an Ethernet cable: preamble, header, check sequence and gap of every packet included."""
        return self.ip_bytes + self.packets * ETHERNET


NOTHING = NetworkLoad()


@dataclass(frozen=True, slots=True)
class Tcp:
    """Cost model of WebSocket messages over TCP. Each message is written at once (TCP_NODELAY).

    Attributes:
        tls: True if the stream is encrypted with TLS 1.3.
        ip: Bytes of the IP header: `IPV4` or `IPV6`.
    """

    tls: bool = False
    ip: int = IPV4

    @property
    def segment(self) -> int:
        """Maximum number of TCP payload bytes in one packet, for the MTU of 1500."""
        return MTU - self.ip - TCP - TCP_TIMESTAMPS

    def message(self, payload: int, *, masked: bool) -> NetworkLoad:
        """Return the load of one WebSocket message with `payload` bytes.

        Set `masked` for a message from the client: WebSocket masks only these, with 4 bytes more.
        """
        return self.write(websocket_frame(payload, masked=masked))

    def write(self, stream: int) -> NetworkLoad:
        """Return the load of `stream` bytes of WebSocket frames that are written to the TCP connection in one call."""
        if self.tls:
            stream += math.ceil(stream / TLS_RECORD_MAX) * TLS_RECORD
        packets = math.ceil(stream / self.segment)
        return NetworkLoad(stream + packets * (self.ip + TCP + TCP_TIMESTAMPS), packets)


def websocket_frame(payload: int, *, masked: bool) -> int:
    """Return the number of bytes of one WebSocket frame, unfragmented and uncompressed, with `payload` bytes inside."""
    header = 2 if payload < 126 else 4 if payload < 65_536 else 10
    return header + (WEBSOCKET_MASK if masked else 0) + payload


@dataclass(frozen=True, slots=True)
class Rtp:
    """Cost model of RTP media over UDP, one codec frame per packet.

    Attributes:
        srtp: Protection profile.
        extensions: Bytes of RTP header extensions.
        turn: True if the packets pass a TURN relay as ChannelData.
        ip: Bytes of the IP header: `IPV4` or `IPV6`.
    """

    srtp: Srtp = Srtp.HMAC_SHA1_80
    extensions: int = 0
    turn: bool = False
    ip: int = IPV4

    @property
    def overhead(self) -> int:
        """Number of bytes of every packet in addition to its payload: headers and SRTP tag."""
        return self.ip + UDP + RTP + self.extensions + self.srtp.value + (TURN_CHANNEL if self.turn else 0)

    def packet(self, payload: float) -> NetworkLoad:
        """Return the load of one packet with a codec frame of `payload` bytes."""
        return NetworkLoad(self.overhead + payload, 1)

    def constant(self, kbps: float, frame_ms: float) -> NetworkLoad:
        """Return the load of one second of audio at a bit rate of `kbps`, in frames of `frame_ms` milliseconds."""
        frames = 1000 / frame_ms
        return self.packet(kbps * 1000 / 8 / frames) * frames


def base64_length(size: int) -> int:
    """Return the number of base64 characters, padding included, for `size` bytes."""
    return 4 * math.ceil(size / 3)


def kbps(size: float, seconds: float) -> float:
    """Return the rate in kilobits per second if `size` bytes are sent in `seconds` seconds."""
    return size * 8 / 1000 / seconds
