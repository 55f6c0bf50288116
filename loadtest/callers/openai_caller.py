"""A scripted conversation with a server in real time, over the unmodified `openai` client.

A conversation runs three tasks: one sends a microphone frame at every deadline, one receives events with their arrival
times, and one measures the round-trip time with pings. If the connection is lost, the conversation continues on another
one, if the server offers that.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import (
    RealtimeErrorEvent,
    RealtimeServerEvent,
    RealtimeSessionCreateRequestParam,
    SessionUpdatedEvent,
)
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from loadtest.callers.compat import ping
from loadtest.callers.resume_state import (
    ELSEWHERE,
    GONE_STATUSES,
    MOVE,
    RESUMED,
    Position,
    ResumeState,
    SessionGone,
    reconnect,
)
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedCaller, ScriptedLine, Truncate
from loadtest.callers.silence_watch import SILENT_S
from loadtest.results.turn_record import TurnRecord
from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded, RejoinderError

LATENESS_LIMIT_MS = 5.0
"""Maximum acceptable 99th percentile of the delay of frames, in milliseconds. A caller with more delay measures its own
delay and not the server's."""

PING_PERIOD_S = 0.5
# Time limit in seconds for the confirmation of the session. The server normally confirms at once.
SETUP_TIMEOUT_S = 10.0
# Time limit in seconds for the connection, after which the next server is tried.
CONNECT_S = 10.0
# Time limit in seconds of one attempt to continue a session. The next attempt may reach another entry.
RESUME_S = 2.0
MODEL = "rejoinder"
KEEPALIVE = cast(
    WebSocketConnectionOptions, {"ping_interval": 1.0, "ping_timeout": SILENT_S - 1.0, "close_timeout": 0.5}
)
"""Settings of the WebSocket by which a silent server is noticed within about SILENT_S: it is pinged every second. A
connection that breaks or is closed is given up half a second later, if the server does not answer."""

SESSION: RealtimeSessionCreateRequestParam = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "whisper"},
            "turn_detection": {"type": "semantic_vad"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}},
    },
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Address of a server.

    Attributes:
        url: OpenAI base URL with ws:// or wss://, for example ws://127.0.0.1:8000/v1.
        api_key: API key.
        fallbacks: Further URLs, which are tried in this order if the servers before do not take the call.

    Raises:
        ConfigError: A URL is not a WebSocket URL.
    """

    url: str
    api_key: str = "none"
    fallbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for url in (self.url, *self.fallbacks):
            try:
                parts = urlsplit(url)
                valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port or 1) > 0
            except ValueError:
                valid = False
            if not valid:
                raise ConfigError(f"{url!r} is not a WebSocket URL.", "Write ws://HOST:PORT/v1.", field="--url")


@dataclass(slots=True)
class HeldCall:
    """A finished conversation.

    Attributes:
        dialogue: The caller, with the records of its turns.
        lateness_s: Delay of each sent frame after its deadline, in seconds.
    """

    dialogue: ScriptedCaller
    lateness_s: list[float] = field(default_factory=list)

    def lateness_ms(self) -> tuple[float, float]:
        """Return (99th percentile by nearest rank, maximum) of the frames' delays, in milliseconds."""
        if not self.lateness_s:
            return 0.0, 0.0
        p99 = np.percentile(self.lateness_s, 99, method="inverted_cdf")
        return float(p99) * 1000, max(self.lateness_s) * 1000


class ResumableCaller(Protocol):
    """The caller of a conversation that can continue on another connection."""

    def position(self) -> Position | None:
        """Return how much of the newest reply the caller has. None without a reply."""
        ...

    def resumed(self, heard: str | None) -> None:
        """Note that the session continues.

        `heard` are the words that the caller has heard of the newest reply, if the next response continues it; else
        None.
        """
        ...


class ServerConnection:
    """Connection to a server, which is replaced when it is lost. Several tasks may use it at the same time."""

    def __init__(self, server: ServerAddress, connection: AsyncRealtimeConnection, stack: AsyncExitStack) -> None:
        """Wrap a connection whose session is not configured yet.

        Args:
            server: Addresses to connect to again.
            connection: The first connection.
            stack: Closes the connections that follow.
        """
        self._server = server
        self._connection = connection
        self._stack = stack
        self._resumption = ResumeState()
        self._sending = asyncio.Lock()
        self._up = asyncio.Event()
        self._up.set()

    async def append(self, pcm: bytes) -> None:
        """Send 20 ms of audio (24 kHz 16-bit PCM). While there is no connection the audio is kept and sent later."""
        frame = base64.b64encode(pcm)
        async with self._sending:
            self._resumption.sent(frame)
            with suppress(ConnectionClosed):
                await self._connection.input_audio_buffer.append(audio=frame.decode("ascii"))

    async def request(self, send: Callable[[AsyncRealtimeConnection], Awaitable[None]]) -> None:
        """Call `send` with the connection. If the connection is lost meanwhile, call it again with the next one."""
        while True:
            await self._up.wait()
            try:
                return await send(self._connection)
            except ConnectionClosed:
                self._up.clear()

    async def ping(self) -> float | None:
        """Return the round-trip time of a ping in seconds. None if the connection is lost meanwhile."""
        await self._up.wait()
        try:
            return await ping(self._connection)
        except ConnectionClosed:
            return None

    async def events(self, caller: ResumableCaller) -> AsyncIterator[tuple[RealtimeServerEvent, float]]:
        """Yield each server event with its arrival time, in seconds on the event loop's clock.

        `caller` is asked for its position when the connection is lost, and told when the session continues.

        Raises:
            ConnectionClosed: The connection was lost, and the session cannot continue.
        """
        clock = asyncio.get_running_loop().time
        while True:
            try:
                event: dict[str, Any] = json.loads(await self._connection.recv_bytes())
            except ConnectionClosed as closed:
                self._up.clear()
                elsewhere = closed.rcvd is not None and closed.rcvd.code == ELSEWHERE
                if elsewhere or not await self._continue(caller):
                    raise
                continue
            arrived = clock()
            if event.get("type") == MOVE:
                await self._continue(caller)
                continue
            self._resumption.take(event)
            yield self._connection.parse_event(json.dumps(event)), arrived

    async def configure(self) -> None:
        """Configure the session as in `SESSION`. Raise BackendError if the server rejects or does not confirm it."""
        await self._connection.session.update(session=SESSION)
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                while True:
                    message = await self._connection.recv_bytes()
                    self._resumption.take(json.loads(message))
                    match self._connection.parse_event(message):
                        case SessionUpdatedEvent():
                            return
                        case RealtimeErrorEvent(error=error):
                            raise BackendError(f"The server rejects the session: {error.message}")
                        case _:
                            pass  # session.created
        except TimeoutError:
            raise BackendError(f"The server did not confirm the session within {SETUP_TIMEOUT_S:g} s.") from None
        except ConnectionClosed as closed:
            raise BackendError(f"The server closed the connection before the session started ({closed}).") from None

    async def _continue(self, caller: ResumableCaller) -> bool:
        """Connect again and continue the session. Return False if no server continues it."""
        if self._resumption.token is None:
            return False

        async def connect(url: str) -> tuple[AsyncRealtimeConnection, dict[str, Any]]:
            try:
                return await self._reconnect(url, caller.position())
            except InvalidStatus as refusal:
                gone = refusal.response.status_code in GONE_STATUSES
                raise (SessionGone if gone else ConnectionError) from refusal
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                raise ConnectionError(str(error)) from error

        urls = (self._server.url, *self._server.fallbacks)
        connected = await reconnect(connect, urls, over=lambda: False)
        if connected is None:
            return False
        connection, event = connected
        await self._replace(connection, event)
        caller.resumed(event.get("heard_transcript"))
        return True

    async def _reconnect(self, url: str, position: Position | None) -> tuple[AsyncRealtimeConnection, dict[str, Any]]:
        """Return a connection on which the server continues the session, and its event `rejoinder.session.resumed`."""
        async with asyncio.timeout(RESUME_S):
            connection = await _open(url, self._server.api_key, self._stack, self._resumption.query(position))
            while True:
                event: dict[str, Any] = json.loads(await connection.recv_bytes())
                if event["type"] == RESUMED:
                    return connection, event
                self._resumption.take(event)

    async def _replace(self, connection: AsyncRealtimeConnection, event: dict[str, Any]) -> None:
        """Use another connection from now on. Send the audio again that the session lacks, before any newer audio."""
        old = self._connection
        async with self._sending:
            self._connection = connection
            for frame in self._resumption.resend(event):
                await connection.input_audio_buffer.append(audio=frame.decode("ascii"))
        self._up.set()
        await old.close()


async def talk(
    server: ServerAddress, lines: list[ScriptedLine], behavior: ScriptedBehavior, on_turn: Callable[[TurnRecord], None]
) -> HeldCall:
    """Run one conversation with a server and return it. Cancelling the task hangs up.

    If the connection is lost and the server does not continue the conversation, the remaining turns are unanswered and
    the reason is in the caller's `faults`.

    Args:
        server: Address of the server.
        lines: Clips to speak, in order.
        behavior: Think time and timeout of the caller.
        on_turn: Called with the record of each turn when it is over.

    Raises:
        BackendError: The server cannot be reached or rejects the session.
        CallerError: The server rejects the API key.
        Overloaded: The server has no free session.
    """
    async with connected(server) as connection:
        clock = asyncio.get_running_loop().time
        call = HeldCall(ScriptedCaller(lines, behavior, clock() + FRAME_MS / 1000))
        async with asyncio.TaskGroup() as group:
            tasks = {
                group.create_task(_send_frames(connection, call, on_turn)),
                group.create_task(_receive_events(connection, call.dialogue)),
            }
            pinging = group.create_task(_ping(connection, call.dialogue))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, pinging):
                task.cancel()
    return call


async def _send_frames(connection: ServerConnection, call: HeldCall, on_turn: Callable[[TurnRecord], None]) -> None:
    """Send a microphone frame at every deadline until the conversation is finished.

    Call `on_turn` with the record of each turn when it is over.
    """
    clock = asyncio.get_running_loop().time
    caller, reported = call.dialogue, 0
    while not caller.finished:
        due = caller.microphone.due
        if (early := due - clock()) > 0:
            await asyncio.sleep(early)
        await connection.append(caller.next_frame())
        call.lateness_s.append(clock() - due)
        if reported < caller.closed:
            for record in caller.records()[reported : caller.closed]:
                on_turn(record)
            reported = caller.closed


async def _receive_events(connection: ServerConnection, caller: ScriptedCaller) -> None:
    """Pass server events to `caller` until the connection is lost, and send the truncations that `caller` returns."""
    try:
        async for event, arrived in connection.events(caller):
            command = caller.take(event, arrived)
            if command:
                await truncate(connection, command)
    except ConnectionClosed as closed:
        caller.faults.append(f"the connection was lost ({closed}).")


async def truncate(connection: ServerConnection, command: Truncate) -> None:
    """Tell the server how much of a reply was played."""
    await connection.request(
        lambda current: current.conversation.item.truncate(
            item_id=command.item_id, content_index=0, audio_end_ms=command.audio_end_ms
        )
    )


async def _ping(connection: ServerConnection, caller: ScriptedCaller) -> None:
    while True:
        await asyncio.sleep(PING_PERIOD_S)
        took_s = await connection.ping()
        if took_s is not None:
            caller.round_trip(took_s)


@asynccontextmanager
async def connected(server: ServerAddress) -> AsyncIterator[ServerConnection]:
    """Connect to a server, configure the session as in `SESSION`, yield the connection and close it at the end.

    Raises:
        BackendError: The server cannot be reached or rejects the session.
        CallerError: The server rejects the API key.
        Overloaded: The server has no free session.
    """
    async with AsyncExitStack() as stack:
        connection = ServerConnection(server, await _first(server, stack), stack)
        await connection.configure()
        yield connection


async def _first(server: ServerAddress, stack: AsyncExitStack) -> AsyncRealtimeConnection:
    """Connect to the first server that takes the call. `stack` closes the connection.

    Raises the error of the last server if none does. A rejected API key is raised at once.
    """
    *others, last = server.url, *server.fallbacks
    for url in others:
        try:
            return await _connect(url, server.api_key, stack)
        except (BackendError, Overloaded):
            continue
    return await _connect(last, server.api_key, stack)


async def _connect(url: str, api_key: str, stack: AsyncExitStack) -> AsyncRealtimeConnection:
    try:
        async with asyncio.timeout(CONNECT_S):
            return await _open(url, api_key, stack, {})
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise _refusal(url, error) from error


async def _open(url: str, api_key: str, stack: AsyncExitStack, query: dict[str, str]) -> AsyncRealtimeConnection:
    base_url = url.replace("ws", "http", 1)
    client = await stack.enter_async_context(AsyncOpenAI(api_key=api_key, base_url=base_url, websocket_base_url=url))
    options = client.realtime.connect(model=MODEL, extra_query=query, websocket_connection_options=KEEPALIVE)
    connection = await options.enter()
    stack.push_async_callback(connection.close)
    return connection


def _refusal(url: str, error: OSError | TimeoutError | InvalidHandshake) -> RejoinderError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (429, 503):
            after_s = _seconds(error.response.headers.get("Retry-After"))
            return Overloaded(
                f"{url} has no free session (HTTP {status}).", f"Try again in {after_s:g} s.", retry_after_s=after_s
            )
        if status in (401, 403):
            return CallerError(f"{url} rejects the API key (HTTP {status}).", "Set REJOINDER_API_KEY to a valid key.")
        return BackendError(
            f"{url} answered HTTP {status} instead of accepting a WebSocket.", "Check --url; it must end in /v1."
        )
    reason = str(error) or type(error).__name__
    return BackendError(f"No answer from {url} ({reason}).", "Start the server with `rejoinder serve`, or check --url.")


def _seconds(retry_after: str | None) -> float:
    try:
        return float(retry_after or 1)
    except ValueError:  # Retry-After may also be a date. Assume 1 s instead of parsing it.
        return 1.0
