"""How audio reaches a contender and what comes back: a local socket for all that run without a network."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.frameworks.contender import LENGTH, RECORD
from benchmarks.frameworks.streams import Stream


class SocketLink(asyncio.Protocol):
    """The feeder's end of one contender process's socket."""

    def __init__(self, sessions: int, streams: Sequence[Stream]) -> None:
        self.sounded: list[list[float]] = [[] for _ in range(sessions)]
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._streams = streams
        self._transport: asyncio.Transport | None = None
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by shape only

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """One write for everything that is due now."""
        assert self._transport is not None
        body = b"".join(RECORD.pack(session, self._streams[stream].frames[at]) for session, stream, at in frames)
        self._transport.write(LENGTH.pack(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "sounds" in message:
                self.sounded[message["sounds"]].append(now)
            elif not self.ready.done():
                self.ready.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
