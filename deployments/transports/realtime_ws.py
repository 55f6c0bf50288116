"""OpenAI Realtime over WebSocket: JSON and base64 on one side, a session and 16 kHz PCM on the other.

Three tasks a socket: the session, a reader (which stops reading while the session's mailbox is full), and a writer
behind a bounded queue. A client that does not read its audio until that queue is full is disconnected: its
conversation is over anyway, and nobody else may wait for it.
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
    """An accepted WebSocket, as starlette has it."""

    async def receive(self) -> Mapping[str, Any]: ...
    async def send_text(self, data: str) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class AudioShortcut(Protocol):
    """The connection below: it offers messages before they become events (`CallProtocol`)."""

    def attend(self, take: Callable[[bytes], bool] | None) -> None: ...
    def answered(self) -> None: ...


class _NoShortcut:
    """Every message comes by `receive`."""

    def attend(self, take: Callable[[bytes], bool] | None) -> None: ...
    def answered(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _End:
    """How a conversation ended; `code` closes the socket, None if the client did."""

    code: int | None
    reason: str = ""


def encode(event: Json) -> str:
    """A server event as the wire has it: audio in base64."""
    delta = event.get("delta")
    if isinstance(delta, bytes):
        event = event | {"delta": base64.b64encode(delta).decode("ascii")}
    return json.dumps(event, separators=(",", ":"))


class RealtimeSocket:
    """One connection; `converse` ends when either side is done. Needs a seat, taken before the upgrade."""

    def __init__(
        self, socket: AcceptedSocket, host: Host, model: str, shortcut: AudioShortcut | None = None, *, tenant: str = ""
    ) -> None:
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
        """Hold the conversation; cancelling it ends the session and every engine call of it."""
        try:
            async with self._host.converse(secrets.token_hex(6), self._send, self._model, self._tenant) as session:
                end = await _first_of(
                    self._read(session), self._write(), self._disconnect_slow(), self._expire(session)
                )
        except Exception:  # the one boundary of a session: a bug ends this call, not the host's others
            logger.exception("a session broke")
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
        self._shortcut.attend(lambda message: self._hear(session, message))
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

    def _hear(self, session: Session, message: bytes) -> bool:
        """Take a message at once if it is nothing but audio; nothing that came before it is still to be done."""
        audio = client.plain_append(message, self._decode.sample_bytes)
        if audio is None:
            return False
        session.hear(self._decode(audio))
        return True

    async def _take(self, session: Session, message: str | bytes) -> None:
        try:
            event = client.parse(message, self._decode.sample_bytes)
        except client.MalformedEvent as fault:
            session.reject(fault, fault.client_event_id)
            return
        if isinstance(event, client.AppendAudio):
            session.hear(self._decode(event.audio))
        elif isinstance(event, client.UpdateSession):
            await session.configure(event)
            if self._decode.format is not session.config.input_format:
                self._decode = WireDecoder(session.config.input_format)
        else:
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
    """Run all until one ends; the others are cancelled. An exception of any is raised."""
    tasks = {asyncio.ensure_future(work) for work in works}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done.pop().result()
