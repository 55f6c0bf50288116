"""A scripted conversation with a server in real time, over the unmodified `openai` client.

A conversation runs three tasks: one sends a microphone frame at every deadline, one receives events with their arrival
times, and one measures the round-trip time with pings.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeErrorEvent, RealtimeSessionCreateRequestParam, SessionUpdatedEvent
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from loadtest.callers.compat import ping
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedCaller, ScriptedLine, Truncate
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
MODEL = "rejoinder"

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


async def talk(
    server: ServerAddress, lines: list[ScriptedLine], behavior: ScriptedBehavior, on_turn: Callable[[TurnRecord], None]
) -> HeldCall:
    """Run one conversation with a server and return it. Cancelling the task hangs up.

    If the connection is lost during the conversation, the remaining turns are unanswered and the reason is in the
    caller's `faults`.

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


async def _send_frames(
    connection: AsyncRealtimeConnection, call: HeldCall, on_turn: Callable[[TurnRecord], None]
) -> None:
    """Send a microphone frame at every deadline until the conversation is finished or the connection is lost.

    Call `on_turn` with the record of each turn when it is over.
    """
    clock = asyncio.get_running_loop().time
    caller, reported = call.dialogue, 0
    while not caller.finished:
        due = caller.microphone.due
        if (early := due - clock()) > 0:
            await asyncio.sleep(early)
        audio = base64.b64encode(caller.next_frame()).decode("ascii")
        try:
            await connection.input_audio_buffer.append(audio=audio)
        except ConnectionClosed:
            return  # the connection is lost; `_receive_events` records why
        call.lateness_s.append(clock() - due)
        if reported < caller.closed:
            for record in caller.records()[reported : caller.closed]:
                on_turn(record)
            reported = caller.closed


async def _receive_events(connection: AsyncRealtimeConnection, caller: ScriptedCaller) -> None:
    """Pass server events to `caller` until the connection is lost, and send the truncations that `caller` returns."""
    clock = asyncio.get_running_loop().time
    try:
        while True:
            message = await connection.recv_bytes()
            arrived = clock()
            command = caller.take(connection.parse_event(message), arrived)
            if command:
                await truncate(connection, command)
    except ConnectionClosed as closed:
        caller.faults.append(f"the connection was lost ({closed}).")


async def truncate(connection: AsyncRealtimeConnection, command: Truncate) -> None:
    """Tell the server how much of a reply was played."""
    await connection.conversation.item.truncate(
        item_id=command.item_id, content_index=0, audio_end_ms=command.audio_end_ms
    )


async def _ping(connection: AsyncRealtimeConnection, caller: ScriptedCaller) -> None:
    try:
        while True:
            await asyncio.sleep(PING_PERIOD_S)
            caller.round_trip(await ping(connection))
    except ConnectionClosed:
        return  # the connection is lost; `_receive_events` records why


@asynccontextmanager
async def connected(server: ServerAddress) -> AsyncIterator[AsyncRealtimeConnection]:
    """Connect to a server, configure the session as in `SESSION`, yield the connection and close it at the end.

    Raises:
        BackendError: The server cannot be reached or rejects the session.
        CallerError: The server rejects the API key.
        Overloaded: The server has no free session.
    """
    async with AsyncExitStack() as stack:
        connection = await _first(server, stack)
        await _configure(connection)
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
    base_url = url.replace("ws", "http", 1)
    client = await stack.enter_async_context(AsyncOpenAI(api_key=api_key, base_url=base_url, websocket_base_url=url))
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await client.realtime.connect(model=MODEL).enter()
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise _refusal(url, error) from error
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


async def _configure(connection: AsyncRealtimeConnection) -> None:
    """Configure the session as in `SESSION`. Raise BackendError if the server rejects or does not confirm it."""
    await connection.session.update(session=SESSION)
    try:
        async with asyncio.timeout(SETUP_TIMEOUT_S):
            async for event in connection:
                if isinstance(event, SessionUpdatedEvent):
                    return
                if isinstance(event, RealtimeErrorEvent):
                    raise BackendError(f"The server rejects the session: {event.error.message}")
    except TimeoutError:
        raise BackendError(f"The server did not confirm the session within {SETUP_TIMEOUT_S:g} s.") from None
    except ConnectionClosed as closed:
        raise BackendError(f"The server closed the connection before the session started ({closed}).") from None
    raise BackendError("The server closed the connection before the session started.")
