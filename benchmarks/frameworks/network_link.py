"""Callers that reach the whole system over WebSocket: OpenAI Realtime events with 20 ms frames in base64."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from functools import partial

import orjson
import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from benchmarks.frameworks.contender import Onset
from benchmarks.frameworks.streams import Stream
from rejoinder.core.errors import BackendError

REFUSED_S = 0.5
"""Seconds to wait before the next attempt when a server that is still starting refuses a connection."""

_DELTA = "response.output_audio.delta"
_MARK = _DELTA.encode()
UPDATE = {
    "type": "session.update",
    "session": {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
}


def messages(streams: Sequence[Stream]) -> list[list[bytes]]:
    """Return a list per stream: each of its frames as an `input_audio_buffer.append` event, encoded as JSON.

    `streams` must have the wire's sample rate (24 kHz).
    """
    return [
        [
            json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(frame).decode()}).encode()
            for frame in stream.frames
        ]
        for stream in streams
    ]


class _Socket(WSListener):
    """WebSocket connection of one session. It records when replies become audible."""

    def __init__(self, sounded: list[float]) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: WSTransport | None = None
        self._sounded = sounded
        self._onset = Onset()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.send(WSMsgType.TEXT, orjson.dumps(UPDATE))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.monotonic()
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            return
        payload = frame.get_payload_as_bytes()
        if _MARK in payload:
            event = orjson.loads(payload)
            if event["type"] == _DELTA and self._onset.begins(base64.b64decode(event["delta"]), now):
                self._sounded.append(now)
        elif not self.ready.done() and b'"session.updated"' in payload:
            self.ready.set_result(None)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the connection before the session began"))


async def _dial(url: str, sounded: list[float]) -> _Socket:
    while True:
        try:
            _, listener = await picows.ws_connect(partial(_Socket, sounded), url)
            assert isinstance(listener, _Socket)
            await listener.ready
        except (picows.WSError, OSError):
            await asyncio.sleep(REFUSED_S)
        else:
            return listener


class NetworkLink:
    """WebSocket connections of all sessions to one server.

    Attributes:
        sounded: For each session, the times at which a reply became audible (monotonic clock, in seconds).
    """

    def __init__(self, sessions: int, streams: Sequence[Stream]) -> None:
        self.sounded: list[list[float]] = [[] for _ in range(sessions)]
        self._messages = messages(streams)
        self._sockets: list[_Socket] = []

    async def open(self, url: str, timeout_s: float) -> None:
        """Connect and configure every session, one after the other. A refused connection is retried.

        Raises:
            BackendError: Not all sessions were open after `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                for sounded in self.sounded:
                    self._sockets.append(await _dial(url, sounded))
        except TimeoutError:
            opened = f"only {len(self._sockets)} of {len(self.sounded)} sessions were opened in {timeout_s:.0f} s."
            raise BackendError(opened, stage="peer") from None

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """Send all frames that are due now. See `feeder.Link.send`.

        A session without a connection sends nothing and misses its turns.
        """
        for session, stream, at in frames:
            transport = self._sockets[session].transport
            if transport is not None:
                transport.send(WSMsgType.TEXT, self._messages[stream][at])

    def close(self) -> None:
        """Close all connections."""
        for listener in self._sockets:
            if listener.transport is not None:
                listener.transport.disconnect()
