"""On a real pair of connected network namespaces, the packets captured are those that were sent.

The traffic of real calls to Rejoinder's server and of media streams matches the computed traffic.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from loadtest.bandwidth import media, opus
from loadtest.bandwidth.caller import AudioPath
from loadtest.bandwidth.calls import running_servers
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
def network() -> Iterator[Pair]:
    with pair() as created:
        yield created


def _namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and a required tool, no network pair is created.

    ConfigError names root and the tool. `missing` lists both, the tool with its Debian package.
    """
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "tshark" else f"/usr/bin/{tool}")
    assert missing() == ["root", "tshark (Debian package tshark)"]
    with pytest.raises(ConfigError, match="need root, tshark"), pair():
        raise AssertionError("the pair was created")


@netns
def test_a_pair_has_no_offload_and_is_removed() -> None:
    """Both ends have MTU 1500 and no segmentation offload. Both namespaces are removed, even after an exception."""
    sides: list[Side] = []
    with pytest.raises(ZeroDivisionError):
        _make_and_fail(sides)
    assert len(sides) == 2
    assert not any(side.namespace in _namespaces() for side in sides)


def _make_and_fail(sides: list[Side]) -> None:
    """Create a pair, append its two sides to `sides`, check MTU and offload, and raise ZeroDivisionError."""
    with pair() as network:
        sides += [network.caller, network.server]
        for side in sides:
            assert _output(side, "cat", f"/sys/class/net/{side.interface}/mtu").strip() == "1500"
            features = _output(side, "ethtool", "-k", side.interface)
            assert "tcp-segmentation-offload: off" in features
            assert "generic-receive-offload: off" in features
            assert side.namespace in _namespaces()
        raise ZeroDivisionError


def _output(side: Side, *command: str) -> str:
    return subprocess.run(side.command(*command), check=True, capture_output=True, text=True).stdout


@netns
def test_namespaces_of_a_killed_run_are_removed() -> None:
    """Creating a pair removes earlier pairs' namespaces whose process has ended. Other namespaces stay."""
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
def test_packets_are_counted_as_they_cross(network: Pair) -> None:
    """Datagrams of known sizes are captured one for one, and counted with exactly their IP and UDP headers."""
    sizes = [10, 100, 1000, 1472]
    with network.server.socket(socket.SOCK_DGRAM) as receiver, network.caller.socket(socket.SOCK_DGRAM) as sender:
        receiver.bind((network.server.address, 9999))
        receiver.settimeout(5)
        with capturing(network.caller) as capture:
            for size in sizes:
                sender.sendto(bytes(size), (network.server.address, 9999))
                assert len(receiver.recv(2000)) == size
    sent = [packet for packet in capture.packets if packet.target_port == 9999]
    assert [packet.ip_bytes for packet in sent] == [size + 28 for size in sizes]
    assert [packet.payload for packet in sent] == sizes
    assert {packet.source for packet in sent} == {network.caller.address}
    assert traffic(sent).data == NetworkLoad(sum(sizes) + 4 * 28, 4)


@netns
def test_tcp_is_cut_at_the_mtu(network: Pair) -> None:
    """14,480 bytes cross in ten full packets of 1500 bytes.

    Acknowledgements are counted separately, and packets of the handshake are not counted.
    """
    with network.server.socket(socket.SOCK_STREAM) as listener, network.caller.socket(socket.SOCK_STREAM) as sender:
        listener.bind((network.server.address, 9998))
        listener.listen()
        with capturing(network.caller) as capture:
            sender.connect((network.server.address, 9998))
            sender.sendall(bytes(14_480))
            receiver, _ = listener.accept()
            with receiver:
                got = 0
                while got < 14_480:
                    got += len(receiver.recv(20_000))
    up = traffic(packet for packet in capture.packets if packet.source == network.caller.address)
    down = traffic(packet for packet in capture.packets if packet.source == network.server.address)
    assert (up.data, up.payload) == (NetworkLoad(15_000, 10), 14_480)
    assert down.data == NetworkLoad()
    assert 1 <= down.acknowledgements.packets <= 10


@netns
def test_a_namespace_has_no_route_out(network: Pair) -> None:
    """A namespace of the pair has no route to other networks, so the load stays on the pair."""
    with network.caller.socket(socket.SOCK_DGRAM) as sender, pytest.raises(OSError, match="unreachable"):
        sender.connect(("198.51.100.1", 9))


@netns
@pytest.mark.models
@pytest.mark.timeout(300)
def test_our_server_takes_what_the_formula_says(network: Pair) -> None:
    """Captured bytes and packets of real calls differ from the computed traffic by at most 3%.

    The calls use Rejoinder's own transport with PCM and G.711, and one G.711 call uses TLS. Both directions are
    checked, while their side speaks and over the whole call.
    """
    paths = [
        AudioPath(AudioFormat.PCM, 100),
        AudioPath(AudioFormat.PCMU, 20),
        AudioPath(AudioFormat.PCMA, 20, tls=True),
    ]
    with running_servers(network) as servers:
        captured = servers.capture_calls(paths)
    for call in captured.calls:
        session = call_session(call, captured.packets, network.server.address)
        assert call.heard_s > 3
        for row in session.rows:
            assert row.ok, f"{session.name} {row}"
            assert row.measured.packets > 0


@netns
@pytest.mark.models
def test_media_takes_what_the_formula_says(network: Pair) -> None:
    """Captured Opus streams have exactly the computed bytes and packets over the whole call.

    This holds for both SRTP profiles and with DTX, which sends less than 75% of the packets.
    """
    up, down = caller_side(4), agent_side(4)
    settings = [OpusSettings(24), OpusSettings(24, dtx=True), OpusSettings(32, constant=True)]
    coded = [(opus.encode(up, each), opus.encode(down, each)) for each in settings]
    streams = [media.MediaStream(each.name, each.frame_ms, *both) for each, both in zip(settings, coded, strict=True)]
    streams.append(media.MediaStream("gcm", 20, *coded[0], Srtp.AEAD_AES_128_GCM, extensions=True))
    with capturing(network.caller) as capture:
        ports = media.send_streams(network, streams)
    sessions = {
        stream.name: stream_session(stream, capture.packets, *ports[stream.name][:2], server=network.server.address)
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
def test_a_broken_link_is_an_error(network: Pair) -> None:
    """With one interface down, sending raises BackendError."""
    stream = media.MediaStream("s", 20, [b"x"] * 5, [b"y"] * 5)
    subprocess.run(["ip", "-n", network.server.namespace, "link", "set", network.server.interface, "down"], check=True)
    with pytest.raises(BackendError):
        media.send_streams(network, [stream])
