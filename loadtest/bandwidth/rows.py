"""Measured against formula: one row for each session, direction and state of the conversation."""

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
"""How far measured and formula may be apart, in bytes and in packets."""

# A session's key is as long (deployments/transports/realtime_ws.py), and so are its ids.
_KEY = "0" * 12
# Clocks of one machine, read by two programs.
_AHEAD_S = 0.001


@dataclass(frozen=True, slots=True)
class DirectionRow:
    """IP bytes and packets of one direction. `talking`: while somebody speaks in this direction; `conversation`: all.

    `seconds`: the time that the bytes are for. `measured` leaves TCP's pure acknowledgements out, as `formula` must.
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
        """Of whole IP packets, acknowledgements not included."""
        return kbps(self.measured.ip_bytes, self.seconds)

    @property
    def pps(self) -> float:
        return self.measured.packets / self.seconds

    @property
    def bytes_error(self) -> float:
        """How much more was measured than the formula says, as a share."""
        return self.measured.ip_bytes / self.formula.ip_bytes - 1

    @property
    def packets_error(self) -> float:
        return self.measured.packets / self.formula.packets - 1

    @property
    def ok(self) -> bool:
        return abs(self.bytes_error) <= TOLERANCE and abs(self.packets_error) <= TOLERANCE


@dataclass(frozen=True, slots=True)
class SessionKind:
    """One kind of session and its four rows."""

    transport: str
    name: str
    rows: tuple[DirectionRow, ...]

    def row(self, direction: Direction, state: State) -> DirectionRow:
        return next(row for row in self.rows if (row.direction, row.state) == (direction, state))

    def both_ways(self, state: State) -> NetworkLoad:
        """Bytes and packets a second in both directions together, acknowledgements included.

        Of `talking`: as if both spoke at once.
        """
        rows = [row for row in self.rows if row.state == state]
        return sum(((row.measured + row.acknowledgements) * (1 / row.seconds) for row in rows), NOTHING)

    @property
    def kbps(self) -> float:
        """Of an average second of the conversation, both directions, acknowledgements included."""
        return kbps(self.both_ways("conversation").ip_bytes, 1)


def call_session(call: BandwidthCall, packets: Iterable[Packet], server: str) -> SessionKind:
    """The rows of one call, out of all packets of the capture; `server`: its address."""
    own = [packet for packet in packets if call.port in (packet.source_port, packet.target_port)]
    up = [packet for packet in own if packet.source != server]
    down = [packet for packet in own if packet.source == server]
    whole = [(call.began, call.ended)]
    tcp = Tcp(tls=call.line.tls)
    # A packet is captured after its message was written and before it was read.
    half = call.line.message_ms / 2000
    said = [(start - _AHEAD_S, end - half) for start, end in call.spoken]
    answered = [(start - half, end) for start, end in call.heard]
    spoken_s = _audio_s(call, call.spoken)
    rows = (
        _row("up", state="talking", seconds=spoken_s, found=_within(up, said), formula=_uplink(call, tcp) * spoken_s),
        _row(
            "up",
            state="conversation",
            seconds=call.seconds,
            found=_within(up, whole),
            formula=_uplink(call, tcp) * _audio_s(call, whole),
        ),
        _row(
            "down",
            state="talking",
            seconds=call.heard_s,
            found=_within(down, answered),
            formula=_downlink(call, tcp, call.heard),
        ),
        _row(
            "down",
            state="conversation",
            seconds=call.seconds,
            found=_within(down, whole),
            formula=_downlink(call, tcp, whole),
        ),
    )
    return SessionKind("WebSocket, TLS" if call.line.tls else "WebSocket", call.line.name, rows)


def stream_session(
    stream: MediaStream, packets: Iterable[Packet], port: int, began: float, *, server: str
) -> SessionKind:
    """The rows of one media stream: the caller speaks in the first half of the time, the agent in the second."""
    own = [packet for packet in packets if packet.source_port == port]
    half, rtp = stream.seconds / 2, Rtp(stream.srtp, RTP_EXTENSIONS if stream.extensions else 0)
    rows = []
    for direction, coded, first in (("up", stream.up, True), ("down", stream.down, False)):
        mine = [packet for packet in own if (packet.source == server) is (direction == "down")]
        span = (began, began + half) if first else (began + half, began + stream.seconds)
        frames = len(coded) // 2
        spoken = coded[:frames] if first else coded[frames:]
        way: Direction = "up" if first else "down"
        rows.append(_row(way, state="talking", seconds=half, found=_within(mine, [span]), formula=_coded(rtp, spoken)))
        rows.append(
            _row(way, state="conversation", seconds=stream.seconds, found=traffic(mine), formula=_coded(rtp, coded))
        )
    return SessionKind("SRTP over UDP", stream.name, tuple(rows))


def delta_length(wire: AudioFormat, audio: int) -> int:
    """Characters of one `response.output_audio.delta` with so many bytes of audio, as our server writes it."""
    stamp = IdStamp(_KEY)
    events = ResponseEvents(stamp("resp"), stamp("item"), None, spoken=True, format=wire)
    event = {"event_id": stamp("event"), **events.audio_delta(b"")} | {"delta": ""}
    envelope = len(json.dumps(event, separators=(",", ":")))
    return envelope + base64_length(audio)


def append_length(wire: AudioFormat, milliseconds: float) -> int:
    """Characters of one `input_audio_buffer.append` with so much audio, as our caller writes it."""
    return len(APPEND % "") + base64_length(round(wire.rate * wire.sample_bytes * milliseconds / 1000))


def _uplink(call: BandwidthCall, tcp: Tcp) -> NetworkLoad:
    """A second of an open microphone."""
    line = call.line
    return tcp.message(append_length(line.wire, line.message_ms), masked=True) * (1000 / line.message_ms)


def _downlink(call: BandwidthCall, tcp: Tcp, spans: Sequence[tuple[float, float]]) -> NetworkLoad:
    """The answers: audio by the length of each delta, and the other events as they were counted, since their number
    and words are the dialogue's.
    """
    within = [message for message in call.received if any(start <= message.at <= end for start, end in spans)]
    lengths = (delta_length(call.line.wire, message.audio) if message.audio else message.length for message in within)
    return sum((tcp.message(length, masked=False) for length in lengths), NOTHING)


def _audio_s(call: BandwidthCall, spans: Sequence[tuple[float, float]]) -> float:
    """Seconds of audio that the microphone sent in these spans."""
    rate = call.line.wire.rate * call.line.wire.sample_bytes
    sent = (message for message in call.sent if any(start <= message.at < end - _AHEAD_S for start, end in spans))
    return sum(message.audio for message in sent) / rate


def _coded(rtp: Rtp, packets: Sequence[bytes]) -> NetworkLoad:
    """Packets of these payloads; what the encoder left out costs nothing."""
    return sum((rtp.packet(len(packet)) for packet in packets if packet), NOTHING)


def _within(packets: Iterable[Packet], spans: Sequence[tuple[float, float]]) -> CapturedTraffic:
    return traffic(packet for packet in packets if any(start <= packet.at <= end for start, end in spans))


def _row(
    direction: Direction, state: State, seconds: float, found: CapturedTraffic, *, formula: NetworkLoad
) -> DirectionRow:
    return DirectionRow(
        direction,
        state=state,
        seconds=seconds,
        payload_bytes=found.payload,
        measured=found.data,
        formula=formula,
        acknowledgements=found.acknowledgements,
    )
