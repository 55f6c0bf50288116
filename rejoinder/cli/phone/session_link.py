"""Connection of a telephone call to its session, on the public WebSocket. It is replaced when it is lost.

A server that is silent for SILENT_S, although it is pinged, counts as lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from loadtest.callers.resume_state import GONE_STATUSES, MOVE, RESUMED, Position, ResumeState, SessionGone, reconnect
from loadtest.callers.silence_watch import SILENT_S
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.wire.fields import Json

logger = logging.getLogger(__name__)

CONNECT_S, RESUME_S = 10.0, 2.0
"""Timeouts in seconds of the first connection, and of one attempt to continue a session."""
PING_S, PONG_S, CLOSE_S = 1.0, SILENT_S - 1.0, 0.5
"""A server is pinged every PING_S, and is lost if a pong takes PONG_S. CLOSE_S later a connection is given up that the
server does not close.
"""
MAX_EVENT_BYTES = 4 * 1024 * 1024
KEPT_EVENTS = 64
"""Events, other than audio, that are kept while there is no connection."""
CLOSE_NORMAL, CLOSE_GOING_AWAY, CLOSE_MOVED = 1000, 1001, 4000
_LOST = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class SessionServer:
    """Servers that a gateway calls.

    Attributes:
        urls: OpenAI base URLs with ws:// or wss://, in the order in which they are tried.
        key: API key; "" for none.
    """

    urls: Sequence[str]
    key: str = ""

    async def open(self, url: str, **query: str) -> ClientConnection:
        """Connect to one of the servers. `query` are parameters of the address."""
        return await connect(
            f"{url.rstrip('/')}/realtime?{urlencode({'model': 'rejoinder', **query})}",
            additional_headers={"Authorization": f"Bearer {self.key}"} if self.key else None,
            max_size=MAX_EVENT_BYTES,
            compression=None,
            ping_interval=PING_S,
            ping_timeout=PONG_S,
            close_timeout=CLOSE_S,
            open_timeout=CONNECT_S,
        )


class SessionLink:
    """Session of one call. Create it with `dial`, then call `run`."""

    def __init__(self, server: SessionServer, connection: ClientConnection) -> None:
        """Create a link over an open connection. Callers use `dial` instead."""
        self._server = server
        self._connection = connection
        self._resume = ResumeState()
        self._ready = False
        self._closed = False
        self._kept: deque[str] = deque(maxlen=KEPT_EVENTS)

    @classmethod
    async def dial(cls, server: SessionServer) -> SessionLink:
        """Connect to the first server that takes the call.

        Raises:
            Overloaded: The servers take no call now.
            BackendError: The servers cannot be reached, or refuse the key.
        """
        fault: Exception = BackendError("no server is configured.", stage="phone")
        for url in server.urls:
            try:
                return cls(server, await server.open(url))
            except InvalidStatus as refusal:
                status = refusal.response.status_code
                message = f"{url} refuses the call with status {status}."
                fault = Overloaded(message, "", retry_after_s=1.0) if status in (429, 503) else BackendError(message)
            except _LOST as error:
                fault = BackendError(f"{url} cannot be reached: {error}")
        raise fault

    async def send(self, event: Json) -> None:
        """Send an event. Audio is kept, so that a session that lacks it gets it again.

        Another event waits for the next connection if this one is closed, up to KEPT_EVENTS of them. One that was on
        its way when the connection broke is lost.
        """
        message = json.dumps(event)
        audio = event["type"] == "input_audio_buffer.append"
        if audio:
            self._resume.sent(message.encode())
        if self._ready:
            try:
                await self._connection.send(message)
            except ConnectionClosed:  # `run` notices the loss, and both are sent over the next connection
                if not audio:
                    self._kept.append(message)
        elif not audio:
            self._kept.append(message)

    async def run(
        self,
        take: Callable[[Json], Awaitable[None]],
        position: Callable[[], Position | None],
        lost: Callable[[], None],
    ) -> None:
        """Pass on the events of the session until it has ended.

        Args:
            take: Called with each event.
            position: Returns how much of the last reply the telephone has got.
            lost: Called when the connection is lost, before the session is continued.
        """
        while True:
            try:
                await self._listen(take)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 0
                if self._closed or code in (CLOSE_NORMAL, CLOSE_GOING_AWAY):
                    return
            self._ready = False
            lost()
            if not self._resume.token or not await self._continue(take, position):
                return

    async def close(self) -> None:
        """End the session."""
        self._closed = True
        await self._connection.close(CLOSE_NORMAL)

    async def _listen(self, take: Callable[[Json], Awaitable[None]]) -> None:
        """Pass on events until the server asks to move. Raise ConnectionClosed when the connection is lost."""
        while True:
            event: Json = json.loads(await self._connection.recv())
            if event["type"] == MOVE:
                return
            self._resume.take(event)
            if event["type"] == "session.created":
                self._ready = True
            if event["type"] == "error":
                logger.warning("the server refuses an event: %s", event["error"].get("message"))
            await take(event)

    async def _continue(self, take: Callable[[Json], Awaitable[None]], position: Callable[[], Position | None]) -> bool:
        """Continue the session on a new connection. Return False if no server has it any more."""

        async def attempt(url: str) -> ClientConnection:
            try:
                async with asyncio.timeout(RESUME_S):
                    return await self._server.open(url, **self._resume.query(position()))
            except InvalidStatus as refusal:
                gone = refusal.response.status_code in GONE_STATUSES
                raise (SessionGone if gone else ConnectionError) from refusal
            except _LOST as error:
                raise ConnectionError(str(error)) from error

        found = await reconnect(attempt, self._server.urls, over=lambda: self._closed)
        if found is None:
            return False
        old, self._connection = self._connection, found
        await old.close(CLOSE_MOVED)
        with suppress(ConnectionClosed):  # then `run` tries again
            while True:
                event: Json = json.loads(await found.recv())
                self._resume.take(event)
                await take(event)
                if event["type"] == RESUMED:
                    break
            # Nothing else is sent before `_ready` is set, so the audio keeps its order.
            for frame in self._resume.resend(event):
                await found.send(frame.decode())
            while self._kept:
                await found.send(self._kept[0])
                self._kept.popleft()
            self._ready = True
        return True
