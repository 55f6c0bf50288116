"""Bytes and packets by header arithmetic: what a message or a media frame costs on a path of MTU 1500.

Sizes are the protocols' own: IPv4 (RFC 791) 20 bytes, IPv6 (8200) 40, UDP (768) 8, TCP (9293) 20 and its timestamps
(7323) 12, a TLS 1.3 record (8446) 5 of header, 1 of content type and 16 of tag, a WebSocket frame (6455) 2 to 10 and
a client's mask 4, RTP (3550) 12, SRTP's HMAC-SHA1-80 tag (3711) 10 or AES-GCM's (7714) 16, TURN ChannelData (8656) 4.
Ethernet adds 38 to every packet: header 14, check sequence 4, preamble 8, gap 12.

`NetworkLoad` counts whole IP packets, headers included. Left out, as in every bandwidth table: handshakes, RTCP, ICE
consent,
and TCP's pure acknowledgements, which depend on the receiver's timers and are measured only.
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
"""One block of one-byte extensions (audio level, transport sequence number, mid): typical of a browser."""
TURN_CHANNEL = 4
ETHERNET = 38


class Srtp(Enum):
    """The protection of media, and the bytes that it adds to a packet."""

    NONE = 0
    HMAC_SHA1_80 = 10
    AEAD_AES_128_GCM = 16


@dataclass(frozen=True, slots=True)
class NetworkLoad:
    """IP bytes (headers included) and packets; adds up, and scales by a count."""

    ip_bytes: float = 0
    packets: float = 0

    def __add__(self, other: NetworkLoad) -> NetworkLoad:
        return NetworkLoad(self.ip_bytes + other.ip_bytes, self.packets + other.packets)

    def __mul__(self, times: float) -> NetworkLoad:
        return NetworkLoad(self.ip_bytes * times, self.packets * times)

    @property
    def ethernet_bytes(self) -> float:
        """On a cable: preamble, header, check sequence and gap of every packet included."""
        return self.ip_bytes + self.packets * ETHERNET


NOTHING = NetworkLoad()


@dataclass(frozen=True, slots=True)
class Tcp:
    """WebSocket messages over TCP, each written by itself (TCP_NODELAY)."""

    tls: bool = False
    ip: int = IPV4

    @property
    def segment(self) -> int:
        """Most bytes of stream in one packet."""
        return MTU - self.ip - TCP - TCP_TIMESTAMPS

    def message(self, payload: int, *, masked: bool) -> NetworkLoad:
        """One text or binary message of `payload` bytes; clients mask, servers do not."""
        return self.write(websocket_frame(payload, masked=masked))

    def write(self, stream: int) -> NetworkLoad:
        """So many bytes of WebSocket frames, written at once."""
        if self.tls:
            stream += math.ceil(stream / TLS_RECORD_MAX) * TLS_RECORD
        packets = math.ceil(stream / self.segment)
        return NetworkLoad(stream + packets * (self.ip + TCP + TCP_TIMESTAMPS), packets)


def websocket_frame(payload: int, *, masked: bool) -> int:
    """Bytes of one unfragmented, uncompressed frame."""
    header = 2 if payload < 126 else 4 if payload < 65_536 else 10
    return header + (WEBSOCKET_MASK if masked else 0) + payload


@dataclass(frozen=True, slots=True)
class Rtp:
    """Media over UDP, one frame a packet."""

    srtp: Srtp = Srtp.HMAC_SHA1_80
    extensions: int = 0
    turn: bool = False
    ip: int = IPV4

    @property
    def overhead(self) -> int:
        """Bytes of every packet beside its payload."""
        return self.ip + UDP + RTP + self.extensions + self.srtp.value + (TURN_CHANNEL if self.turn else 0)

    def packet(self, payload: float) -> NetworkLoad:
        """One frame of `payload` coded bytes."""
        return NetworkLoad(self.overhead + payload, 1)

    def constant(self, kbps: float, frame_ms: float) -> NetworkLoad:
        """A second of a codec at a constant rate."""
        frames = 1000 / frame_ms
        return self.packet(kbps * 1000 / 8 / frames) * frames


def base64_length(size: int) -> int:
    """Characters of standard base64 with padding."""
    return 4 * math.ceil(size / 3)


def kbps(size: float, seconds: float) -> float:
    """Kilobits a second."""
    return size * 8 / 1000 / seconds
