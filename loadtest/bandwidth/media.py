"""Send media streams over a virtual Ethernet pair: SRTP in real time, both directions, one UDP port per stream.

All streams run at the same time in one loop that sends at fixed deadlines. The other end receives and decrypts every
packet, so that only packets which a listener could play are counted.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pylibsrtp import Policy, Session

from loadtest.bandwidth.formula import RTP_EXTENSIONS, Srtp
from loadtest.bandwidth.netns import Pair, Side
from rejoinder.core.errors import BackendError

FIRST_PORT = 20_000
_PROFILES = {
    Srtp.HMAC_SHA1_80: (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    Srtp.AEAD_AES_128_GCM: (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
}
_OPUS_CLOCK = 48_000
_PAYLOAD_TYPE = 111
_VERSION, _EXTENSION_BIT = 0x80, 0x10
# Block of RTP header extensions (RFC 8285): marker of the one-byte form, length in 32-bit words, and empty words.
_EXTENSIONS = struct.pack("!HH", 0xBEDE, (RTP_EXTENSIONS - 4) // 4) + bytes(RTP_EXTENSIONS - 4)
_TICK_S = 0.02
# Wait in seconds after the end of sending, so that the last packets arrive.
_DRAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class MediaStream:
    """Encoded audio of one session in both directions.

    Attributes:
        name: Label in tables. Unique among the streams that are sent together.
        frame_ms: Frame length in milliseconds, a multiple of 20.
        up: The caller's packets, one per frame. b"" means that no packet is sent for the frame.
        down: The agent's packets, in the same form.
        srtp: Protection profile.
        extensions: True if the packets have the RTP header extensions of a typical browser.
    """

    name: str
    frame_ms: int
    up: Sequence[bytes]
    down: Sequence[bytes]
    srtp: Srtp = Srtp.HMAC_SHA1_80
    extensions: bool = False

    @property
    def seconds(self) -> float:
        """Length of the stream in seconds."""
        return len(self.up) * self.frame_ms / 1000


class _Flow:
    """One direction of a media stream: its sender, its receiver, and the number of packets sent and received."""

    def __init__(
        self, source: socket.socket, target: socket.socket, stream: MediaStream, packets: Sequence[bytes]
    ) -> None:
        self.receiver = target
        self.sent = self.received = 0
        self._source, self._packets, self._stream = source, packets, stream
        profile, key_length = _PROFILES[stream.srtp]
        key = os.urandom(key_length)
        self._protect = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self._open = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))

    def send(self, tick: int) -> None:
        """Send the packet that is due in the 20 ms period number `tick`, if there is one."""
        number, rest = divmod(tick * round(_TICK_S * 1000), self._stream.frame_ms)
        if rest or number >= len(self._packets) or not self._packets[number]:
            return
        stamp = number * self._stream.frame_ms * _OPUS_CLOCK // 1000
        first = _VERSION | (_EXTENSION_BIT if self._stream.extensions else 0)
        # A frame that is not sent gets no sequence number. Its absence shows in the time stamp (RFC 7587, section 4.2).
        header = struct.pack("!BBHII", first, _PAYLOAD_TYPE, self.sent & 0xFFFF, stamp & 0xFFFFFFFF, 1)
        body = (_EXTENSIONS if self._stream.extensions else b"") + self._packets[number]
        self._source.send(self._protect.protect(header + body))
        self.sent += 1

    def receive(self) -> None:
        """Receive and decrypt one packet.

        Raises pylibsrtp's error if the packet was not encrypted with the sender's key.
        """
        self._open.unprotect(self.receiver.recv(2048))
        self.received += 1


def send_streams(pair: Pair, streams: Sequence[MediaStream]) -> dict[str, tuple[int, float, float]]:
    """Send all streams at the same time, in real time, and wait for the last packet.

    Returns:
        (UDP port, start of sending, end of sending) of each stream, by its name. Times are in seconds since the Unix
        epoch.

    Raises:
        BackendError: A packet did not arrive, or the network refused a socket operation.
    """
    sockets: list[socket.socket] = []
    flows: list[_Flow] = []
    try:
        for number, stream in enumerate(streams):
            port = FIRST_PORT + number
            caller, server = _bound(pair.caller, port, sockets), _bound(pair.server, port, sockets)
            caller.connect((pair.server.address, port))
            server.connect((pair.caller.address, port))
            flows += [_Flow(caller, server, stream, stream.up), _Flow(server, caller, stream, stream.down)]
        began, ended = _run(flows, max(stream.seconds for stream in streams))
    except OSError as error:
        raise BackendError(f"media could not be sent over the network pair ({error}).", stage="srtp") from None
    finally:
        for each in sockets:
            each.close()
    lost = sum(flow.sent - flow.received for flow in flows)
    if lost:
        raise BackendError(
            f"{lost} media packets were lost.", "Run again while the machine is otherwise idle.", stage="srtp"
        )
    return {stream.name: (FIRST_PORT + number, began, ended) for number, stream in enumerate(streams)}


def _bound(side: Side, port: int, sockets: list[socket.socket]) -> socket.socket:
    sock = side.socket(socket.SOCK_DGRAM)
    sockets.append(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    sock.bind((side.address, port))
    return sock


def _run(flows: Sequence[_Flow], seconds: float) -> tuple[float, float]:
    """Send the packets of all flows at their deadlines for `seconds`, while a thread receives them.

    Return (start, end) of sending in seconds since the Unix epoch.
    """
    done = threading.Event()
    receiver = threading.Thread(target=_receive, args=(flows, done))
    receiver.start()
    try:
        began, start = time.time(), time.monotonic()
        for tick in range(round(seconds / _TICK_S)):
            time.sleep(max(0.0, start + tick * _TICK_S - time.monotonic()))
            for flow in flows:
                flow.send(tick)
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        return began, time.time()
    finally:
        time.sleep(_DRAIN_S)
        done.set()
        receiver.join()


def _receive(flows: Sequence[_Flow], done: threading.Event) -> None:
    with selectors.DefaultSelector() as selector:
        for flow in flows:
            selector.register(flow.receiver, selectors.EVENT_READ, flow)
        while not done.is_set():
            for key, _ in selector.select(0.1):
                key.data.receive()
