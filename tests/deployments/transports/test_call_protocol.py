"""The short way of audio overtakes nothing and loses nothing, and a call outlives the listener it came through."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from typing import Any

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
"""Which way each message came, "short" or "long", and the message."""


class Wire(asyncio.Transport):
    """A connection whose far end is the test."""

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

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def listener(received: Received, slowly: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """An application that takes messages beginning with "a" the short way, and takes its time over the others."""

    def take(message: bytes) -> bool:
        if message.startswith(b"a"):
            received.append(("short", message))
        return message.startswith(b"a")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        protocol = scope["extensions"][EXTENSION]
        protocol.attend(take)
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            await slowly()
            received.append(("long", text.encode() if text is not None else message["bytes"]))
            protocol.answered()

    return application


def handshake() -> bytes:
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
    """A client's message on the wire: whole, or in two parts with a ping between."""
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
    """A call of that application; the client sends `before` without waiting for the handshake's answer."""
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
    raise AssertionError("nothing more happened")


@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 500), max_size=20))
def test_messages_arrive_whole_and_in_order(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """However a client's stream is cut and mixed, the application has its messages once each, in their order."""
    received = asyncio.run(_deliver(messages, cuts))
    assert [message for _, message in received] == [message for _, message in messages]


def test_audio_takes_the_short_way() -> None:
    """Whole short messages that the call takes do not pass the application's queue."""
    received = asyncio.run(_deliver([("text", b"a1"), ("text", b"a2"), ("parts", b"a3")], [3, 1, 2]))
    assert received == [("short", b"a1"), ("short", b"a2"), ("long", b"a3")]


def test_audio_behind_an_unanswered_event_waits() -> None:
    """Audio that comes in one piece with an event goes the event's way, behind it."""
    received = asyncio.run(_deliver([("text", b"a1"), ("text", b"event"), ("text", b"a2")], []))
    assert received == [("short", b"a1"), ("long", b"event"), ("long", b"a2")]


def test_a_client_that_does_not_wait_to_be_accepted_is_understood() -> None:
    """Half a frame before the handshake's answer: everything then goes the long way."""
    whole = frames("text", b"a0")
    received = asyncio.run(_deliver([("text", b"a1")], [], before=whole))
    assert [message for _, message in received] == [b"a0", b"a1"]


def test_an_unmasked_frame_is_refused() -> None:
    """RFC 6455, section 5.1: a server closes the connection on an unmasked frame, with code 1002."""

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
    """When uvicorn stops, as Serve stops it to drain a host, an open call goes on until it ends by itself."""

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

    assert asyncio.run(scenario()) == [("short", b"a1"), ("short", b"a2")]


async def _refused(port: int) -> None:
    """Until nobody listens there any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)
