"""OpenAI Realtime over WebSocket: JSON with base64 audio on the wire, 16 kHz PCM in the session.

Each connection has a session, a reader and a writer. The reader stops reading while the session's queue of incoming
events is full. The writer sends events from a bounded queue. If this queue is full because the client does not read,
the client is disconnected: it has lost the conversation already, and waiting for it would delay others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

from actors.host import Host
from actors.session import Session
from rejoinder.core.errors import CallerError
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import WireDecoder

logger = logging.getLogger(__name__)

CLOSE_GOING_AWAY = 1001
CLOSE_INTERNAL_ERROR = 1011
CLOSE_TRY_LATER = 1013


class AcceptedSocket(Protocol):
    """Protocol of an accepted WebSocket, with starlette's interface."""

    async def receive(self) -> Mapping[str, Any]:
        """Return the next ASGI message."""
        ...

    async def send_text(self, data: str) -> None:
        """Send a text message. Raise WebSocketDisconnect if the client is gone."""
        ...

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection."""
        ...


class AudioShortcut(Protocol):
    """Protocol of a connection's fast path for audio. `CallProtocol` in `call_protocol.py` implements it."""

    def attend(self, take: Callable[[bytes], bool] | None) -> None:
        """Offer text messages to the function `take` before they become ASGI messages.

        `take` returns True if it has consumed the message. With None, no more messages are offered.
        """
        ...

    def answered(self) -> None:
        """Record that one message from `AcceptedSocket.receive` has been processed."""
        ...


class _NoShortcut:
    """`AudioShortcut` that does nothing, for a connection without a fast path.

    Every message then arrives by `AcceptedSocket.receive`.
    """

    def attend(self, take: Callable[[bytes], bool] | None) -> None: ...
    def answered(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _End:
    """How a conversation ended.

    Attributes:
        code: Code to close the WebSocket with, None if the client has closed it.
        reason: Reason in the close frame.
    """

    code: int | None
    reason: str = ""


def encode(event: Json) -> str:
    """Return a server event as JSON, with its audio in base64."""
    delta = event.get("delta")
    if isinstance(delta, bytes):
        event = event | {"delta": base64.b64encode(delta).decode("ascii")}
    return json.dumps(event, separators=(",", ":"))


class RealtimeSocket:
    """One accepted connection and its conversation.

    The code that creates this object must have reserved a place on the host (`Host.seat`) before the upgrade.
    """

    def __init__(
        self, socket: AcceptedSocket, host: Host, model: str, shortcut: AudioShortcut | None = None, *, tenant: str = ""
    ) -> None:
        """Prepare the conversation.

        Args:
            socket: The accepted WebSocket.
            host: The host that runs the session.
            model: The model name that the client requested.
            shortcut: The connection's fast path for audio, if it has one.
            tenant: Name under which the answer cache keeps this client's answers, derived from the API key.
        """
        settings = host.services.settings.host
        self._socket = socket
        self._shortcut = shortcut or _NoShortcut()
        self._host = host
        self._model = model
        self._tenant = tenant
        self._max_s = settings.session_max_s
        self._outgoing: asyncio.Queue[Json] = asyncio.Queue(settings.send_queue_events)
        self._overflow = asyncio.Event()
        self._decode = WireDecoder()

    async def converse(self) -> None:
        """Run the conversation until the client or the host ends it.

        Cancelling ends the session and cancels all its engine calls.
        """
        try:
            async with self._host.converse(secrets.token_hex(6), self._send, self._model, self._tenant) as session:
                end = await _first_of(
                    self._read(session), self._write(), self._disconnect_slow(), self._expire(session)
                )
        except Exception:  # catch everything here: a bug ends this call and no other
            logger.exception("session failed")
            self._host.services.metrics.error("internal", "session")
            end = _End(CLOSE_INTERNAL_ERROR, "internal error")
        if end.code is not None:
            await self._socket.close(end.code, end.reason)

    def _send(self, event: Json) -> None:
        try:
            self._outgoing.put_nowait(event)
        except asyncio.QueueFull:
            self._overflow.set()

    async def _write(self) -> _End:
        try:
            while True:
                await self._socket.send_text(encode(await self._outgoing.get()))
        except WebSocketDisconnect:
            return _End(None)

    async def _read(self, session: Session) -> _End:
        self._shortcut.attend(lambda message: self._take_audio(session, message))
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return _End(None)
                text = message.get("text")
                await self._take(session, text if text is not None else message.get("bytes") or b"")
                self._shortcut.answered()
        finally:
            self._shortcut.attend(None)

    def _take_audio(self, session: Session, message: bytes) -> bool:
        """Append the audio of an `input_audio_buffer.append` event and return True. Return False for any other message.

        The fast path calls this only if all earlier messages have been processed.
        """
        audio = client.plain_append(message)
        if audio is None:
            return False
        session.append_audio(self._decode(audio))
        return True

    async def _take(self, session: Session, message: str | bytes) -> None:
        try:
            event = client.parse(message)
        except client.MalformedEvent as fault:
            session.reject(fault, fault.client_event_id)
            return
        if isinstance(event, client.AppendAudio):
            session.append_audio(self._decode(event.audio))
        elif isinstance(event, client.UpdateSession):
            await session.configure(event)
            if self._decode.format is not session.config.input_format:
                self._decode = WireDecoder(session.config.input_format)
        else:
            if isinstance(event, client.CommitAudio | client.ClearAudio):
                self._decode.end_stream()
            await session.submit(event)

    async def _disconnect_slow(self) -> _End:
        await self._overflow.wait()
        self._host.services.metrics.error("caller", "slow_client")
        return _End(CLOSE_TRY_LATER, "the client does not read its events")

    async def _expire(self, session: Session) -> _End:
        await asyncio.sleep(self._max_s)
        fault = CallerError(f"The session reached its limit of {self._max_s:g} s.", "Open a new one.")
        event = server.error(fault, None)
        event["error"]["code"] = "session_expired"
        session.emit(event)
        await asyncio.sleep(0)
        return _End(CLOSE_GOING_AWAY, "session expired")


async def _first_of(*works: Coroutine[Any, Any, _End]) -> _End:
    """Run coroutines until one ends, cancel the others, and return its result or raise its exception."""
    tasks = {asyncio.ensure_future(work) for work in works}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done.pop().result()
