"""The computed sizes of packets and messages, with all headers, match the RFCs and published tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bandwidth.formula import (
    ETHERNET,
    IPV6,
    RTP_EXTENSIONS,
    NetworkLoad,
    Rtp,
    Srtp,
    Tcp,
    base64_length,
    kbps,
    websocket_frame,
)

EXT = RTP_EXTENSIONS


@pytest.mark.parametrize(
    ("rtp", "payload", "size"),
    [
        # (headers in use, payload bytes, IP packet bytes). The payloads are frames of 20 ms: Opus at 12, 24 and 32 kbps
        # (30, 60 and 80 bytes), and G.711 (160). The packet sizes are added up by hand from the RFCs' header sizes.
        (Rtp(extensions=EXT), 30, 92),
        (Rtp(extensions=EXT), 60, 122),
        (Rtp(), 80, 130),
        (Rtp(extensions=EXT), 80, 142),
        (Rtp(Srtp.AEAD_AES_128_GCM, EXT), 80, 148),
        (Rtp(extensions=EXT, ip=IPV6), 80, 162),
        (Rtp(extensions=EXT, turn=True), 80, 146),
        (Rtp(Srtp.NONE), 160, 200),
        (Rtp(), 160, 210),
    ],
)
def test_media_packets(rtp: Rtp, payload: int, size: int) -> None:
    """The computed size in bytes of a media packet is its payload plus each header in use, from RTP to IP."""
    assert rtp.packet(payload) == NetworkLoad(size, 1)


@pytest.mark.parametrize(
    ("payload", "size", "packets"),
    [
        # (payload bytes, IP bytes with all headers, IP packets), added up by hand from the RFCs' header sizes. The
        # payloads are 16-bit PCM of 20 ms at 16 kHz, of 60 ms at 16 kHz and of 20 ms at 24 kHz, and an Opus frame.
        (640, 722, 1),
        (1920, 2054, 2),
        (960, 1042, 1),
        (80, 160, 1),
    ],
)
def test_messages_of_a_client_over_tls(payload: int, size: int, packets: int) -> None:
    """The load of a client's WebSocket message is its payload plus the headers.

    The frame header, the mask and the TLS record are added once, the TCP and IP headers once per packet.
    """
    assert Tcp(tls=True).message(payload, masked=True) == NetworkLoad(size, packets)


@pytest.mark.parametrize(("payload", "plain"), [(0, 2), (125, 127), (126, 130), (65_535, 65_539), (65_536, 65_546)])
def test_frame_headers(payload: int, plain: int) -> None:
    """A WebSocket frame header has 2 bytes, 4 for payloads from 126 bytes, and 10 from 64 KiB.

    A client's mask adds 4 bytes.
    """
    assert websocket_frame(payload, masked=False) == plain
    assert websocket_frame(payload, masked=True) == plain + 4


def test_a_full_segment_is_a_full_packet() -> None:
    """1448 bytes of a TCP stream fill a packet of 1500 bytes. One more byte needs another packet."""
    assert Tcp().write(1448) == NetworkLoad(1500, 1)
    assert Tcp().write(1449) == NetworkLoad(1449 + 2 * 52, 2)
    assert Tcp(ip=IPV6).write(1428) == NetworkLoad(1500, 1)


@given(st.integers(0, 200_000))
def test_no_packet_exceeds_the_mtu(stream: int) -> None:
    """Any number of bytes is sent in full packets, of which only the last may be smaller."""
    load = Tcp(tls=True).write(stream)
    assert (load.packets - 1) * 1500 < load.ip_bytes <= load.packets * 1500 or load.packets == 0


def test_a_constant_codec() -> None:
    """Opus at 24 kbps in 20 ms frames over SRTP is 60 bytes of payload plus 50 of headers, 50 times per second."""
    second = Rtp().constant(24, 20)
    assert (kbps(second.ip_bytes, 1), second.packets) == (44.0, 50)


def test_ethernet_adds_to_every_packet() -> None:
    """The bytes on Ethernet are the IP bytes plus `ETHERNET` bytes per packet, for header, checksum, preamble and gap.

    Sums and multiples of loads add up bytes and packets.
    """
    assert (NetworkLoad(1000, 10) + NetworkLoad(500, 5)).ethernet_bytes == 1500 + 15 * ETHERNET
    assert (NetworkLoad(10, 1) * 3) == NetworkLoad(30, 3)


@given(st.binary(max_size=400))
def test_base64(data: bytes) -> None:
    """The computed length of base64 text equals the length of the real encoding."""
    import base64

    assert base64_length(len(data)) == len(base64.b64encode(data))
