"""Tests of what is measured of a call over WebRTC, and of the caller that holds it."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from aiortc.mediastreams import MediaStreamError

from loadtest.bandwidth.capture import Packet
from loadtest.bandwidth.netns import Pair, Side
from loadtest.bandwidth.webrtc_call import WebRtcLog, hold_webrtc_call, webrtc_rows
from loadtest.bandwidth.webrtc_peer import DTX_FRAMES, PacketTrack
from rejoinder.core.errors import BackendError

SERVER, CALLER = "10.203.0.2", "10.203.0.1"
TICKS_20_MS = 960


def packets(source: str, count: int, period_s: float, *, ip_bytes: int, port: int = 5000) -> list[Packet]:
    """Return packets between the caller's port and the server from second 0 on."""
    ends = (port, 40_000) if source == CALLER else (40_000, port)
    return [Packet(number * period_s, source, *ends, ip_bytes, ip_bytes - 28) for number in range(count)]


def test_each_direction_counts_its_own_packets_and_its_own_speech() -> None:
    """Rates are those of the call's port: in the spans with speech of a direction, and over the whole call."""
    captured = packets(CALLER, 500, 0.02, ip_bytes=125) + packets(SERVER, 100, 0.1, ip_bytes=250)
    captured += packets(CALLER, 500, 0.02, ip_bytes=900, port=6000)
    log = WebRtcLog(dtx=True, port=5000, began=0.0, ended=10.0, spoken=[(1.0, 3.0)], heard=[(4.0, 5.0), (6.0, 10.0)])
    up, down = webrtc_rows(log, captured, SERVER)
    assert (up.direction, up.dtx, up.talking_share) == ("up", True, 0.2)
    assert up.call_kbps == pytest.approx(50.0)
    assert up.call_pps == pytest.approx(50.0)
    assert up.talking_pps == pytest.approx(50.0, abs=1)
    assert (down.direction, down.talking_share) == ("down", 0.5)
    assert down.call_kbps == pytest.approx(20.0)
    assert down.talking_kbps == pytest.approx(20.0, rel=0.1)


def test_a_call_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words of the caller's program are in the error."""
    failed = subprocess.CompletedProcess([], 1, "", "no path over WebRTC was found.")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    pair = Pair(Side("a", "rjcaller", CALLER), Side("b", "rjserver", SERVER))
    with pytest.raises(BackendError, match="no path over WebRTC"):
        hold_webrtc_call(pair, 8000, dtx=True)


@pytest.mark.parametrize(("dtx", "frames"), [(False, 1), (True, DTX_FRAMES)])
async def test_a_track_sends_silence_around_speech(dtx: bool, frames: int) -> None:
    """Silence is a packet for each frame, with DTX one for each 400 ms. An empty packet of speech is not sent."""
    track = PacketTrack(dtx=dtx)
    sent = [await track.recv() for _ in range(2)]
    assert [packet.pts for packet in sent] == [0, frames * TICKS_20_MS]
    track.say([b"one", b"", b"two"])
    speaking = [track.speaking]
    spoken = [await track.recv() for _ in range(2)]
    assert [bytes(packet) for packet in spoken] == [b"one", b"two"]
    assert [*speaking, track.speaking] == [True, False]
    first, second = (packet.pts or 0 for packet in spoken)
    assert second - first == 2 * TICKS_20_MS


async def test_a_track_ends_with_its_call() -> None:
    """A sender that waits for the next packet learns that none will come."""
    track = PacketTrack(dtx=True)
    await track.recv()
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
