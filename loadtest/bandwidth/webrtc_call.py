"""A call over WebRTC on a virtual Ethernet pair: `python -m loadtest.bandwidth.webrtc_call` in the caller's namespace.

The sockets of a WebRTC library belong to its process, so the caller is a program of its own. It prints its log as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from loadtest.bandwidth import opus
from loadtest.bandwidth.caller import ANSWER_S, THINK_S
from loadtest.bandwidth.capture import Packet, traffic
from loadtest.bandwidth.formula import kbps
from loadtest.bandwidth.netns import Pair
from loadtest.bandwidth.rows import Direction
from loadtest.bandwidth.speech import SAMPLE_RATE, utterances
from loadtest.bandwidth.webrtc_peer import PacketTrack, WebRtcPeer
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.fields import Json

KBPS = 32
"""Bit rate of the caller's speech: that of the server (`webrtc.opus_bitrate`)."""
TURNS = 2
CALL_S = 180.0
"""Timeout of one call, in seconds."""

Span = tuple[float, float]


@dataclass(slots=True)
class WebRtcLog:
    """Log of one call. Times are in seconds since the Unix epoch.

    Attributes:
        dtx: Whether both ends send nothing while they are silent.
        port: The caller's UDP port.
        began: Time at which the session began.
        ended: Time at which the last turn ended.
        spoken: (start, end) of each of the caller's sentences.
        heard: (start, end) of the audio of each answer.
    """

    dtx: bool
    port: int = 0
    began: float = 0.0
    ended: float = 0.0
    spoken: list[Span] = field(default_factory=list)
    heard: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WebRtcRow:
    """Measured IP traffic of one direction of a call: media, its reports, events and checks of the path.

    Attributes:
        dtx: Whether both ends send nothing while they are silent.
        direction: "up" is caller to server, "down" is server to caller.
        talking_kbps: Rate while this direction carries speech, in kilobits per second.
        talking_pps: Packets per second while this direction carries speech.
        call_kbps: Rate over the whole call.
        call_pps: Packets per second over the whole call.
        talking_share: Share of the call in which this direction carries speech.
    """

    dtx: bool
    direction: Direction
    talking_kbps: float
    talking_pps: float
    call_kbps: float
    call_pps: float
    talking_share: float


def webrtc_rows(log: WebRtcLog, packets: Iterable[Packet], server: str) -> list[WebRtcRow]:
    """Return the traffic of one call in each direction.

    Args:
        log: The caller's log.
        packets: The complete capture, which may also contain other calls.
        server: The server's IPv4 address.
    """
    own = [packet for packet in packets if log.port in (packet.source_port, packet.target_port)]
    rows = []
    ways: tuple[tuple[Direction, list[Span]], ...] = (("up", log.spoken), ("down", log.heard))
    for direction, spans in ways:
        mine = [packet for packet in own if (packet.source == server) is (direction == "down")]
        talking = traffic(packet for packet in mine if any(start <= packet.at <= end for start, end in spans)).data
        call = traffic(packet for packet in mine if log.began <= packet.at <= log.ended).data
        talking_s, call_s = sum(end - start for start, end in spans), log.ended - log.began
        rows.append(
            WebRtcRow(
                log.dtx,
                direction=direction,
                talking_kbps=kbps(talking.ip_bytes, talking_s),
                talking_pps=talking.packets / talking_s,
                call_kbps=kbps(call.ip_bytes, call_s),
                call_pps=call.packets / call_s,
                talking_share=talking_s / call_s,
            )
        )
    return rows


def hold_webrtc_call(pair: Pair, port: int, *, dtx: bool) -> WebRtcLog:
    """Run one call in the caller's namespace and return its log. `port` is that of a server with the same `dtx`.

    Raises:
        BackendError: The call failed.
    """
    command = [sys.executable, "-m", "loadtest.bandwidth.webrtc_call", *(["--dtx"] if dtx else [])]
    command += ["--url", f"http://{pair.server.address}:{port}/v1"]
    done = subprocess.run(pair.caller.command(*command), capture_output=True, text=True, check=False, timeout=CALL_S)
    if done.returncode:
        raise BackendError(f"the call over WebRTC failed: {done.stderr[-2000:].strip()}", stage="call")
    return WebRtcLog(**json.loads(done.stdout))


class _Answers:
    """Waits for events of the server, and notes when the audio of answers began and ended."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self._news = asyncio.Event()

    def take(self, event: Json) -> None:
        """Note an event of the server."""
        self.times.setdefault(event["type"], []).append(time.time())
        self._news.set()

    async def until(self, kind: str, count: int) -> float:
        """Wait for the `count`-th event of a type and return its time. Raise TimeoutError after `ANSWER_S`."""
        async with asyncio.timeout(ANSWER_S):
            while len(self.times.get(kind, ())) < count:
                self._news.clear()
                await self._news.wait()
        return self.times[kind][count - 1]


async def _call(url: str, log: WebRtcLog) -> None:
    track, answers = PacketTrack(dtx=log.dtx), _Answers()
    settings = opus.OpusSettings(KBPS, dtx=log.dtx)
    sentences = [opus.encode(pcm, settings) for pcm in utterances(SAMPLE_RATE)[1 : 1 + TURNS]]
    peer = await WebRtcPeer.open(url, track, take=answers.take)
    log.port = peer.port
    log.began = await answers.until("session.created", 1)
    for turn, packets in enumerate(sentences, 1):
        began = time.time()
        track.say(packets)
        while track.speaking:  # noqa: ASYNC110  # a track has no event
            await asyncio.sleep(0.005)
        log.spoken.append((began, time.time()))
        ended = await answers.until("output_audio_buffer.stopped", turn)
        log.heard.append((answers.times["output_audio_buffer.started"][turn - 1], ended))
        await asyncio.sleep(THINK_S)
    log.ended = time.time()
    await peer.close()


def main() -> None:
    """Hold one call and print its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="base URL of the server")
    parser.add_argument("--dtx", action="store_true", help="send nothing while the caller is silent")
    options = parser.parse_args()
    log = WebRtcLog(options.dtx)
    asyncio.run(_call(options.url, log))
    print(json.dumps(asdict(log)))


if __name__ == "__main__":
    main()
