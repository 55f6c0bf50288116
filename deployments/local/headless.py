"""Conversations without a network: `python -m deployments.local.headless`. For the density benchmark only.

The benchmark measures how many sessions one core can run. Host, sessions and voice activity detection are real, and
with `--detector smart_turn` so is the turn detector. The other engines take a fixed time, so only the cost of the
host's code is measured. Everything runs in one process.

The process speaks the protocol of the comparison with other frameworks (`benchmarks.frameworks.contender`). Records of
frames come in over a local socket, and `{"sounds": i}` goes out when the reply of session i becomes audible. With
`--offline FILE...` the process prints instead where the turns of each file end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop
from prometheus_client import CollectorRegistry

from actors.host import Host
from actors.session import Session
from actors.stages.ports import Stages, TurnDetectorPort
from actors.stages.services import Services
from deployments.local.fixed_engines import CertainTurn, FixedLlm, FixedStt, FixedTts
from deployments.local.ideal_edges import EdgeFinder
from deployments.local.in_process import DirectTurnDetector, InlineVad
from deployments.serving.journal import LogJournal
from deployments.serving.metrics import ConversationMetrics
from deployments.turn_detector import TurnDetector
from deployments.vad import load_silero
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.settings.settings import HostSettings, Settings, SpeculationSettings
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection
from rejoinder.core.wire import client
from rejoinder.core.wire.fields import Json

FRAME_S = 0.02
FRAME_BYTES = 640
RECORD = struct.Struct(f"<H{FRAME_BYTES}s")
LENGTH = struct.Struct("<I")
SILENCE_MS = 200
# Audio that begins more than this many seconds after the last audio belongs to a new reply.
SAME_REPLY_S = 0.5


def detection(detector: str) -> TurnDetection:
    """Return the turn detection settings: server_vad with a fixed silence for "none", semantic_vad for "smart_turn"."""
    if detector == "none":
        return TurnDetection(mode=DetectionMode.SERVER_VAD, silence_duration_ms=SILENCE_MS)
    return TurnDetection(mode=DetectionMode.SEMANTIC_VAD)


def _configuration(detector: str) -> Json:
    turns: Json = {"type": "semantic_vad"}
    if detector == "none":
        turns = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    return {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}}


class HeadlessCall:
    """Client side of one session: it reports when a reply becomes audible."""

    def __init__(self, number: int, send: Callable[[Json], None]) -> None:
        """Create the client of session `number`. `send` transmits a message to the benchmark."""
        self._number = number
        self._send = send
        self._last = float("-inf")

    def receive(self, event: Json) -> None:
        """Receive a server event. Report the first audible audio of a reply, ignore all else."""
        pcm = event.get("delta")
        if not isinstance(pcm, bytes) or not any(pcm):
            return
        now = time.monotonic()
        before, self._last = self._last, now
        if now - before > SAME_REPLY_S:
            self._send({"sounds": self._number})


class Feed(asyncio.Protocol):
    """The socket to the benchmark. It receives records of audio frames and sends JSON lines.

    Attributes:
        sessions: The sessions that receive the frames, by number.
        closed: Done when the benchmark has closed the socket.
    """

    def __init__(self) -> None:
        """Create the protocol. An event loop must be running, because `closed` is a future."""
        self.sessions: list[Session] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, on which messages to the benchmark are written."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from asyncio.Transport

    def send(self, message: Json) -> None:
        """Send a message as one line of JSON."""
        assert self._transport is not None
        self._transport.write(json.dumps(message).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        """Pass each audio frame to its session, once the whole batch that contains it has arrived.

        A batch is its length, and then the session's number and 20 ms of audio for each frame.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            end = start + LENGTH.size + length
            if len(buffer) < end:
                break
            for number, frame in RECORD.iter_unpack(bytes(buffer[start + LENGTH.size : end])):
                self.sessions[number].append_audio(frame)
            start = end
        del buffer[:start]

    def connection_lost(self, fault: Exception | None) -> None:
        """Complete the future `closed`."""
        if not self.closed.done():
            self.closed.set_result(None)


async def serve(path: str, count: int, detector: str) -> None:
    """Run conversations whose audio comes over a Unix socket, until the benchmark closes the socket.

    Args:
        path: Path of the Unix socket.
        count: Number of sessions.
        detector: "none" or "smart_turn".
    """
    # The benchmark measures latency from the end of turn, so replies must not begin before it.
    settings = Settings(host=HostSettings(max_sessions=count), speculation=SpeculationSettings(enabled=False))
    host = Host(_services(settings, detector))
    _, feed = await asyncio.get_running_loop().create_unix_connection(Feed, path)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(host.run())]
        opened: list[asyncio.Future[Session]] = []
        for number in range(count):
            opened.append(asyncio.get_running_loop().create_future())
            running.append(
                group.create_task(_hold(host, number=number, detector=detector, feed=feed, opened=opened[-1]))
            )
        feed.sessions = [await session for session in opened]
        gc.collect()
        gc.freeze()  # SessionHost does the same: a garbage collection of all objects so far would pause every session
        feed.send({"ready": count})
        await feed.closed
        for task in running:
            task.cancel()


async def _hold(host: Host, number: int, detector: str, feed: Feed, *, opened: asyncio.Future[Session]) -> None:
    """Run conversation `number` until cancelled, and set `opened` to its session when the session accepts audio.

    A message is sent through `feed` when a reply becomes audible. `detector` is "none" or "smart_turn".
    """
    update = client.parse(json.dumps(_configuration(detector)))
    assert isinstance(update, client.UpdateSession)
    with host.seat():
        async with host.converse(f"{number:012x}", HeadlessCall(number, feed.send).receive, "rejoinder") as session:
            await session.configure(update)
            opened.set_result(session)
            await asyncio.Event().wait()


def _services(settings: Settings, detector: str) -> Services:
    turn_detector: TurnDetectorPort = CertainTurn()
    if detector != "none":
        turn_detector = DirectTurnDetector(TurnDetector(settings))
    llm = FixedLlm()
    stages = Stages(
        InlineVad(load_silero(settings)),
        turn_detector=turn_detector,
        stt=FixedStt(),
        llm=llm,
        tts=FixedTts(),
        engines={"llm": "fixed"},
    )
    metrics = ConversationMetrics(CollectorRegistry())
    phrases = HeldClips(HeldClip(settings.conversation.apology, bytes(2)))
    return Services.over(
        stages, settings=settings, phrases=phrases, metrics=metrics, journal=LogJournal(), clock=time.monotonic
    )


def offline(files: list[Path], detector: str) -> list[list[tuple[float, float]]]:
    """Return the ends of turns of each file of 16 kHz PCM, as pairs (work_ms, commit_ms) of `IdealEdge`.

    The times are in ms after the arrival of the first frame: when transcription can begin, and when the turn ends.

    With "smart_turn", the turn model is not run. Every turn counts as certainly over, because in a live session
    TRANSCRIPT arrives before the turn model would be queried.
    """
    settings = Settings()
    vad = load_silero(settings)
    found = []
    for file in files:
        pcm = file.read_bytes()
        frames = [pcm[start : start + FRAME_BYTES] for start in range(0, len(pcm), FRAME_BYTES)]
        finder = EdgeFinder(vad, lambda _: 1.0, settings, detection(detector))
        found.append([(edge.work_ms, edge.commit_ms) for edge in finder.edges(frames, FRAME_S)])
    return found


def main() -> None:
    """Run conversations over a socket, or print the ends of turns of files, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", choices=("none", "smart_turn"), default="none")
    parser.add_argument("--offline", nargs="*", type=Path, default=[])
    parser.add_argument("--socket", default="")
    parser.add_argument("--sessions", type=int, default=1)
    options = parser.parse_args()
    if options.offline:
        sys.stdout.write(json.dumps(offline(options.offline, options.detector)) + "\n")
        return
    uvloop.run(serve(options.socket, options.sessions, options.detector))


if __name__ == "__main__":
    main()
