"""One caller over the wire: the stock `openai` client holds a `ScriptedCaller` with a server in real time.

Three tasks a conversation: the microphone sends a frame at every deadline, the ear takes events with their time of
arrival, and a ping measures the network.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
"""A caller whose frames leave later than this at the 99th percentile measures itself (load-facts section 2)."""

PING_PERIOD_S = 0.5
# The server greets at once; a longer wait is a fault of its own.
GREETING_TIMEOUT_S = 10.0
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
    """Where to call: `url` is the OpenAI base URL with ws:// or wss://, for example ws://127.0.0.1:8000/v1."""

    url: str
    api_key: str = "none"

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"{self.url!r} is no WebSocket address.", "Write ws://HOST:PORT/v1.", field="--url")


@dataclass(slots=True)
class HeldCall:
    """A conversation that was held, and how late its frames left (seconds after their deadlines)."""

    dialogue: ScriptedCaller
    lateness_s: list[float] = field(default_factory=list)

    def lateness_ms(self) -> tuple[float, float]:
        """99th percentile (nearest rank) and maximum."""
        if not self.lateness_s:
            return 0.0, 0.0
        p99 = np.percentile(self.lateness_s, 99, method="inverted_cdf")
        return float(p99) * 1000, max(self.lateness_s) * 1000


async def talk(
    server: ServerAddress, lines: list[ScriptedLine], behavior: ScriptedBehavior, listener: Callable[[TurnRecord], None]
) -> HeldCall:
    """Hold one conversation; `listener` gets each turn once it is over. Cancelling it hangs up.

    Raises BackendError or Overloaded if the server cannot be reached or refuses; a connection that is lost later
    leaves the remaining turns unanswered and is told in the dialogue's `faults`.
    """
    async with _connection(server) as connection:
        await _configure(connection)
        clock = asyncio.get_running_loop().time
        call = HeldCall(ScriptedCaller(lines, behavior, clock() + FRAME_MS / 1000))
        async with asyncio.TaskGroup() as group:
            tasks = {
                group.create_task(_speak(connection, call, listener)),
                group.create_task(_listen(connection, call.dialogue)),
            }
            pinging = group.create_task(_ping(connection, call.dialogue))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, pinging):
                task.cancel()
    return call


async def _speak(connection: AsyncRealtimeConnection, call: HeldCall, listener: Callable[[TurnRecord], None]) -> None:
    clock = asyncio.get_running_loop().time
    dialogue, told = call.dialogue, 0
    while not dialogue.finished:
        due = dialogue.microphone.due
        if (early := due - clock()) > 0:
            await asyncio.sleep(early)
        audio = base64.b64encode(dialogue.next_frame()).decode("ascii")
        try:
            await connection.input_audio_buffer.append(audio=audio)
        except ConnectionClosed:
            return  # the ear says why
        call.lateness_s.append(clock() - due)
        if told < dialogue.closed:
            for record in dialogue.records()[told : dialogue.closed]:
                listener(record)
            told = dialogue.closed


async def _listen(connection: AsyncRealtimeConnection, dialogue: ScriptedCaller) -> None:
    clock = asyncio.get_running_loop().time
    try:
        while True:
            message = await connection.recv_bytes()
            arrived = clock()
            command = dialogue.take(connection.parse_event(message), arrived)
            if command:
                await _truncate(connection, command)
    except ConnectionClosed as closed:
        dialogue.faults.append(f"the connection was lost ({closed}).")


async def _truncate(connection: AsyncRealtimeConnection, command: Truncate) -> None:
    await connection.conversation.item.truncate(
        item_id=command.item_id, content_index=0, audio_end_ms=command.audio_end_ms
    )


async def _ping(connection: AsyncRealtimeConnection, dialogue: ScriptedCaller) -> None:
    try:
        while True:
            await asyncio.sleep(PING_PERIOD_S)
            dialogue.round_trip(await ping(connection))
    except ConnectionClosed:
        return  # the ear says why


@asynccontextmanager
async def _connection(server: ServerAddress) -> AsyncIterator[AsyncRealtimeConnection]:
    base_url = server.url.replace("ws", "http", 1)
    async with AsyncOpenAI(api_key=server.api_key, base_url=base_url, websocket_base_url=server.url) as client:
        manager = client.realtime.connect(model=MODEL)
        try:
            connection = await manager.enter()
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise _refusal(server.url, error) from error
        try:
            yield connection
        finally:
            await connection.close()


def _refusal(url: str, error: OSError | TimeoutError | InvalidHandshake) -> RejoinderError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (429, 503):
            after_s = _seconds(error.response.headers.get("Retry-After"))
            return Overloaded(f"{url} is full (HTTP {status}).", f"Try again in {after_s:g} s.", retry_after_s=after_s)
        if status in (401, 403):
            return CallerError(f"{url} refuses the key (HTTP {status}).", "Set REJOINDER_API_KEY to a right one.")
        return BackendError(f"{url} answered HTTP {status} instead of a WebSocket.", "Check --url; it ends in /v1.")
    why = str(error) or type(error).__name__
    return BackendError(f"No answer from {url} ({why}).", "Start the server with `rejoinder serve`, or check --url.")


def _seconds(retry_after: str | None) -> float:
    try:
        return float(retry_after or 1)
    except ValueError:  # the header's other form, a date
        return 1.0


async def _configure(connection: AsyncRealtimeConnection) -> None:
    """Open the session as `SESSION` says; raises BackendError if the server does not take it."""
    await connection.session.update(session=SESSION)
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            async for event in connection:
                if isinstance(event, SessionUpdatedEvent):
                    return
                if isinstance(event, RealtimeErrorEvent):
                    raise BackendError(f"The server refuses the session: {event.error.message}")
    except TimeoutError:
        raise BackendError(f"The server did not confirm the session within {GREETING_TIMEOUT_S:g} s.") from None
    except ConnectionClosed as closed:
        raise BackendError(f"The server hung up before the session began ({closed}).") from None
    raise BackendError("The server hung up before the session began.")
