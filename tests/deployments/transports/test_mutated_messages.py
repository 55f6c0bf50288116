"""Mutated messages over WebSocket and HTTP against the real transports, in one process with fake stages.

After every message the session lives, or its connection has ended with a documented close code. Nothing that a client
sends may reach the log as an error, because that is what a bug looks like.

The test sends 6,000 messages. REJOINDER_MUTATED_MESSAGES is the number for a longer run, such as 50000.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from deployments.serving.http_routes import http_app
from deployments.transports.call_protocol import CallProtocol
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import parse_keys
from rejoinder.core.settings.access.access import AccessSettings
from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.settings.settings import HostSettings, Settings
from tests.actors.fakes import CountingMetrics
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served, running

MESSAGES = int(os.environ.get("REJOINDER_MUTATED_MESSAGES", "6000"))
HTTP_SHARE = 10
"""One message of so many is an HTTP request."""
BATCH = 50
TOGETHER = 30
"""Number of concurrent HTTP requests."""
CLOSE_CODES = {1001, 1002, 1003, 1007, 1008, 1009, 1013}
"""Close codes that the documents name for what a client did. 1011 would be a bug."""
KEY = "alpha"
UVICORN_NOISE = {
    # A text that is not UTF-8, which uvicorn answers with close code 1007.
    "Invalid UTF-8 sequence received from client.",
    # A client that leaves during the handshake.
    "ASGI callable returned without completing handshake.",
}
"""What uvicorn logs as an error although the client is to blame."""

# The rates are not tested here, and would only make the test slow.
LIMITS = LimitSettings(
    messages_per_s=1e6,
    message_burst=1_000_000,
    message_bytes_per_s=1e9,
    message_bytes_burst=1_000_000_000,
    audio_bytes_per_s=1e9,
    audio_bytes_burst=1_000_000_000,
    control_frames_per_s=1e6,
    control_frame_burst=1_000_000,
)

ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
EVENTS: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.append", "audio": "AAAAAAAAAAA=" * 40},
    {"type": "input_audio_buffer.append", "event_id": "e", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": ITEM, "previous_item_id": "root"},
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "{}"}},
    {"type": "conversation.item.delete", "item_id": "i"},
    {"type": "conversation.item.retrieve", "item_id": "i"},
    {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 10},
    {"type": "response.create", "response": {"instructions": "Be brief.", "output_modalities": ["text"]}},
    {"type": "response.create", "response": {"metadata": {"a": "b"}, "max_output_tokens": 5, "tools": [TOOL]}},
    {"type": "response.cancel", "response_id": "r"},
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "instructions": "Be brief.",
            "tools": [TOOL],
            "tool_choice": "auto",
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "tracing": {"metadata": {"k": "v"}},
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 300},
                    "transcription": {"model": "m", "prompt": "p", "language": "en"},
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": "v", "speed": 1.0},
            },
        },
    },
]
ODD: list[Any] = [
    *(None, True, 0, -1, 2**63, -(2**70), 1e308, "", "x" * 5000, "\x00", "\ud800", "é\u202e", [], {}, [[]] * 50),
    *({"type": "realtime"}, [{"type": "function"}], "AAAA", "A", "====", 0.1, float("nan"), float("inf")),
]
TOKENS = (b'"', b"[", b"{", b"\x00", b"\\u", b"9" * 30, b"\r\n", b"\xff")
REQUESTS = [
    b"GET /v1/models HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer alpha\r\n\r\n",
    b"GET /metrics/targets HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer alpha\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
    b"OPTIONS /v1/models HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    b"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer alpha\r\nContent-Length: 66\r\n\r\n"
    b'{"expires_after":{"seconds":60},"session":{"instructions":"Short"}}',
    b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer alpha\r\n\r\n",
]


class Mutator:
    """Source of mutated messages, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message(self) -> str | bytes:
        """Return an event with one to four mutations of its values, or of its text."""
        event = json.loads(json.dumps(self._random.choice(EVENTS)))
        for _ in range(self._random.randint(0, 3)):
            self._change(event)
        text = json.dumps(event)
        if self._random.random() < 0.4:
            mutated = self.mangled(text.encode("utf-8", "surrogatepass"))
            with suppress(UnicodeDecodeError):
                return mutated.decode()
            return mutated
        return text

    def mangled(self, data: bytes) -> bytes:
        """Return data with one to three changes: bytes that are changed, removed, repeated or inserted."""
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 3)):
            at = self._random.randrange(len(changed) + 1)
            length = self._random.choice((1, 1, 2, 8, 50))
            match self._random.randrange(4):
                case 0:
                    changed[at : at + length] = self._random.randbytes(length)
                case 1:
                    del changed[at : at + length]
                case 2:
                    changed[at:at] = changed[at : at + length] * self._random.choice((1, 2, 30))
                case _:
                    changed[at:at] = self._random.choice(TOKENS)
        return bytes(changed)

    def request(self) -> bytes:
        """Return a mutated HTTP request."""
        return self.mangled(self._random.choice(REQUESTS))

    def frame(self) -> bytes:
        """Return a frame of any kind with a message, one in four with changed bytes."""
        opcode = self._random.choice([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG])
        message = self.message()
        payload = message.encode("utf-8", "replace") if isinstance(message, str) else message
        if opcode in (Opcode.PING, Opcode.PONG):
            payload = payload[:125]
        whole = opcode in (Opcode.PING, Opcode.PONG) or self._random.random() < 0.7
        frame = Frame(opcode, payload, fin=whole).serialize(mask=True)
        return self.mangled(frame) if self._random.random() < 0.25 else frame

    def _change(self, event: dict[str, Any]) -> None:
        places = list(_places(event))
        if not places:  # all of it was removed
            return
        holder, key = self._random.choice(places)
        match self._random.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[self._random.choice(("x", "type", "session", "audio", "item", ""))] = deepcopy(holder[key])
            case 2 if isinstance(holder[key], list):
                holder[key] = holder[key] * self._random.choice((2, 200))
            case _:
                holder[key] = deepcopy(self._random.choice(ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every value inside of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@dataclass
class Host:
    """A running host with fake stages.

    Attributes:
        port: Its TCP port.
        metrics: What it has counted.
    """

    port: int
    metrics: CountingMetrics


@dataclass
class Findings(logging.Handler):
    """Log records that only a bug writes, and how the messages ended."""

    records: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in UVICORN_NOISE:
            self.records.append(self.format(record))


@asynccontextmanager
async def hosting(findings: Findings) -> AsyncIterator[Host]:
    """Run a host until the block ends. Errors in its log are `findings`."""
    settings = Settings(host=HostSettings(send_queue_events=10_000), limits=LIMITS)
    access = AccessControl(parse_keys(KEY, "KEYS"), AccessSettings(signing_key="s" * 32))
    logging.getLogger().addHandler(findings)
    play = Play(settings=settings)
    try:
        async with play.open() as host:
            protocol = partial(CallProtocol, limits=LIMITS, stored=host.services.stored)
            app = http_app(Served(host, access))
            options = {"log_config": None, "log_level": "error", "lifespan": "off", "ws": protocol}
            async with running(app, **options) as address:
                yield Host(int(address.rpartition(":")[2]), play.metrics)
            assert host.live == 0
            assert host.services.stored.used == 0
    finally:
        logging.getLogger().removeHandler(findings)


async def _converse(host: Host, mutator: Mutator, findings: Findings, count: int) -> int:
    """Send up to `count` messages in one session, and return how many were sent before it ended.

    After each batch, the session must still answer, or have ended with a documented code.
    """
    headers = {"Authorization": f"Bearer {KEY}"}
    sent = 0
    async with websockets.connect(f"ws://127.0.0.1:{host.port}/v1/realtime", additional_headers=headers) as socket:
        try:
            while sent < count:
                for _ in range(min(BATCH, count - sent)):
                    await socket.send(mutator.message())
                    sent += 1
                probe = f"probe_{sent}"
                await socket.send(json.dumps({"type": "conversation.item.delete", "item_id": probe, "event_id": probe}))
                async with asyncio.timeout(20):
                    await _answer(socket, probe)
            findings.ends["lived"] += 1
        except ConnectionClosed as closed:
            findings.ends[f"closed with {closed.rcvd.code if closed.rcvd else None}"] += 1
    return max(1, sent)


async def _answer(socket: websockets.ClientConnection, probe: str) -> None:
    """Read events until the one that answers `probe`. Every error among them says what is wrong."""
    async for text in socket:
        event = json.loads(text)
        if event["type"] == "error":
            error = event["error"]
            assert error["message"]
            assert error["type"] == "invalid_request_error", error
            if error.get("event_id") == probe:
                return


async def _frames(host: Host, mutator: Mutator, findings: Findings, count: int) -> int:
    """Send up to `count` mutated frames on one connection, and return how many were sent before the host ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(REQUESTS[-1])
    await reader.readuntil(b"\r\n\r\n")
    reading = asyncio.create_task(reader.read(-1))
    sent = 0
    with suppress(ConnectionError):
        while sent < count and not reading.done():
            writer.write(mutator.frame())
            await writer.drain()
            sent += 1
            await asyncio.sleep(0)
    writer.transport.abort()
    with suppress(ConnectionError, asyncio.TimeoutError):
        async with asyncio.timeout(5):
            await reading
    findings.ends["frames"] += 1
    return max(1, sent)


async def _request(host: Host, mutator: Mutator, findings: Findings) -> None:
    """Send a mutated HTTP request. The answer has a status below 500, or there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    answer = b""
    with suppress(ConnectionError, TimeoutError):
        writer.write(mutator.request())
        async with asyncio.timeout(0.3):
            answer = await reader.read(64)
    writer.transport.abort()
    status = answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1.1 ") else "none"
    findings.ends[f"HTTP {status}"] += 1
    assert status == "none" or int(status) < 500, answer


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
async def test_mutated_messages_end_in_documented_errors(seed: int) -> None:
    """Mutated events, frames and HTTP requests: no bug in the log, no session in an unknown state, nothing kept."""
    mutator, findings = Mutator(seed), Findings()
    per_seed = MESSAGES // 4
    async with hosting(findings) as host:
        requests = per_seed // HTTP_SHARE
        for _ in range(requests // TOGETHER):
            await asyncio.gather(*(_request(host, mutator, findings) for _ in range(TOGETHER)))
        frames = per_seed // HTTP_SHARE
        while frames > 0:
            frames -= await _frames(host, mutator, findings, min(frames, 200))
        events = per_seed - requests - per_seed // HTTP_SHARE
        while events > 0:
            events -= await _converse(host, mutator, findings, min(events, 1000))
        assert not [name for name in host.metrics.counts if name.startswith("internal")], host.metrics.counts
    assert not findings.records, findings.records[0]
    closed = {end.removeprefix("closed with ") for end in findings.ends if end.startswith("closed")}
    assert closed <= {str(code) for code in CLOSE_CODES}, findings.ends
    assert findings.ends["lived"]
    assert findings.ends["HTTP 200"]
