"""Caller for tests over a WebSocket. It sends speech in real time and records every event of the server."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import websockets

from rejoinder.core.audio.pcm import WIRE_RATE

FRAME_S = 0.02
FRAME_BYTES = round(WIRE_RATE * FRAME_S) * 2
CONFIG = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper"}}}}
# Audio whose largest 16-bit sample is not above this counts as silence. `rejoinder talk` has a similar threshold.
AUDIBLE_PEAK = 300


class WireCaller:
    """Caller that always sends audio, as a telephone does: silence while it has no speech to send.

    Keep `run` running, as `calling` does: it sends the audio and receives the events.

    Attributes:
        events: Every event of the server with its arrival time (`time.monotonic`), in order.
    """

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._news = asyncio.Event()
        self._silent = asyncio.Event()
        self.events: list[tuple[float, dict[str, Any]]] = []

    async def run(self) -> None:
        """Send audio and receive events until the task is cancelled or the connection ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._speak())
            group.create_task(self.hear())

    async def _speak(self) -> None:
        due = time.monotonic()
        while True:
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._frames.empty():
                frame = bytes(FRAME_BYTES)
                self._silent.set()
            else:
                frame = self._frames.get_nowait()
            await self.send(type="input_audio_buffer.append", audio=base64.b64encode(frame).decode())

    async def hear(self) -> None:
        """Receive events until the task is cancelled or the connection ends. `run` does this too."""
        async for message in self._socket:
            self.events.append((time.monotonic(), json.loads(message)))
            self._news.set()

    async def closed(self) -> None:
        """Wait until the connection has ended."""
        await self._socket.wait_closed()

    @property
    def local_port(self) -> int:
        """Local TCP port of the connection."""
        return int(self._socket.local_address[1])

    async def throw(self, message: str | bytes) -> None:
        """Send a raw WebSocket message, which may be malformed."""
        await self._socket.send(message)

    async def send(self, **event: Any) -> None:
        """Send an event with these fields as JSON."""
        await self._socket.send(json.dumps(event))

    def say(self, pcm: bytes) -> None:
        """Queue speech, 24 kHz 16-bit PCM, which is sent in real time after the speech already queued."""
        self._silent.clear()
        for start in range(0, len(pcm), FRAME_BYTES):
            self._frames.put_nowait(pcm[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))

    async def spoken(self) -> None:
        """Wait until all queued speech has been sent."""
        await self._silent.wait()

    def vanish(self) -> None:
        """Abort the connection without the closing handshake of WebSocket."""
        self._socket.transport.abort()

    async def until(self, kind: str, count: int = 1, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until `count` events of type `kind` have arrived and return the last of these. Earlier events count.

        Raise TimeoutError after `timeout_s` seconds.
        """
        async with asyncio.timeout(timeout_s):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1][1]

    def of(self, kind: str) -> list[tuple[float, dict[str, Any]]]:
        """Return the events of type `kind`, each with its arrival time (`time.monotonic`)."""
        return [(at, event) for at, event in self.events if event["type"] == kind]

    def audible_after(self, instant: float) -> float | None:
        """Return the seconds from monotonic time `instant` to the next audible audio, None if none arrived."""
        for at, event in self.of("response.output_audio.delta"):
            samples = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
            if at >= instant and np.abs(samples.astype(int)).max(initial=0) > AUDIBLE_PEAK:
                return at - instant
        return None

    def said(self) -> str:
        """Return the transcripts of all replies so far, apologies included, joined with spaces."""
        return " ".join(str(event["transcript"]) for _, event in self.of("response.output_audio_transcript.done"))


def realtime_url(base_url: str) -> str:
    """Return the WebSocket URL for conversations with the server at `base_url` (http)."""
    return base_url.replace("http", "ws") + "/v1/realtime?model=rejoinder"


@asynccontextmanager
async def calling(base_url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[WireCaller]:
    """Call the server at `base_url`, with these HTTP `headers` in addition to those of WebSocket.

    Yield the caller, which sends audio until the block ends.
    """
    async with websockets.connect(realtime_url(base_url), additional_headers=headers) as socket:
        caller = WireCaller(socket)
        running = asyncio.create_task(caller.run())
        try:
            await caller.send(type="session.update", session=CONFIG)
            await caller.until("session.updated")
            yield caller
        finally:
            running.cancel()
            await asyncio.wait({running})
