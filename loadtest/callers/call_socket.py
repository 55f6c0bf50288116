"""A simulated caller's connection: OpenAI Realtime over picows, configured before the caller speaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import orjson
import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from loadtest.scenario.utterances import FRAME_S
from rejoinder.core.wire.formats import AudioFormat

GREETING_S = 10.0
"""The server confirms the session at once; longer is a failure to set up."""

BLOCKED_S = 5.0
"""A server that does not read a caller's audio for so long has dropped the call."""

MAX_EVENT_BYTES = 4 * 1024 * 1024


class CallRefused(Exception):
    """The server refused the call with an HTTP `status`; 0 if it was none."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def session_update(wire: AudioFormat, turn_detection: str, silence_ms: int, *, transcribed: bool = False) -> bytes:
    """The session that every caller asks for; `transcribed`: with what was heard of it, in words."""
    detection: dict[str, Any] = {"type": turn_detection}
    if turn_detection == "server_vad":
        detection["silence_duration_ms"] = silence_ms
    audio = {
        "input": {
            "format": wire.wire(),
            "transcription": {"model": "whisper"} if transcribed else None,
            "turn_detection": detection,
        },
        "output": {"format": wire.wire()},
    }
    session = {"type": "realtime", "output_modalities": ["audio"], "audio": audio}
    return orjson.dumps({"type": "session.update", "session": session})


class CallParticipant(Protocol):
    """Who speaks and listens on a call."""

    def leaving(self, due: float) -> Sequence[bytes]:
        """The messages that leave at this deadline."""
        ...

    def take(self, message: bytes, arrived: float) -> None:
        """A server event."""
        ...


class CallSocket(WSListener):
    """One call; `party` is there once the session is configured, and `cause` says why it was lost if it was."""

    def __init__(self, greeting: bytes, on_lost: Callable[[CallSocket], None]) -> None:
        self.party: CallParticipant | None = None
        self.sent = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.rtts_s: list[float] = []
        self.lost = False
        self.cause = "the connection broke"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._greeting = greeting
        self._on_lost = on_lost
        self._transport: WSTransport | None = None
        self._parts: list[bytes] = []
        self._blocked_since: float | None = None
        self._reached = 0.0

    # -- picows' side ----------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.send(WSMsgType.TEXT, self._greeting)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        arrived = time.monotonic()
        kind = frame.msg_type
        payload = frame.get_payload_as_bytes()
        self.bytes_received += len(payload)
        if kind == WSMsgType.PONG:
            self.rtts_s.append(arrived - int(payload) / 1e9)
        elif kind == WSMsgType.PING:
            transport.send_pong(payload)
        elif kind == WSMsgType.CLOSE:
            self.cause = f"closed by the server, code {int.from_bytes(payload[:2])} {frame.get_close_reason()}".rstrip()
            transport.disconnect()
        elif not frame.fin or self._parts:
            self._parts.append(payload)
            if frame.fin:
                whole, self._parts = b"".join(self._parts), []
                self._take(whole, arrived)
        else:
            self._take(payload, arrived)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server hung up before the session began"))
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._blocked_since = time.monotonic()

    def resume_writing(self) -> None:
        self._blocked_since = None

    # -- ours ------------------------------------------------------------------------------------------------------

    def send_frame(self, due: float) -> int:
        """See `loadtest.generator.pacer.Paced`."""
        party, transport = self.party, self._transport
        if party is None or transport is None or self.lost:
            return 0
        messages = party.leaving(due)
        for message in messages:
            transport.send(WSMsgType.TEXT, message)
            self.bytes_sent += len(message)
        self.sent += len(messages)
        self._reached = due if messages else 0.0
        if self._blocked_since is not None and time.monotonic() - self._blocked_since > BLOCKED_S:
            self.cause = f"the server read nothing for {BLOCKED_S:g} s"
            transport.disconnect()
        return len(messages)

    def unreached(self, now: float) -> int:
        """Frames of an unmuted caller that were due by now, and that a late pacer did not come to."""
        return int((now - self._reached) / FRAME_S) if self._reached else 0

    def ping(self) -> None:
        """Measure the round trip."""
        if self._transport and not self.lost:
            self._transport.send_ping(str(time.monotonic_ns()).encode())

    def tell(self, message: bytes) -> None:
        """Send an event beside the audio."""
        if self._transport and not self.lost:
            self._transport.send(WSMsgType.TEXT, message)

    def begin(self, party: CallParticipant) -> None:
        """The session is configured: from now on the caller lives."""
        self.party = party

    async def close(self) -> None:
        """Hang up; waits a moment for the server's side of it."""
        if self._transport is None:
            return
        self._transport.send_close(picows.WSCloseCode.OK)
        try:
            async with asyncio.timeout(1.0):
                await self._transport.wait_disconnected()
        except TimeoutError:
            self._transport.disconnect()

    def _take(self, message: bytes, arrived: float) -> None:
        if self.party:
            self.party.take(message, arrived)
        elif not self.ready.done():
            event = orjson.loads(message)
            if event["type"] == "session.updated":
                self.ready.set_result(None)
            elif event["type"] == "error":
                self.ready.set_exception(ConnectionError(str(event["error"].get("message"))))


async def dial(url: str, key: str, greeting: bytes, on_lost: Callable[[CallSocket], None]) -> CallSocket:
    """A connected and configured call. Raises Refused, or ConnectionError or TimeoutError if nobody answers."""
    async with asyncio.timeout(GREETING_S):
        try:
            _, listener = await picows.ws_connect(
                lambda: CallSocket(greeting, on_lost),
                f"{url}/realtime?model=rejoinder",
                extra_headers={"Authorization": f"Bearer {key}"},
                max_frame_size=MAX_EVENT_BYTES,
                logger_name="loadtest",
            )
        except picows.WSInvalidStatusError as error:
            raise CallRefused(_status(error)) from error
        except (picows.WSError, OSError) as error:
            raise ConnectionError(str(error)) from error
        socket = cast(CallSocket, listener)
        try:
            await socket.ready
        except BaseException:
            await socket.close()
            raise
        return socket


def _status(error: picows.WSInvalidStatusError) -> int:
    response = getattr(error, "response", None)
    return int(getattr(response, "status", 0) or 0)
