"""The contender's end of the harness: audio in, "it sounds" out, over one local socket. Standard library only, since
it runs inside each framework's own environment.

The feeder sends one record for all sessions whose 20 ms frames are due at the same instant: the length of what
follows (u32), then for each frame the session's number (u16) and 640 bytes of 16 kHz PCM. A contender answers with
JSON lines: `{"ready": n}` once, then `{"sounds": i}` when a reply of session i begins to sound. The feeder stamps both
ends, so no contender measures itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

RATE = 16_000
FRAME_S = 0.02
FRAME_BYTES = 640
RECORD = struct.Struct("<H640s")
LENGTH = struct.Struct("<I")

# The engines of every contender: fixed times, and one sentence of this length.
STT_S, LLM_S, TTS_S = 0.100, 0.150, 0.080
HEARD = "It was the age of wisdom."
REPLY = "It is a quarter past nine."
REPLY_S = 1.5
REPLY_RATE = 24_000
# Loud enough for any listener, and no sample of it is zero.
REPLY_PCM = struct.pack("<2h", 6000, -6000) * (int(REPLY_S * REPLY_RATE) // 2)
TTS_CHUNK = REPLY_PCM[: REPLY_RATE * 2 // 5]  # 200 ms

# Audio of one reply has no such gap, and no two replies are so close: the schedule sees to it.
SAME_REPLY_S = 0.5


class Onset:
    """Tells the first audible audio of a reply from what follows it."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def begins(self, pcm: bytes, now: float) -> bool:
        """Whether `pcm`, sent now, is where a reply begins to sound; silence and nothing are not."""
        if not pcm or not any(pcm):
            return False
        before, self._last = self._last, now
        return now - before > SAME_REPLY_S


@dataclass(frozen=True)
class ReportedEdge:
    """One end of speech on the contender's own rules, in ms of the stream: when speech recognition can begin, and when
    the configured silence has passed.
    """

    work_ms: float
    commit_ms: float


class FeederChannel(asyncio.Protocol):
    """The socket to the feeder; `frame` takes a session's audio."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._onsets: dict[int, Onset] = {}
        self._sessions: list[Callable[[bytes], None]] = []
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by shape only

    def start(self, sessions: Sequence[Callable[[bytes], None]]) -> None:
        """All sessions are up: let the audio come."""
        self._sessions = list(sessions)
        self._onsets = {number: Onset() for number in range(len(sessions))}
        self._say({"ready": len(sessions)})

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
                self._sessions[number](frame)
            at = end
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def sounds(self, number: int, pcm: bytes) -> None:
        """A session sends audio to its caller."""
        if self._onsets[number].begins(pcm, time.monotonic()):
            self._say({"sounds": number})

    def _say(self, message: dict[str, int]) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(message).encode() + b"\n")


Sessions = Callable[[int, Callable[[int, bytes], None]], Awaitable[Sequence[Callable[[bytes], None]]]]
"""Opens so many sessions, given where their audio goes; returns where each takes its caller's frames."""

Offline = Callable[[Sequence[bytes]], Awaitable[list[ReportedEdge]]]
"""The ends of speech in one stream of frames, by the contender's own rules, as fast as it goes."""


def main(open_sessions: Sessions, offline: Offline, arguments: Sequence[str] | None = None) -> None:
    """A contender's command line: `--offline FILE...` prints edges, `--socket PATH --sessions N` serves the feeder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--offline", nargs="*", type=Path, default=[])
    parser.add_argument("--socket", default="")
    parser.add_argument("--sessions", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.offline:
        edges = asyncio.run(_all_edges(options.offline, offline))
        sys.stdout.write(json.dumps(edges) + "\n")
        return
    asyncio.run(_serve(options.socket, options.sessions, open_sessions))


async def _all_edges(files: Sequence[Path], offline: Offline) -> list[list[tuple[float, float]]]:
    found = []
    for file in files:
        pcm = file.read_bytes()
        frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]
        found.append([(edge.work_ms, edge.commit_ms) for edge in await offline(frames)])
    return found


async def _serve(path: str, sessions: int, open_sessions: Sessions) -> None:
    _, channel = await asyncio.get_running_loop().create_unix_connection(FeederChannel, path)
    channel.start(await open_sessions(sessions, channel.sounds))
    await channel.closed
