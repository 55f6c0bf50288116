"""WebSocket connection of a caller: the OpenAI Realtime protocol over picows.

`dial` connects and configures a session, `redial` connects to a session that lost its connection. The caller sends
audio only after that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast
from urllib.parse import urlencode

import orjson
import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from loadtest.callers.resume_state import RESUMED
from loadtest.callers.silence_watch import SILENT_S, ServerWatch, SilenceStep
from loadtest.scenario.utterances import FRAME_S
from rejoinder.core.wire.formats import AudioFormat

SETUP_TIMEOUT_S = 10.0
"""Timeout in seconds for the connection and the session's confirmation. A server normally confirms at once."""

REDIAL_TIMEOUT_S = 2.0
"""Timeout in seconds of one attempt to continue a session. The next attempt may reach another entry."""

WRITE_STALL_S = 5.0
"""A call is dropped if the server does not read its audio for this number of seconds."""

MAX_EVENT_BYTES = 4 * 1024 * 1024


class CallRefused(Exception):
    """The server refused the WebSocket upgrade.

    Attributes:
        status: HTTP status of the refusal, or 0 if the answer was not HTTP.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def session_update(wire: AudioFormat, turn_detection: str, silence_ms: int, *, transcribed: bool = False) -> bytes:
    """Return the `session.update` event that configures a caller's session, as JSON.

    Args:
        wire: Audio format in both directions.
        turn_detection: semantic_vad or server_vad.
        silence_ms: Silence that ends a turn with server_vad, in milliseconds.
        transcribed: True if the server is to send transcripts of the caller's speech.
    """
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
    """The caller of a call. It supplies the messages to send and receives the server's events."""

    def leaving(self, due: float) -> Sequence[bytes]:
        """Return the messages to send at the audio frame's deadline `due`, in seconds of the monotonic clock."""
        ...

    def take(self, message: bytes, arrived: float) -> None:
        """Handle a server event that arrived at `arrived`, in seconds of the monotonic clock."""
        ...


class CallSocket(WSListener):
    """WebSocket connection of one call.

    Attributes:
        participant: The caller that `begin` has set, or None before.
        on_unsent: Called with the deadline of each frame that is due after the connection was lost, or None.
        sent: Number of messages that `send_frame` has sent.
        bytes_sent: Payload bytes of the messages that `send_frame` has sent.
        bytes_received: Payload bytes of all frames received.
        created: The event `session.created`, empty before it has arrived.
        rtts_s: Round-trip times of the answered pings, in seconds.
        lost: True once the connection has ended.
        cause: Reason for the end of the connection, in words. Valid only if `lost` is true.
        close_code: Code of the server's close frame, 0 without one.
        ready: Future that completes with the event that confirms the session: `session.updated`, or
            `rejoinder.session.resumed` for a session that continues. It fails with ConnectionError if the server
            reports an error or closes the connection.
    """

    def __init__(self, configure: bytes | None, on_lost: Callable[[CallSocket], None]) -> None:
        """Create the listener of a connection.

        Args:
            configure: The `session.update` event to send first. None to continue a session, which has its settings.
            on_lost: Called once when the connection ends, also after `close`.
        """
        self.participant: CallParticipant | None = None
        self.on_unsent: Callable[[float], None] | None = None
        self.sent = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.rtts_s: list[float] = []
        self.lost = False
        self.cause = "the connection broke"
        self.close_code = 0
        self.created: dict[str, Any] = {}
        self.ready: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._early: list[tuple[bytes, float]] = []
        self._configure = configure
        self._on_lost = on_lost
        self._transport: WSTransport | None = None
        self._fragments: list[bytes] = []
        self._blocked_since: float | None = None
        self._last_sent_due = 0.0
        self._watch = ServerWatch(time.monotonic())

    # -- callbacks that picows calls -------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Send the `session.update` event that configures the session, if it is a new one."""
        self._transport = transport
        if self._configure is not None:
            transport.send(WSMsgType.TEXT, self._configure)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one WebSocket frame.

        A complete event goes to the participant, and fragments of an event are joined first. A ping is answered, a
        pong gives a round-trip time, and a close frame ends the connection.
        """
        arrived = time.monotonic()
        self._watch.heard()
        kind = frame.msg_type
        payload = frame.get_payload_as_bytes()
        self.bytes_received += len(payload)
        if kind == WSMsgType.PONG:
            self.rtts_s.append(arrived - int(payload) / 1e9)
        elif kind == WSMsgType.PING:
            transport.send_pong(payload)
        elif kind == WSMsgType.CLOSE:
            self.close_code = int.from_bytes(payload[:2])
            self.cause = f"closed by the server, code {self.close_code} {frame.get_close_reason()}".rstrip()
            transport.disconnect()
        elif not frame.fin or self._fragments:
            self._fragments.append(payload)
            if frame.fin:
                whole, self._fragments = b"".join(self._fragments), []
                self._handle_event(whole, arrived)
        else:
            self._handle_event(payload, arrived)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Mark the connection as lost, let `ready` fail if it has not completed, and call `on_lost`."""
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the connection before the session started"))
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Record when the send buffer became full. `send_frame` disconnects a call that stays blocked."""
        self._blocked_since = time.monotonic()

    def resume_writing(self) -> None:
        """Record that the send buffer has room again."""
        self._blocked_since = None

    # -- methods for the load generator ----------------------------------------------------------------------------

    def send_frame(self, due: float) -> int:
        """Send the participant's messages for one frame deadline and return their number.

        After the loss of the connection, call `on_unsent` instead.
        Disconnect the call if the send buffer has been full for more than `WRITE_STALL_S` seconds.

        Args:
            due: The deadline in seconds of the monotonic clock.
        """
        participant, transport = self.participant, self._transport
        if participant is None or transport is None:
            return 0
        if self.lost:
            if self.on_unsent:
                self.on_unsent(due)
            return 0
        messages = participant.leaving(due)
        for message in messages:
            transport.send(WSMsgType.TEXT, message)
            self.bytes_sent += len(message)
        self.sent += len(messages)
        self._last_sent_due = due if messages else 0.0
        if self._blocked_since is not None and time.monotonic() - self._blocked_since > WRITE_STALL_S:
            self.cause = f"the server read nothing for {WRITE_STALL_S:g} s"
            transport.disconnect()
        return len(messages)

    def overdue_frames(self, now: float) -> int:
        """Return the number of audio frames that were due by `now` and have not been sent, because the pacer is late.

        `now` is in seconds of the monotonic clock. The result is 0 while the caller is muted.
        """
        return int((now - self._last_sent_due) / FRAME_S) if self._last_sent_due else 0

    def watch(self, now: float, *, leave: bool) -> None:
        """Ping the server when a ping is due, and drop the connection of a server that is silent for SILENT_S.

        Call this every second. The round-trip time of a ping is appended to `rtts_s` when its pong arrives.

        Args:
            now: Time in seconds of the monotonic clock.
            leave: False to keep the connection of a silent server.
        """
        if self._transport is None or self.lost:
            return
        match self._watch.check(now):
            case SilenceStep.PING:
                self._transport.send_ping(str(time.monotonic_ns()).encode())
            case SilenceStep.LOST if leave:
                self.cause = f"the server was silent for {SILENT_S:g} s"
                # Not gracefully: the server does not read what waits to be sent.
                self._transport.disconnect(False)

    def send_event(self, message: bytes) -> None:
        """Send an event at once, outside the pacing of audio frames, for example a truncation."""
        if self._transport and not self.lost:
            self._transport.send(WSMsgType.TEXT, message)

    def begin(self, participant: CallParticipant) -> None:
        """Start the call: from now on, `participant` receives the server's events and supplies the messages to send.

        It first receives the events that have arrived since the server confirmed the session.
        """
        self.participant = participant
        for message, arrived in self._early:
            participant.take(message, arrived)
        self._early.clear()

    async def close(self) -> None:
        """Send a close frame, wait up to 1 s for the server to disconnect, and else disconnect."""
        if self._transport is None:
            return
        self._transport.send_close(picows.WSCloseCode.OK)
        try:
            async with asyncio.timeout(1.0):
                await self._transport.wait_disconnected()
        except TimeoutError:
            self._transport.disconnect()

    def _handle_event(self, message: bytes, arrived: float) -> None:
        if self.participant:
            self.participant.take(message, arrived)
        elif self.ready.done():
            self._early.append((message, arrived))
        else:
            event = orjson.loads(message)
            if event["type"] == "session.created":
                self.created = event
            elif event["type"] == ("session.updated" if self._configure is not None else RESUMED):
                self.ready.set_result(event)
            elif event["type"] == "error":
                self.ready.set_exception(ConnectionError(str(event["error"].get("message"))))


async def dial(url: str, key: str, configure: bytes, on_lost: Callable[[CallSocket], None]) -> CallSocket:
    """Connect to a server and configure the session.

    Args:
        url: OpenAI base URL with ws:// or wss://.
        key: API key.
        configure: The `session.update` event to send first.
        on_lost: Called once, with the socket, when the connection ends.

    Raises:
        CallRefused: The server refused the WebSocket upgrade.
        ConnectionError: The server cannot be reached, rejects the session, or closes the connection.
        TimeoutError: The session is not confirmed within `SETUP_TIMEOUT_S`.
    """
    return await _connected(
        f"{url}/realtime?model=rejoinder", key, lambda: CallSocket(configure, on_lost), SETUP_TIMEOUT_S
    )


async def redial(url: str, key: str, query: Mapping[str, str], on_lost: Callable[[CallSocket], None]) -> CallSocket:
    """Connect to a server and continue a session there.

    Args:
        url: OpenAI base URL with ws:// or wss://.
        key: API key.
        query: Query parameters that name the session, from `ResumeState.query`.
        on_lost: Called once, with the socket, when the connection ends.

    Raises:
        CallRefused: The server refused the WebSocket upgrade.
        ConnectionError: The server cannot be reached, does not continue the session, or closes the connection.
        TimeoutError: The session does not continue within `REDIAL_TIMEOUT_S`.
    """
    address = f"{url}/realtime?{urlencode({'model': 'rejoinder', **query})}"
    return await _connected(address, key, lambda: CallSocket(None, on_lost), REDIAL_TIMEOUT_S)


async def _connected(address: str, key: str, listener: Callable[[], CallSocket], timeout_s: float) -> CallSocket:
    """Connect to a WebSocket address and return the socket once the server has confirmed the session."""
    async with asyncio.timeout(timeout_s):
        try:
            _, created = await picows.ws_connect(
                listener,
                address,
                extra_headers={"Authorization": f"Bearer {key}"},
                max_frame_size=MAX_EVENT_BYTES,
                logger_name="loadtest",
            )
        except picows.WSInvalidStatusError as error:
            raise CallRefused(_status(error)) from error
        except (picows.WSError, OSError) as error:
            raise ConnectionError(str(error)) from error
        socket = cast(CallSocket, created)
        try:
            await socket.ready
        except BaseException:
            await socket.close()
            raise
        return socket


def _status(error: picows.WSInvalidStatusError) -> int:
    response = getattr(error, "response", None)
    return int(getattr(response, "status", 0) or 0)
