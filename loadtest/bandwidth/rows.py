"""Measured traffic compared with the formula: one row per session, direction and state.

The state says which time the row covers: "talking" is the time in which the direction carries speech, "conversation" is
the whole call.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtest.bandwidth.caller import APPEND, BandwidthCall
from loadtest.bandwidth.capture import CapturedTraffic, Packet, traffic
from loadtest.bandwidth.formula import NOTHING, RTP_EXTENSIONS, NetworkLoad, Rtp, Tcp, base64_length, kbps
from loadtest.bandwidth.media import MediaStream
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.server import IdStamp, ResponseEvents

Direction = Literal["up", "down"]
State = Literal["talking", "conversation"]

TOLERANCE = 0.03
"""Maximum relative difference between measurement and formula, in bytes and in packets."""

# Placeholder for the session key in event ids. It is as long as a real key (deployments/transports/realtime_ws.py), so
# that computed event lengths are exact.
_KEY = "0" * 12
# Maximum difference in seconds between the times that the caller and dumpcap record for one message. Both read the same
# clock, but not at the same moment.
_CLOCK_TOLERANCE_S = 0.001


@dataclass(frozen=True, slots=True)
class DirectionRow:
    """IP bytes and packets of one direction, measured and by formula.

    Attributes:
        direction: "up" is caller to server, "down" is server to caller.
        state: "talking" is the time in which this direction carries speech, "conversation" is the whole call.
        seconds: Length of that time in seconds.
        payload_bytes: Measured number of bytes after the TCP or UDP headers.
        measured: Measured IP bytes and packets, without TCP's pure acknowledgements.
        formula: Computed IP bytes and packets. The formula does not cover pure acknowledgements.
        acknowledgements: Measured pure acknowledgements.
    """

    direction: Direction
    state: State
    seconds: float
    payload_bytes: int
    measured: NetworkLoad
    formula: NetworkLoad
    acknowledgements: NetworkLoad = NOTHING

    @property
    def kbps(self) -> float:
        """Measured rate in kilobits per second: IP packets with their headers, without acknowledgements."""
        return kbps(self.measured.ip_bytes, self.seconds)

    @property
    def pps(self) -> float:
        """Measured packets per second, without acknowledgements."""
        return self.measured.packets / self.seconds

    @property
    def bytes_error(self) -> float:
        """Relative difference in bytes: measured / formula - 1."""
        return self.measured.ip_bytes / self.formula.ip_bytes - 1

    @property
    def packets_error(self) -> float:
        """Relative difference in packets: measured / formula - 1."""
        return self.measured.packets / self.formula.packets - 1

    @property
    def ok(self) -> bool:
        """True if bytes and packets are both within `TOLERANCE` of the formula."""
        return abs(self.bytes_error) <= TOLERANCE and abs(self.packets_error) <= TOLERANCE


@dataclass(frozen=True, slots=True)
class SessionKind:
    """Traffic of one measured kind of session.

    Attributes:
        transport: Name of the transport, such as `WebSocket, TLS` or `SRTP over UDP`.
        name: Label of the audio format in tables.
        rows: Four rows: "up" and "down", each while "talking" and over the whole "conversation".
    """

    transport: str
    name: str
    rows: tuple[DirectionRow, ...]

    def row(self, direction: Direction, state: State) -> DirectionRow:
        """Return the row of a direction ("up" or "down") and a state ("talking" or "conversation")."""
        return next(row for row in self.rows if (row.direction, row.state) == (direction, state))

    def both_ways(self, state: State) -> NetworkLoad:
        """Return IP bytes and packets per second of both directions together, with acknowledgements.

        For the state "talking", this is the load while both sides speak at the same time. For "conversation", it is the
        mean over the whole call.
        """
        rows = [row for row in self.rows if row.state == state]
        return sum(((row.measured + row.acknowledgements) * (1 / row.seconds) for row in rows), NOTHING)

    @property
    def kbps(self) -> float:
        """Mean rate of the conversation in kilobits per second: both directions, with acknowledgements."""
        return kbps(self.both_ways("conversation").ip_bytes, 1)


def call_session(call: BandwidthCall, packets: Iterable[Packet], server: str) -> SessionKind:
    """Return the traffic of one call, measured and by formula.

    Args:
        call: Log of the call.
        packets: The complete capture, which may also contain other calls.
        server: The server's IPv4 address.
    """
    own = [packet for packet in packets if call.port in (packet.source_port, packet.target_port)]
    up = [packet for packet in own if packet.source != server]
    down = [packet for packet in own if packet.source == server]
    whole = [(call.began, call.ended)]
    tcp = Tcp(tls=call.path.tls)
    # The capture sees a packet after the sender wrote its message and before the receiver reads it. `spoken` ends when
    # the next message is due, and `heard` begins when the first event is read. Moving both times half a message earlier
    # keeps exactly the packets of the sentence or answer between start and end.
    half = call.path.message_ms / 2000
    speech_spans = [(start - _CLOCK_TOLERANCE_S, end - half) for start, end in call.spoken]
    answer_spans = [(start - half, end) for start, end in call.heard]
    spoken_s = _audio_s(call, call.spoken)
    rows = (
        _row(
            "up",
            state="talking",
            seconds=spoken_s,
            captured=_within(up, speech_spans),
            formula=_uplink(call, tcp) * spoken_s,
        ),
        _row(
            "up",
            state="conversation",
            seconds=call.seconds,
            captured=_within(up, whole),
            formula=_uplink(call, tcp) * _audio_s(call, whole),
        ),
        _row(
            "down",
            state="talking",
            seconds=call.heard_s,
            captured=_within(down, answer_spans),
            formula=_downlink(call, tcp, call.heard),
        ),
        _row(
            "down",
            state="conversation",
            seconds=call.seconds,
            captured=_within(down, whole),
            formula=_downlink(call, tcp, whole),
        ),
    )
    return SessionKind("WebSocket, TLS" if call.path.tls else "WebSocket", call.path.name, rows)


def stream_session(
    stream: MediaStream, packets: Iterable[Packet], port: int, began: float, *, server: str
) -> SessionKind:
    """Return the traffic of one media stream, measured and by formula.

    The caller speaks in the first half of the stream, the agent in the second.

    Args:
        stream: The stream that was sent.
        packets: The complete capture, which may also contain other streams.
        port: The stream's UDP port.
        began: Start of sending, in seconds since the Unix epoch.
        server: The server's IPv4 address.
    """
    own = [packet for packet in packets if packet.source_port == port]
    half, rtp = stream.seconds / 2, Rtp(stream.srtp, RTP_EXTENSIONS if stream.extensions else 0)
    rows = []
    for direction, coded, first in (("up", stream.up, True), ("down", stream.down, False)):
        mine = [packet for packet in own if (packet.source == server) is (direction == "down")]
        span = (began, began + half) if first else (began + half, began + stream.seconds)
        frames = len(coded) // 2
        spoken = coded[:frames] if first else coded[frames:]
        way: Direction = "up" if first else "down"
        rows.append(
            _row(way, state="talking", seconds=half, captured=_within(mine, [span]), formula=_coded(rtp, spoken))
        )
        rows.append(
            _row(way, state="conversation", seconds=stream.seconds, captured=traffic(mine), formula=_coded(rtp, coded))
        )
    return SessionKind("SRTP over UDP", stream.name, tuple(rows))


def delta_length(wire: AudioFormat, audio: int) -> int:
    """Return the number of characters of Rejoinder's `response.output_audio.delta` event.

    The event contains `audio` bytes of audio in the format `wire`, base64-encoded.
    """
    stamp = IdStamp(_KEY)
    events = ResponseEvents(stamp("resp"), stamp("item"), None, spoken=True, format=wire)
    event = {"event_id": stamp("event"), **events.audio_delta(b"")} | {"delta": ""}
    envelope = len(json.dumps(event, separators=(",", ":")))
    return envelope + base64_length(audio)


def append_length(wire: AudioFormat, milliseconds: float) -> int:
    """Return the number of characters of an `input_audio_buffer.append` event with `milliseconds` of audio."""
    return len(APPEND % "") + base64_length(round(wire.rate * wire.sample_bytes * milliseconds / 1000))


def _uplink(call: BandwidthCall, tcp: Tcp) -> NetworkLoad:
    """Return the load, by formula, of the messages that carry one second of audio from the caller."""
    path = call.path
    return tcp.message(append_length(path.wire, path.message_ms), masked=True) * (1000 / path.message_ms)


def _downlink(call: BandwidthCall, tcp: Tcp, spans: Sequence[tuple[float, float]]) -> NetworkLoad:
    """Return the load, by formula, of the server's events that arrived within the (start, end) times `spans`.

    The length of an audio delta is computed from its audio. The other events keep their measured length, because their
    number and text depend on the dialogue.
    """
    within = [message for message in call.received if any(start <= message.at <= end for start, end in spans)]
    lengths = (delta_length(call.path.wire, message.audio) if message.audio else message.length for message in within)
    return sum((tcp.message(length, masked=False) for length in lengths), NOTHING)


def _audio_s(call: BandwidthCall, spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds of audio that the caller sent within the (start, end) times `spans`."""
    rate = call.path.wire.rate * call.path.wire.sample_bytes
    sent = (
        message for message in call.sent if any(start <= message.at < end - _CLOCK_TOLERANCE_S for start, end in spans)
    )
    return sum(message.audio for message in sent) / rate


def _coded(rtp: Rtp, packets: Sequence[bytes]) -> NetworkLoad:
    """Return the load, by formula, of RTP packets with the payloads `packets`. An empty payload means no packet."""
    return sum((rtp.packet(len(packet)) for packet in packets if packet), NOTHING)


def _within(packets: Iterable[Packet], spans: Sequence[tuple[float, float]]) -> CapturedTraffic:
    return traffic(packet for packet in packets if any(start <= packet.at <= end for start, end in spans))


def _row(
    direction: Direction, state: State, seconds: float, captured: CapturedTraffic, *, formula: NetworkLoad
) -> DirectionRow:
    return DirectionRow(
        direction,
        state=state,
        seconds=seconds,
        payload_bytes=captured.payload,
        measured=captured.data,
        formula=formula,
        acknowledgements=captured.acknowledgements,
    )
