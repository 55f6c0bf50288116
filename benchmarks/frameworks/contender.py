"""A contender's side of the harness: it gets audio and reports when replies become audible, over one local socket.

Only the standard library is used, because the module runs inside each framework's own environment.

Protocol: the feeder, a process of the harness, sends one record for all sessions whose 20 ms frames are due at the same
time. A record is the length of the rest in bytes (u32), then for each frame the session's number (u16) and 640 bytes of
16 kHz PCM, little endian. A contender answers with JSON lines: `{"ready": n}` once, then `{"sounds": i}` when a reply
of session i becomes audible. The feeder measures the times of audio and replies, so no contender measures itself.
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

# The engines of every contender take these fixed times in seconds, and give this transcript and this reply.
STT_S, LLM_S, TTS_S = 0.100, 0.150, 0.080
HEARD = "It was the age of wisdom."
REPLY = "It is a quarter past nine."
REPLY_S = 1.5
REPLY_RATE = 24_000
# A loud square wave without zero samples, so that any part of it is audible.
REPLY_PCM = struct.pack("<2h", 6000, -6000) * (int(REPLY_S * REPLY_RATE) // 2)
TTS_CHUNK = REPLY_PCM[: REPLY_RATE * 2 // 5]  # 200 ms of 16-bit samples: the pieces in which Pipecat's voice sends

# Audio that begins more than this many seconds after the last audio belongs to a new reply. The schedule keeps replies
# further apart.
SAME_REPLY_S = 0.5


class Onset:
    """Detector of the first audible audio of each reply in one session."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def begins(self, pcm: bytes, now: float) -> bool:
        """Return True if `pcm`, sent at time `now` in seconds, starts a reply. Empty and silent audio does not."""
        if not pcm or not any(pcm):
            return False
        before, self._last = self._last, now
        return now - before > SAME_REPLY_S


@dataclass(frozen=True)
class ReportedEdge:
    """One end of speech (edge) by the contender's own rules. Times are in ms from the start of the stream.

    Attributes:
        work_ms: When speech recognition can begin.
        commit_ms: When the silence that the rules require has passed.
    """

    work_ms: float
    commit_ms: float


class FeederChannel(asyncio.Protocol):
    """Contender's end of the socket to the feeder, the process of the harness that sends audio.

    It passes frames to the sessions and reports when their replies become audible.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._onsets: dict[int, Onset] = {}
        self._sessions: list[Callable[[bytes], None]] = []
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, on which messages to the feeder are written."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from asyncio.Transport

    def start(self, sessions: Sequence[Callable[[bytes], None]]) -> None:
        """Tell the feeder that all sessions are open. `sessions` has a function per session, which takes its frames."""
        self._sessions = list(sessions)
        self._onsets = {number: Onset() for number in range(len(sessions))}
        self._send({"ready": len(sessions)})

    def data_received(self, data: bytes) -> None:
        """Pass the frames of all complete records to their sessions."""
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
        """Complete the future `closed`."""
        if not self.closed.done():
            self.closed.set_result(None)

    def sounds(self, number: int, pcm: bytes) -> None:
        """Tell the feeder that a reply of session `number` became audible, if `pcm` is its first audible audio.

        Call this for all audio that the session sends to its caller.
        """
        if self._onsets[number].begins(pcm, time.monotonic()):
            self._send({"sounds": number})

    def _send(self, message: dict[str, int]) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(message).encode() + b"\n")


Sessions = Callable[[int, Callable[[int, bytes], None]], Awaitable[Sequence[Callable[[bytes], None]]]]
"""Function that opens a number of sessions. It gets that number and a function to call with the audio of each reply
(session number, PCM). It returns for each session the function that takes a frame of its caller's audio.
"""

Offline = Callable[[Sequence[bytes]], Awaitable[list[ReportedEdge]]]
"""Function that finds the ends of speech (edges) in a stream of frames, by the contender's own rules, faster than real
time.
"""


def main(open_sessions: Sessions, offline: Offline, arguments: Sequence[str] | None = None) -> None:
    """Run a contender's command line.

    `--offline FILE...` prints, for each file of PCM, the ends of speech as pairs (work_ms, commit_ms) of
    `ReportedEdge`. `--socket PATH --sessions N` runs N sessions whose audio comes over the Unix socket PATH.

    Args:
        open_sessions: The contender's function that opens its sessions.
        offline: The contender's function that finds the ends of speech in a stream.
        arguments: Arguments of the command line, by default those of the process.
    """
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
    edges = []
    for file in files:
        pcm = file.read_bytes()
        frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]
        edges.append([(edge.work_ms, edge.commit_ms) for edge in await offline(frames)])
    return edges


async def _serve(path: str, sessions: int, open_sessions: Sessions) -> None:
    _, channel = await asyncio.get_running_loop().create_unix_connection(FeederChannel, path)
    channel.start(await open_sessions(sessions, channel.sounds))
    await channel.closed
