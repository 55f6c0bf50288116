"""Conversations without a network: `python -m deployments.local.headless`, for measuring the host itself.

The real host, sessions and voice activity detector (and with `--detector smart_turn` the real turn detector) in one
process, and engines that take a fixed time: what is measured is what this code costs. It speaks the protocol of the
comparison with other frameworks (`benchmarks.frameworks.contender`): records of frames come in over a local socket, and
`{"sounds": i}` goes out when a reply begins. With `--offline FILE...` it says instead where a stream's turns end.
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
# Audio of one reply has no such gap.
SAME_REPLY_S = 0.5


def detection(detector: str) -> TurnDetection:
    """Silence alone, or the turn detector's word."""
    if detector == "none":
        return TurnDetection(mode=DetectionMode.SERVER_VAD, silence_duration_ms=SILENCE_MS)
    return TurnDetection(mode=DetectionMode.SEMANTIC_VAD)


def _configuration(detector: str) -> Json:
    turns: Json = {"type": "semantic_vad"}
    if detector == "none":
        turns = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    return {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}}


class HeadlessCall:
    """One session's other end: where its events go."""

    def __init__(self, number: int, say: Callable[[Json], None]) -> None:
        self._number = number
        self._say = say
        self._last = float("-inf")

    def take(self, event: Json) -> None:
        """A server event; only where a reply begins to sound is reported."""
        pcm = event.get("delta")
        if not isinstance(pcm, bytes) or not any(pcm):
            return
        now = time.monotonic()
        before, self._last = self._last, now
        if now - before > SAME_REPLY_S:
            self._say({"sounds": self._number})


class Feed(asyncio.Protocol):
    """The socket: records of frames in, JSON lines out."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by shape only

    def say(self, message: Json) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(message).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, at)
            end = at + LENGTH.size + length
            if len(buffer) < end:
                break
            for number, frame in RECORD.iter_unpack(bytes(buffer[at + LENGTH.size : end])):
                self.sessions[number].hear(frame)
            at = end
        del buffer[:at]

    def connection_lost(self, fault: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def serve(path: str, count: int, detector: str) -> None:
    """Hold `count` conversations fed over the socket `path`, until it closes."""
    # What is added is counted from a reply that begins when the turn is taken.
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
        gc.freeze()  # as the host deployment does
        feed.say({"ready": count})
        await feed.closed
        for task in running:
            task.cancel()


async def _hold(host: Host, number: int, detector: str, feed: Feed, *, opened: asyncio.Future[Session]) -> None:
    """One conversation, until cancelled."""
    update = client.parse(json.dumps(_configuration(detector)))
    assert isinstance(update, client.UpdateSession)
    with host.seat():
        async with host.converse(f"{number:012x}", HeadlessCall(number, feed.say).take, "rejoinder") as session:
            await session.configure(update)
            opened.set_result(session)
            await asyncio.Event().wait()


def _services(settings: Settings, detector: str) -> Services:
    judge: TurnDetectorPort = CertainTurn()
    if detector != "none":
        judge = DirectTurnDetector(TurnDetector(settings))
    llm = FixedLlm()
    stages = Stages(
        InlineVad(load_silero(settings)),
        turn_detector=judge,
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
    """The edges of each file of 16 kHz PCM. Words decide: every transcript here reads finished, and is there before the
    turn model would be asked.
    """
    settings = Settings()
    vad = load_silero(settings)
    found = []
    for file in files:
        pcm = file.read_bytes()
        frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]
        finder = EdgeFinder(vad, lambda _: settings.endpointing.finished_probability, settings, detection(detector))
        found.append([(edge.work_ms, edge.commit_ms) for edge in finder.edges(frames, FRAME_S)])
    return found


def main() -> None:
    """Parse the command line and run."""
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
