"""The harness's end of the local Unix socket to a contender that runs without a network."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.frameworks.contender import LENGTH, RECORD
from benchmarks.frameworks.streams import Stream


class SocketLink(asyncio.Protocol):
    """Connection to one contender process, which runs one or more sessions.

    Attributes:
        sounded: For each session, the times at which a reply became audible (monotonic clock, in seconds).
        ready: Future that is done when the contender has opened its sessions.
    """

    def __init__(self, sessions: int, streams: Sequence[Stream]) -> None:
        self.sounded: list[list[float]] = [[] for _ in range(sessions)]
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._streams = streams
        self._transport: asyncio.Transport | None = None
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, on which frames are written."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from asyncio.Transport

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """Send all frames that are due now in one write. See `feeder.Link.send`."""
        assert self._transport is not None
        body = b"".join(RECORD.pack(session, self._streams[stream].frames[at]) for session, stream, at in frames)
        self._transport.write(LENGTH.pack(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        """Read the contender's JSON lines and record the time of each reply's start."""
        now = time.monotonic()
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "sounds" in message:
                self.sounded[message["sounds"]].append(now)
            elif not self.ready.done():
                self.ready.set_result(None)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
