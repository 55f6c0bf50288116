"""On a real pair of namespaces: what is captured is what was sent, with the product's own server at one end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from loadtest.bandwidth import media, opus
from loadtest.bandwidth.caller import AudioPath
from loadtest.bandwidth.calls import exchange
from loadtest.bandwidth.capture import capturing, traffic
from loadtest.bandwidth.formula import NetworkLoad, Srtp
from loadtest.bandwidth.netns import Pair, Side, missing, pair
from loadtest.bandwidth.opus import OpusSettings
from loadtest.bandwidth.rows import call_session, stream_session
from loadtest.bandwidth.speech import agent_side, caller_side
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.wire.formats import AudioFormat

netns = pytest.mark.netns


@pytest.fixture
def cable() -> Iterator[Pair]:
    with pair() as made:
        yield made


def _namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and without a tool nothing is made, and the error names both, with the tool's package."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "tshark" else f"/usr/bin/{tool}")
    assert missing() == ["root", "tshark (Debian package tshark)"]
    with pytest.raises(ConfigError, match="need root, tshark"), pair():
        raise AssertionError("made all the same")


@netns
def test_a_pair_is_a_plain_cable_and_leaves_nothing_behind() -> None:
    """MTU 1500 and no segmentation offload at either end; both namespaces are gone afterwards, even after a fault."""
    sides: list[Side] = []
    with pytest.raises(ZeroDivisionError):
        _make_and_fail(sides)
    assert len(sides) == 2
    assert not any(side.namespace in _namespaces() for side in sides)


def _make_and_fail(sides: list[Side]) -> None:
    """A plain cable, and then a fault."""
    with pair() as cable:
        sides += [cable.caller, cable.server]
        for side in sides:
            assert _said(side, "cat", f"/sys/class/net/{side.interface}/mtu").strip() == "1500"
            features = _said(side, "ethtool", "-k", side.interface)
            assert "tcp-segmentation-offload: off" in features
            assert "generic-receive-offload: off" in features
            assert side.namespace in _namespaces()
        raise ZeroDivisionError


def _said(side: Side, *command: str) -> str:
    return subprocess.run(side.command(*command), check=True, capture_output=True, text=True).stdout


@netns
def test_what_a_killed_run_left_is_removed() -> None:
    """A namespace of ours whose maker is gone does not outlast the next pair; others' are not touched."""
    dead, foreign = "rejoinder-4194305-caller", f"unrelated-{os.getpid()}"
    for name in (dead, foreign):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with pair():
            found = _namespaces()
        assert dead not in found
        assert foreign in found
    finally:
        subprocess.run(["ip", "netns", "delete", foreign], check=True)


@netns
def test_packets_are_counted_as_they_cross(cable: Pair) -> None:
    """Datagrams of known sizes are captured one for one, with their IP headers and nothing else."""
    sizes = [10, 100, 1000, 1472]
    with cable.server.socket(socket.SOCK_DGRAM) as ear, cable.caller.socket(socket.SOCK_DGRAM) as mouth:
        ear.bind((cable.server.address, 9999))
        ear.settimeout(5)
        with capturing(cable.caller) as capture:
            for size in sizes:
                mouth.sendto(bytes(size), (cable.server.address, 9999))
                assert len(ear.recv(2000)) == size
    sent = [packet for packet in capture.packets if packet.target_port == 9999]
    assert [packet.ip_bytes for packet in sent] == [size + 28 for size in sizes]
    assert [packet.payload for packet in sent] == sizes
    assert {packet.source for packet in sent} == {cable.caller.address}
    assert traffic(sent).data == NetworkLoad(sum(sizes) + 4 * 28, 4)


@netns
def test_tcp_is_cut_at_the_mtu(cable: Pair) -> None:
    """14,480 bytes cross in ten full packets; acknowledgements and the handshake are told apart from them."""
    with cable.server.socket(socket.SOCK_STREAM) as door, cable.caller.socket(socket.SOCK_STREAM) as mouth:
        door.bind((cable.server.address, 9998))
        door.listen()
        with capturing(cable.caller) as capture:
            mouth.connect((cable.server.address, 9998))
            mouth.sendall(bytes(14_480))
            ear, _ = door.accept()
            with ear:
                got = 0
                while got < 14_480:
                    got += len(ear.recv(20_000))
    up = traffic(packet for packet in capture.packets if packet.source == cable.caller.address)
    down = traffic(packet for packet in capture.packets if packet.source == cable.server.address)
    assert (up.data, up.payload) == (NetworkLoad(15_000, 10), 14_480)
    assert down.data == NetworkLoad()
    assert 1 <= down.acknowledgements.packets <= 10


@netns
def test_a_namespace_cannot_reach_the_world(cable: Pair) -> None:
    """There is no route out: load stays on the cable."""
    with cable.caller.socket(socket.SOCK_DGRAM) as mouth, pytest.raises(OSError, match="unreachable"):
        mouth.connect(("198.51.100.1", 9))


@netns
@pytest.mark.models
@pytest.mark.timeout(300)
def test_our_server_takes_what_the_formula_says(cable: Pair) -> None:
    """Calls over the product's own transport, PCM and G.711, in the clear and over TLS: bytes and packets of each
    direction, while somebody speaks and over the whole call, are within 3% of the header arithmetic.
    """
    lines = [
        AudioPath(AudioFormat.PCM, 100),
        AudioPath(AudioFormat.PCMU, 20),
        AudioPath(AudioFormat.PCMA, 20, tls=True),
    ]
    with exchange(cable) as servers:
        watched = servers.watch(lines)
    for call in watched.calls:
        session = call_session(call, watched.packets, cable.server.address)
        assert call.heard_s > 3
        for row in session.rows:
            assert row.ok, f"{session.name} {row}"
            assert row.measured.packets > 0


@netns
@pytest.mark.models
def test_media_takes_what_the_formula_says(cable: Pair) -> None:
    """Opus in both protections, with and without DTX, arrives whole, and costs payload and headers to the byte."""
    up, down = caller_side(4), agent_side(4)
    settings = [OpusSettings(24), OpusSettings(24, dtx=True), OpusSettings(32, constant=True)]
    coded = [(opus.encode(up, each), opus.encode(down, each)) for each in settings]
    streams = [media.MediaStream(each.name, each.frame_ms, *both) for each, both in zip(settings, coded, strict=True)]
    streams.append(media.MediaStream("gcm", 20, *coded[0], Srtp.AEAD_AES_128_GCM, extensions=True))
    with capturing(cable.caller) as capture:
        ports = media.exchange(cable, streams)
    sessions = {
        stream.name: stream_session(stream, capture.packets, *ports[stream.name][:2], server=cable.server.address)
        for stream in streams
    }
    for session in sessions.values():
        whole = [session.row("up", "conversation"), session.row("down", "conversation")]
        assert [(row.bytes_error, row.packets_error) for row in whole] == [(0, 0), (0, 0)]
        assert all(row.ok for row in session.rows)
    plain, dtx = (sessions[each.name].row("up", "conversation").measured for each in settings[:2])
    assert dtx.packets < 0.75 * plain.packets
    assert sessions["gcm"].row("up", "conversation").measured == plain + NetworkLoad(18 * plain.packets, 0)


@netns
def test_a_broken_cable_gives_an_error_and_no_figure(cable: Pair) -> None:
    """With one end down the exchange raises BackendError."""
    stream = media.MediaStream("s", 20, [b"x"] * 5, [b"y"] * 5)
    subprocess.run(["ip", "-n", cable.server.namespace, "link", "set", cable.server.interface, "down"], check=True)
    with pytest.raises(BackendError):
        media.exchange(cable, [stream])
