"""Tests of the bandwidth rows, which compare captured network traffic with the traffic computed by a formula.

A row counts only the packets of its session, direction and state ("talking" or "conversation"). It fails if bytes or
packets differ by more than 3%. The message lengths in the formula are those that are really sent.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from actors.replying.response import Response
from deployments.transports.realtime_ws import encode
from loadtest.bandwidth.caller import APPEND, AudioPath, BandwidthCall, WireMessage, messages
from loadtest.bandwidth.capture import Packet, traffic
from loadtest.bandwidth.formula import NetworkLoad, Rtp, Tcp
from loadtest.bandwidth.media import MediaStream
from loadtest.bandwidth.rows import DirectionRow, append_length, call_session, delta_length, stream_session
from loadtest.bandwidth.speech import room_noise
from rejoinder.core.wire import client
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Conversation
from rejoinder.core.wire.server import IdStamp, ResponseEvents

SERVER, CALLER = "10.203.0.2", "10.203.0.1"
every_format = pytest.mark.parametrize("wire", list(AudioFormat), ids=lambda wire: wire.name)


def packet(at: float, source: str = CALLER, ip_bytes: int = 152, port: int = 5000) -> Packet:
    """Return a TCP packet between caller and server, captured at the time `at` in seconds.

    `source` is the address of its sender. `ip_bytes` is its size, of which 52 bytes are headers. A packet of 52 bytes
    is an acknowledgement. `port` is the caller's port.
    """
    ends = (port, 8000) if source == CALLER else (8000, port)
    payload = ip_bytes - 52
    return Packet(at, source, *ends, ip_bytes, payload, acknowledgement=payload == 0)


class RecordingChannel:
    """A fake of a session's event channel that records events. Ids have the length of a real session's ids."""

    def __init__(self, stamp: IdStamp) -> None:
        self.conversation = Conversation()
        self.events: list[Json] = []
        self.output = None
        self._stamp = stamp

    def emit(self, event: Json) -> None:
        self.events.append({"event_id": self._stamp("event"), **event})


@every_format
def test_the_length_of_a_delta_is_exact(wire: AudioFormat) -> None:
    """`delta_length` equals the length of the event with which Rejoinder sends 100 ms of audio."""
    stamp = IdStamp("0123456789ab")
    channel = RecordingChannel(stamp)
    events = ResponseEvents(stamp("resp"), stamp("item"), "conv", spoken=True, format=wire)
    Response(events, channel).audio(bytes(4800))
    delta = next(event for event in channel.events if event["type"] == "response.output_audio.delta")
    assert len(encode(delta)) == delta_length(wire, len(delta["delta"]))


@every_format
@pytest.mark.parametrize("milliseconds", [20, 100])
def test_the_length_of_an_append_is_exact(wire: AudioFormat, milliseconds: int) -> None:
    """`append_length` equals the length of the caller's message, from which the server reads the same audio."""
    path = AudioPath(wire, milliseconds)
    for audio in messages(path, room_noise(1, wire.rate)):
        text = APPEND % base64.b64encode(audio).decode()
        assert len(text) == append_length(wire, milliseconds)
        event = client.parse(text)
        assert isinstance(event, client.AppendAudio)
        assert event.audio == audio
        assert json.loads(text)["type"] == "input_audio_buffer.append"


def test_acknowledgements_and_handshakes_are_kept_apart() -> None:
    """Pure acknowledgements are counted separately. Packets that open or close a connection are not counted."""
    opening = replace(packet(0, ip_bytes=60), handshake=True, acknowledgement=False, payload=0)
    found = traffic([packet(1), packet(2), packet(2, ip_bytes=52), opening])
    assert (found.data, found.payload, found.acknowledgements) == (NetworkLoad(304, 2), 200, NetworkLoad(52, 1))
    assert found.all == NetworkLoad(356, 3)


@pytest.mark.parametrize(
    ("measured", "formula", "ok"),
    [
        (NetworkLoad(1000, 10), NetworkLoad(1000, 10), True),
        (NetworkLoad(1029, 10), NetworkLoad(1000, 10), True),
        (NetworkLoad(1031, 10), NetworkLoad(1000, 10), False),
        (NetworkLoad(969, 10), NetworkLoad(1000, 10), False),
        (NetworkLoad(1000, 104), NetworkLoad(1000, 100), False),
    ],
)
def test_three_percent_in_bytes_and_in_packets(measured: NetworkLoad, formula: NetworkLoad, ok: bool) -> None:
    """A row's `ok` is false if measured bytes or packets differ from the formula by more than 3%, above or below."""
    assert DirectionRow("up", state="talking", seconds=1, payload_bytes=0, measured=measured, formula=formula).ok is ok


def _call() -> tuple[BandwidthCall, list[Packet]]:
    """Return a G.711 call of two seconds and its captured packets.

    The caller speaks for one second, then the server answers for half a second.
    """
    path = AudioPath(AudioFormat.PCMU, 100)
    size = append_length(path.wire, 100)
    call = BandwidthCall(path, port=5000, began=10.0, ended=12.0, spoken=[(10.0, 11.0)], heard=[(11.0, 11.5)])
    call.sent = [WireMessage(10 + n / 10, size, 800) for n in range(20)]
    call.received = [WireMessage(11 + n / 10, delta_length(path.wire, 800), 800) for n in range(5)]
    up = Tcp().message(size, masked=True).ip_bytes
    down = Tcp().message(delta_length(path.wire, 800), masked=False).ip_bytes
    packets = [packet(10.001 + n / 10, ip_bytes=int(up)) for n in range(20)]
    packets += [packet(11.001 + n / 10, SERVER, int(down)) for n in range(5)]
    packets += [packet(10.002 + n / 10, SERVER, 52) for n in range(20)]
    return call, packets


def test_the_rows_of_a_call() -> None:
    """Each direction of a call has two rows: "talking" (while its side speaks) and "conversation" (the whole call).

    Other calls' packets do not count. Packets that match the formula give an error of 0.
    """
    call, packets = _call()
    others = [replace(one, source_port=7000, target_port=7001) for one in packets]
    session = call_session(call, packets + others, SERVER)
    assert all(abs(row.bytes_error) < 1e-9 and abs(row.packets_error) < 1e-9 for row in session.rows)
    talking, whole = session.row("up", "talking"), session.row("up", "conversation")
    assert (talking.measured.packets, whole.measured.packets) == (10, 20)
    assert talking.kbps == pytest.approx(whole.kbps)
    heard, quiet = session.row("down", "talking"), session.row("down", "conversation")
    assert (heard.seconds, quiet.seconds) == (0.5, 2.0)
    assert heard.kbps == pytest.approx(4 * quiet.kbps)
    assert quiet.acknowledgements == NetworkLoad(20 * 52, 20)
    both = whole.measured.ip_bytes + quiet.measured.ip_bytes + 20 * 52
    assert session.kbps == pytest.approx(both * 8 / 1000 / 2)


def test_a_missing_packet_is_an_error_of_the_row() -> None:
    """The caller's "talking" row fails if the packet of one of its ten messages is not in the capture."""
    call, packets = _call()
    assert not call_session(call, packets[1:], SERVER).row("up", "talking").ok


def test_the_rows_of_a_media_stream() -> None:
    """In a media stream, frames that were not sent (empty) add no packets to the formula.

    The caller speaks in the first half and the agent in the second, so the caller's rate over the whole call is half
    of its rate while it speaks.
    """
    up = [b"x" * 60] * 50 + [b""] * 50
    down = [b""] * 50 + [b"y" * 40] * 50
    stream = MediaStream("s", 20, up, down)
    packets = [
        Packet(10.001 + n / 50, source=CALLER, source_port=20_000, target_port=20_000, ip_bytes=110, payload=82)
        for n in range(50)
    ]
    packets += [
        Packet(11.001 + n / 50, source=SERVER, source_port=20_000, target_port=20_000, ip_bytes=90, payload=62)
        for n in range(50)
    ]
    session = stream_session(stream, packets=packets, port=20_000, began=10.0, server=SERVER)
    assert all(row.bytes_error == row.packets_error == 0 for row in session.rows)
    assert session.row("up", "talking").kbps == pytest.approx(44)
    assert session.row("up", "conversation").kbps == pytest.approx(22)
    assert session.row("down", "talking").kbps == pytest.approx(36)
    assert session.both_ways("conversation").packets == pytest.approx(50)
    assert Rtp().overhead == 50
