"""OpenAI Realtime over WebSocket: JSON with base64 audio on the wire, 16 kHz PCM in the session.

Each connection has a session, a reader and a writer. The reader stops reading while the session's queue of incoming
events is full. The writer sends events from a queue, whose length and size in bytes are bounded. If the queue is full
or nothing is sent for long because the client does not read, the client is disconnected: it has lost the conversation
already, and waiting for it would delay others. A client that sends nothing for long is disconnected too, because it
takes the place of another.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

from actors.host import Host
from actors.session import Session
from actors.stages.ports import AudioOutput
from actors.survival.session_record import SessionOrigin
from deployments.transports.conversation import CLOSE_GOING_AWAY, CLOSE_TRY_LATER, End, converse, opening_of
from rejoinder.core.access.activity import ConnectionActivity, Inactivity
from rejoinder.core.wire import client
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat, WireDecoder
from rejoinder.core.wire.session import SessionConfig

CLOSE_UNSUPPORTED = 1003
CLOSE_NORMAL = 1000
"""Code with which a client ends its session. Any other code, and uvicorn's 1005 for a connection that broke, leaves the
session to be resumed.
"""
CLOSE_HANGUP = frozenset({CLOSE_NORMAL, CLOSE_GOING_AWAY})
"""Codes with which callers hang up: a client that ends its session, and a page that is left."""
AGENT_ENDED = "the agent has hung up"
"""Reason of a disconnection that the agent caused, so that it does not count as the caller's hang-up."""
CLOSE_NO_CODE = 1005
"""What uvicorn reports for a close frame without a code, as of a browser's `close()`, and for a connection that broke.
Only of a close frame it also reports the reason.
"""
CLOSE_LIMITS = frozenset({1008, 1009})
"""Codes with which `CallProtocol` closes the connection of a client that breaks a limit."""

WATCH_S = 1.0
"""Seconds between two checks whether the client still sends and reads."""
CLOSE_S = 2.0
"""Seconds that a close frame may wait because the client does not read. Then the connection is dropped without it."""
FOREIGN_MESSAGES = 10
"""Messages in a row that are not events of this API, such as raw audio, after which the connection ends."""
PIECE_BYTES = 65_536
"""Size of the pieces in which the audio of a large message is resampled. Each takes about a millisecond, and other
calls are served between two of them. Even, so that no sample is cut.
"""


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
    """Protocol of the connection below the ASGI socket: its fast path for audio, and its limits.

    `CallProtocol` in `call_protocol.py` implements it.
    """

    def attend(self, take: Callable[[bytes], bool] | None) -> None:
        """Offer text messages to the function `take` before they become ASGI messages.

        `take` returns True if it has consumed the message. With None, no more messages are offered.
        """
        ...

    def when_stopped(self, act: Callable[[], None] | None) -> None:
        """Call `act` when the server stops because the host is being drained; None to call nothing."""
        ...

    def when_pinged(self, act: Callable[[float], None] | None) -> None:
        """Call `act` with the round-trip time to the client in seconds whenever it is measured; None to call nothing.

        A connection whose other end is not the caller's device measures none.
        """
        ...

    def answered(self) -> None:
        """Record that one message from `AcceptedSocket.receive` has been processed."""
        ...

    def charge(self, size: int) -> None:
        """Count an event of `size` bytes, which is not audio, against what the client may cause in a second."""
        ...

    def abort_after(self, seconds: float) -> None:
        """Drop the connection after some seconds, with all data that the client has not read."""
        ...


class _NoShortcut:
    """`AudioShortcut` that does nothing, for a connection without a fast path and without limits.

    Every message then arrives by `AcceptedSocket.receive`.
    """

    def attend(self, take: Callable[[bytes], bool] | None) -> None: ...
    def when_stopped(self, act: Callable[[], None] | None) -> None: ...
    def when_pinged(self, act: Callable[[float], None] | None) -> None: ...
    def answered(self) -> None: ...
    def charge(self, size: int) -> None: ...
    def abort_after(self, seconds: float) -> None: ...


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
        self,
        socket: AcceptedSocket,
        host: Host,
        config: SessionConfig,
        shortcut: AudioShortcut | None = None,
        *,
        tenant: str = "",
        owner: str = "",
        origin: SessionOrigin | None = None,
        key: str = "",
    ) -> None:
        """Prepare the conversation.

        Args:
            socket: The accepted WebSocket.
            host: The host that runs the session.
            config: The configuration with which the session begins.
            shortcut: The connection's fast path for audio, if it has one.
            tenant: Name under which the answer cache keeps this client's answers, derived from the API key.
            owner: Digest of the client's API key; "" if the host has no keys.
            origin: What the session goes on with; None for a new session. Its configuration replaces `config`.
            key: Makes the session's ids unique among all sessions; "" for a random one.
        """
        settings = host.services.settings
        self._socket = socket
        self._shortcut = shortcut or _NoShortcut()
        self._host = host
        self._opening = opening_of(host, config, tenant=tenant, owner=owner, origin=origin, key=key)
        self._limits = settings.limits
        self._stored = host.services.stored
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(settings.host.send_queue_events)
        # Bytes of the events in the queue and of the one that is being sent.
        self._unsent = 0
        self._received = self._sent = self._foreign = 0
        self._overflow = asyncio.Event()
        self._decode = WireDecoder(self._opening.config.input_format)

    async def converse(self) -> None:
        """Run the conversation until the client or the host ends it.

        Cancelling ends the session and cancels all its engine calls.
        """
        try:
            self._shortcut.when_stopped(self._host.drain)
            self._shortcut.when_pinged(partial(self._host.services.metrics.round_trip, transport="websocket"))
            end = await converse(self, self._host, self._opening)
        finally:
            self._shortcut.when_stopped(None)
            self._shortcut.when_pinged(None)
            self._stored.release(self._unsent)
        if end.code is not None:
            await self._close(end.code, end.reason)

    @property
    def output(self) -> AudioOutput | None:
        """None: the client gets the audio in events and plays it itself (`Transport`)."""
        return None

    def carry(self, session: Session) -> Sequence[Coroutine[Any, Any, End]]:
        """Return the coroutines that carry the session (`Transport`)."""
        return self._read(session), self._write(), self._disconnect_slow(), self._watch()

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code, reason)
        except TimeoutError:
            self._shortcut.abort_after(0.0)

    def send(self, event: Json) -> None:
        """Put an event into the queue of the writer. Disconnect the client if that exceeds a limit."""
        if self._overflow.is_set():
            return
        text = encode(event)
        if not isinstance(event.get("delta"), bytes):
            self._shortcut.charge(len(text))
        if self._unsent + len(text) > self._limits.unsent_bytes or self._outgoing.full():
            self._overflow.set()
        elif self._stored.take(len(text)):
            self._unsent += len(text)
            self._outgoing.put_nowait(text)
        else:
            self._overflow.set()

    async def _write(self) -> End:
        try:
            while True:
                text = await self._outgoing.get()
                await self._socket.send_text(text)
                self._sent += 1
                self._unsent -= len(text)
                self._stored.release(len(text))
        except WebSocketDisconnect:
            return End(None)

    async def _read(self, session: Session) -> End:
        self._shortcut.attend(lambda message: self._take_audio(session, message))
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    if message.get("code") in CLOSE_LIMITS:
                        self._host.services.metrics.error("caller", "limit")
                    if _is_hangup(message):
                        session.hung_up()
                    if session.record and message.get("code") == CLOSE_NORMAL:
                        session.record.ended = True
                    return End(None)
                self._received += 1
                text = message.get("text")
                await self._take(session, text if text is not None else message.get("bytes") or b"")
                self._shortcut.answered()
                if self._foreign >= FOREIGN_MESSAGES:
                    self._host.services.metrics.error("caller", "foreign")
                    return End(CLOSE_UNSUPPORTED, "these are no events of the OpenAI Realtime API")
                # A burst of messages waits in a queue, and taking them out would not let other calls run.
                await asyncio.sleep(0)
        finally:
            self._shortcut.attend(None)

    def _take_audio(self, session: Session, message: bytes) -> bool:
        """Append the audio of an `input_audio_buffer.append` event and return True. Return False for any other message.

        The fast path calls this only if all earlier messages have been processed.
        """
        audio = client.plain_append(message)
        if audio is None:
            return False
        self._received += 1
        session.append_audio(self._decode(audio))
        return True

    async def _take(self, session: Session, message: str | bytes) -> None:
        try:
            event = client.parse(message, self._limits.message_bytes)
        except client.MalformedEvent as fault:
            self._foreign = self._foreign + 1 if fault.foreign else 0
            session.reject(fault, fault.client_event_id)
            return
        self._foreign = 0
        if isinstance(event, client.AppendAudio):
            await self._append(session, event.audio)
        elif isinstance(event, client.UpdateSession):
            await session.configure(event)
            if self._decode.format is not session.config.input_format:
                self._decode = WireDecoder(session.config.input_format)
        else:
            if isinstance(event, client.CreateItem) and event.clip:
                event = replace(event, clip=await _resampled(event.clip, session.config.input_format))
            if isinstance(event, client.CommitAudio | client.ClearAudio):
                self._decode.end_stream()
            await session.submit(event)

    async def _append(self, session: Session, audio: bytes) -> None:
        """Append audio of any length in pieces of PIECE_BYTES, and let other calls run between two pieces."""
        session.append_audio(self._decode(audio[:PIECE_BYTES]))
        for at in range(PIECE_BYTES, len(audio), PIECE_BYTES):
            await asyncio.sleep(0)
            session.append_audio(self._decode(audio[at : at + PIECE_BYTES]))

    async def _watch(self) -> End:
        """Return when the client has sent nothing or read nothing for too long."""
        clock = asyncio.get_running_loop().time
        activity = ConnectionActivity(self._limits, clock())
        while True:
            await asyncio.sleep(WATCH_S)
            reason = activity.check(clock(), self._received, self._sent, waiting=self._unsent > 0)
            if reason is None:
                continue
            self._host.services.metrics.error("caller", reason.value)
            if reason is Inactivity.UNREAD:
                return End(CLOSE_TRY_LATER, "the client does not read its events")
            return End(CLOSE_GOING_AWAY, "the client sent no event and no audio")

    async def _disconnect_slow(self) -> End:
        await self._overflow.wait()
        self._host.services.metrics.error("caller", "slow_client")
        return End(CLOSE_TRY_LATER, "the client does not read its events")


def _is_hangup(message: Mapping[str, Any]) -> bool:
    """Return True if the client has closed the connection, as the ASGI message websocket.disconnect says."""
    code = message.get("code")
    if message.get("reason") == AGENT_ENDED:
        return False
    return code in CLOSE_HANGUP or (code == CLOSE_NO_CODE and "reason" in message)


async def _resampled(clip: bytes, wire: AudioFormat) -> bytes:
    """Return a whole recording in a wire format as 16-bit PCM at 16 kHz. Other calls run between two pieces of it."""
    decode, pieces = WireDecoder(wire), []
    for at in range(0, len(clip), PIECE_BYTES):
        pieces.append(decode(clip[at : at + PIECE_BYTES]))
        await asyncio.sleep(0)
    return b"".join(pieces)
