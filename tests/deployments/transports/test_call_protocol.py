"""Tests of the WebSocket protocol: messages stay in order, and calls survive a drain.

On the fast path a message is consumed when it is received. On the slow path it goes through uvicorn's queue first.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from deployments.serving.compat import LINGER_S
from deployments.transports.call_protocol import EXTENSION, SHORT_BYTES, CallProtocol

Received = list[tuple[str, bytes]]
"""For each received message, its path ("fast" or "slow") and its bytes."""


class Wire(asyncio.Transport):
    """Transport without a network: the test delivers the data and reads what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def listener(received: Received, slowly: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that consumes messages beginning with "a" on the fast path, without uvicorn's queue.

    It appends ("fast" or "slow", message) to `received`, and awaits `slowly` before it handles a slow message.
    """

    def take(message: bytes) -> bool:
        if message.startswith(b"a"):
            received.append(("fast", message))
        return message.startswith(b"a")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        protocol = scope["extensions"][EXTENSION]
        protocol.attend(take)
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            await slowly()
            received.append(("slow", text.encode() if text is not None else message["bytes"]))
            protocol.answered()

    return application


def handshake() -> bytes:
    """Return the bytes of a client's HTTP request to upgrade to a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ["GET /v1/realtime HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    return "\r\n".join(lines).encode()


MESSAGES = st.one_of(
    st.tuples(st.just("text"), st.binary(max_size=200).map(lambda tail: b"a" + tail.hex().encode())),
    st.tuples(st.just("text"), st.binary(max_size=90).map(lambda tail: b"event " + tail.hex().encode())),
    st.tuples(st.just("bytes"), st.binary(max_size=200)),
    st.tuples(st.just("parts"), st.binary(max_size=200).map(lambda tail: b"a" + tail.hex().encode())),
    st.tuples(st.just("text"), st.just(b"a" * (SHORT_BYTES + 1))),
)


def frames(kind: str, message: bytes) -> bytes:
    """Return a message as a client's WebSocket frames: one, or for kind "parts" two with a ping between them."""
    if kind != "parts":
        return Frame(Opcode.TEXT if kind == "text" else Opcode.BINARY, message).serialize(mask=True)
    half = len(message) // 2
    parts = [
        Frame(Opcode.TEXT, message[:half], fin=False),
        Frame(Opcode.PING, b"?"),
        Frame(Opcode.CONT, message[half:]),
    ]
    return b"".join(part.serialize(mask=True) for part in parts)


async def _accepted(received: Received, before: bytes = b"") -> tuple[CallProtocol, Wire, ServerState]:
    """Return an accepted connection with its transport and the server's state.

    The client sends the frames `before` without waiting for the handshake's answer.
    """
    config = Config(listener(received, lambda: asyncio.sleep(0)), ws=CallProtocol, ws_ping_interval=None)
    config.load()
    wire, state = Wire(), ServerState()
    protocol = CallProtocol(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(wire)
    protocol.data_received(handshake())
    if before:
        protocol.data_received(before)
    await _until(lambda: b"101" in wire.written)
    return protocol, wire, state


async def _deliver(messages: list[tuple[str, bytes]], cuts: list[int], before: bytes = b"") -> Received:
    """Send messages in pieces of `cuts` bytes and the rest in one piece. Return what the application received."""
    received: Received = []
    protocol, wire, state = await _accepted(received, before)
    stream = b"".join(frames(*message) for message in messages)
    at = 0
    for cut in [*cuts, len(stream)]:
        await _until(lambda: not wire.paused)
        protocol.data_received(stream[at : at + cut])
        at = min(len(stream), at + cut)
    await _until(lambda: len(received) >= len(messages) + bool(before) or wire.closed)
    assert not wire.closed
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)
    return received


async def _until(true: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition did not become true")


@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 500), max_size=20))
def test_messages_arrive_whole_and_in_order(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """However the client's bytes are cut into pieces, the application receives each message once and in order."""
    received = asyncio.run(_deliver(messages, cuts))
    assert [message for _, message in received] == [message for _, message in messages]


def test_audio_takes_the_fast_path() -> None:
    """Unfragmented messages that the call can consume at once do not pass through uvicorn's queue (fast path)."""
    received = asyncio.run(_deliver([("text", b"a1"), ("text", b"a2"), ("parts", b"a3")], [3, 1, 2]))
    assert received == [("fast", b"a1"), ("fast", b"a2"), ("slow", b"a3")]


def test_audio_after_an_unanswered_event_stays_behind_it() -> None:
    """Audio that arrives directly after an event waits in uvicorn's queue behind the event, so the order is kept."""
    received = asyncio.run(_deliver([("text", b"a1"), ("text", b"event"), ("text", b"a2")], []))
    assert received == [("fast", b"a1"), ("slow", b"event"), ("slow", b"a2")]


def test_data_before_the_acceptance_is_received() -> None:
    """If a client sends a message before it is accepted, the application receives this and later messages in order."""
    whole = frames("text", b"a0")
    received = asyncio.run(_deliver([("text", b"a1")], [], before=whole))
    assert [message for _, message in received] == [b"a0", b"a1"]


def test_an_unmasked_frame_is_refused() -> None:
    """An unmasked frame closes the connection with code 1002 (RFC 6455, section 5.1)."""

    async def scenario() -> Wire:
        received: Received = []
        protocol, wire, state = await _accepted(received)
        protocol.data_received(Frame(Opcode.TEXT, b"a1").serialize(mask=False))
        await asyncio.gather(*state.tasks)
        protocol.data_received(frames("text", b"a2"))
        assert not received
        await asyncio.sleep(LINGER_S + 0.1)
        return wire

    wire = asyncio.run(scenario())
    assert wire.closed
    assert (1002).to_bytes(2) in wire.written


def test_a_call_outlives_the_listener() -> None:
    """When uvicorn stops, as when Serve drains a host, an open call continues until client or application end it."""

    async def scenario() -> Received:
        received: Received = []
        application = listener(received, lambda: asyncio.sleep(0))
        server = uvicorn.Server(
            Config(application, ws=CallProtocol, host="127.0.0.1", port=0, lifespan="off", log_level="critical")
        )
        serving = asyncio.create_task(server.serve())
        await _until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/") as call:
            await call.send("a1")
            await call.ping()
            server.should_exit = True
            await _refused(port)
            await call.send("a2")
            pong = await call.ping()
            await pong
            assert not serving.done()
        await serving
        return received

    assert asyncio.run(scenario()) == [("fast", b"a1"), ("fast", b"a2")]


def test_the_round_trip_to_the_client_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server pings, the client's library answers, and the application gets the time between them."""
    monkeypatch.setattr("deployments.serving.compat.FIRST_PING_S", 0.05)
    found: asyncio.Queue[float] = asyncio.Queue()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["extensions"][EXTENSION].when_pinged(found.put_nowait)
        await send({"type": "websocket.accept"})
        await receive()

    async def scenario() -> float:
        server = uvicorn.Server(
            Config(application, ws=CallProtocol, host="127.0.0.1", port=0, lifespan="off", log_level="critical")
        )
        serving = asyncio.create_task(server.serve())
        await _until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/"), asyncio.timeout(10):
            round_trip_s = await found.get()
        server.should_exit = True
        await serving
        return round_trip_s

    assert 0 < asyncio.run(scenario()) < 1


async def _refused(port: int) -> None:
    """Wait until `port` refuses connections."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)
