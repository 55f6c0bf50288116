"""Tests of what one connection may send: attacks on the event loop end, or are slowed down to a harmless rate."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from deployments.serving.compat import LINGER_S
from deployments.transports.call_protocol import EXTENSION, CallProtocol
from rejoinder.core.access.stored_bytes import StoredBytes
from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.wire.client import CreateItem, MalformedEvent, parse
from tests.deployments.transports.test_call_protocol import Received, Wire, handshake, listener

LIMITS = LimitSettings()


class Connection:
    """An accepted connection without a network, whose application receives into `received`."""

    def __init__(
        self,
        limits: LimitSettings,
        slowly: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
        *,
        stored: StoredBytes | None = None,
    ) -> None:
        self.received: Received = []
        self.wire = Wire()
        config = Config(listener(self.received, slowly), ws=CallProtocol, ws_ping_interval=None)
        config.load()
        self.state = ServerState()
        self.protocol = CallProtocol(config, self.state, {}, asyncio.get_running_loop(), limits=limits, stored=stored)
        self.protocol.connection_made(self.wire)
        self.protocol.data_received(handshake())

    async def accepted(self) -> Connection:
        """Wait until the application has accepted the connection, and forget the handshake's answer."""
        await self.until(lambda: b"101" in self.wire.written)
        self.wire.written.clear()
        return self

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until a condition is true, for at most five seconds."""
        await until(true)

    def send(self, opcode: Opcode, payload: bytes, *, fin: bool = True) -> None:
        """Send a masked frame in one piece."""
        self.protocol.data_received(Frame(opcode, payload, fin=fin).serialize(mask=True))

    @property
    def close(self) -> tuple[int, str] | None:
        """The code and the reason of the close frame that the client got, None if it got none."""
        at = self.wire.written.find(0x88)
        if at < 0:
            return None
        size = self.wire.written[at + 1]
        body = bytes(self.wire.written[at + 2 : at + 2 + size])
        return int.from_bytes(body[:2]), body[2:].decode()


async def until(true: Callable[[], bool]) -> None:
    """Wait until a condition is true, for at most five seconds."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not become true")


def large_header(size: int) -> bytes:
    """Return the header of a masked text frame of `size` bytes, with a mask of zeros."""
    return b"\x81\xff" + size.to_bytes(8) + bytes(4)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_a_large_message_is_refused_by_its_first_bytes() -> None:
    """A message above `message_bytes` ends the connection before it arrives, with close code 1009 and the limit."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        update = b'{"type":"session.update","session":{"type":"realtime","x":[[],[],' + b"[]," * 400
        call.protocol.data_received(large_header(16_000_000) + update)
        assert call.close == (1009, "a message without audio may have 262144 bytes")
        call.send(Opcode.TEXT, b"event after it")
        await asyncio.sleep(LINGER_S + 0.1)
        assert call.wire.closed
        assert not call.received

    play(scenario)


@pytest.mark.parametrize(
    "begins",
    ['{"type":"input_audio_buffer.append","audio":"', '{"event_id": "e", "audio" : "', '{"audio":"'],
)
def test_a_large_audio_message_is_received(begins: str) -> None:
    """Audio messages may be larger than others, whatever the order of their fields."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        message = begins.encode() + b"A" * 1_000_000 + b'"}'
        call.send(Opcode.TEXT, message)
        await call.until(lambda: len(call.received) == 1)
        assert call.received == [("slow", message)]
        assert call.close is None

    play(scenario)


def test_audio_has_a_limit_too() -> None:
    """An audio message above `audio_message_bytes` ends the connection by its first bytes."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        begins = b'{"type":"input_audio_buffer.append","audio":"' + b"A" * 2000
        call.protocol.data_received(large_header(LIMITS.audio_message_bytes + 1) + begins)
        assert call.close == (1009, "an audio message may have 16777216 bytes")

    play(scenario)


def test_a_large_recording_in_an_item_is_received() -> None:
    """An item with a recording may be as large as an audio message."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        part = '{"type":"input_audio","audio":"' + "A" * 1_000_000 + '"}'
        item = f'{{"type":"message","role":"user","content":[{part}]}}'
        message = f'{{"type":"conversation.item.create","item":{item}}}'.encode()
        call.send(Opcode.TEXT, message)
        await call.until(lambda: len(call.received) == 1)
        event = parse(message)
        assert isinstance(event, CreateItem)
        assert len(event.clip) == 750_000
        with pytest.raises(MalformedEvent):
            parse(message.replace(b"input_audio", b"input_image"))

    play(scenario)


def test_an_error_event_comes_before_the_close_of_a_large_message() -> None:
    """Before the close frame with 1009 the client gets an error event whose message names the limit."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        call.protocol.data_received(large_header(LIMITS.message_bytes + 1) + b"b" * 2000)
        size = int.from_bytes(call.wire.written[2:4])
        assert call.wire.written[:2] == b"\x81\x7e"
        event = json.loads(bytes(call.wire.written[4 : 4 + size]))
        assert event["error"]["code"] == "message_too_large"
        assert str(LIMITS.message_bytes) in event["error"]["message"]
        assert event["event_id"]
        close = call.wire.written[4 + size :]
        assert (close[0], int.from_bytes(close[2:4])) == (0x88, 1009)

    play(scenario)


def test_fragments_of_a_message_count_together() -> None:
    """A message in fragments ends the connection when their sum exceeds `message_bytes`, though each is small."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        call.send(Opcode.TEXT, b"b" * 60_000, fin=False)
        for number in range(4):
            assert call.close is None, number
            call.send(Opcode.CONT, b"b" * 60_000, fin=False)
        assert call.close is not None
        assert call.close[0] == 1009

    play(scenario)


def test_a_flood_of_pings_ends_the_connection() -> None:
    """A client that sends more control frames than its burst gets close code 1008. No further ping is answered."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        ping = Frame(Opcode.PING, b"").serialize(mask=True)
        call.protocol.data_received(ping * 10_000)
        assert call.wire.written.count(b"\x8a\x00") == LIMITS.control_frame_burst
        at = call.wire.written.find(b"\x88")
        assert int.from_bytes(call.wire.written[at + 2 : at + 4]) == 1008

    play(scenario)


def test_pings_of_a_real_client_pass() -> None:
    """A client that pings twice a second is never cut."""

    async def scenario() -> None:
        call = await Connection(LIMITS).accepted()
        now = 1000.0
        call.protocol.loop = type("Loop", (), {"time": lambda _: now})()
        for _ in range(5000):
            now += 0.5
            call.protocol.data_received(Frame(Opcode.PING, b"").serialize(mask=True))
        assert call.close is None

    play(scenario)


@pytest.mark.parametrize("payload", [b"x", b"a"], ids=["events", "audio"])
def test_a_flood_of_small_messages_is_slowed_down(payload: bytes) -> None:
    """Of 20,000 one-byte messages at once only the burst is read. The connection is paused, then gets its rate."""

    async def scenario() -> None:
        limits = LimitSettings(messages_per_s=100, message_burst=50)
        call = await Connection(limits).accepted()
        began = asyncio.get_running_loop().time()
        call.protocol.data_received(Frame(Opcode.TEXT, payload).serialize(mask=True) * 20_000)
        assert call.wire.paused
        await call.until(lambda: len(call.received) >= 50)
        await asyncio.sleep(0.5)
        took = asyncio.get_running_loop().time() - began
        assert 50 + 10 <= len(call.received) <= 50 + 100 * took + 1
        assert call.close is None

    play(scenario)


def test_a_flood_before_the_acceptance_is_slowed_down() -> None:
    """What a client sends before the server has accepted it has the same limits as later messages."""

    async def scenario() -> None:
        call = Connection(LimitSettings(messages_per_s=100, message_burst=50))
        call.protocol.data_received(Frame(Opcode.TEXT, b"a").serialize(mask=True) * 20_000)
        await call.accepted()
        await call.until(lambda: len(call.received) >= 50)
        assert len(call.received) <= 60

    play(scenario)


def test_one_byte_fragments_are_slowed_down() -> None:
    """Fragments count as messages: a message cut into 20,000 fragments of one byte is not read at full speed."""

    async def scenario() -> None:
        call = await Connection(LimitSettings(messages_per_s=100, message_burst=50)).accepted()
        fragment = Frame(Opcode.CONT, b"x", fin=False).serialize(mask=True)
        call.protocol.data_received(Frame(Opcode.TEXT, b"x", fin=False).serialize(mask=True) + fragment * 20_000)
        assert call.wire.paused
        assert len(call.protocol.frames) <= 51

    play(scenario)


def test_large_answers_slow_the_client_down() -> None:
    """Small messages with large answers are read more slowly: the answers count against the bytes of the client."""

    async def scenario() -> None:
        call = await Connection(LimitSettings(message_bytes_per_s=1000, message_bytes_burst=1000)).accepted()
        call.send(Opcode.TEXT, b"b")
        call.protocol.charge(1200)
        await call.until(lambda: len(call.received) == 1)
        call.send(Opcode.TEXT, b"c")
        await asyncio.sleep(0.1)
        assert len(call.received) == 1
        await call.until(lambda: len(call.received) == 2)

    play(scenario)


def test_a_client_that_never_reads_is_dropped() -> None:
    """The server's end of a connection frees its socket and its data soon, even if the client reads nothing."""

    async def scenario() -> None:
        ended: list[float] = []
        loop = asyncio.get_running_loop()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            protocol = scope["extensions"][EXTENSION]
            try:
                async with asyncio.timeout(0.5):
                    while True:
                        await send({"type": "websocket.send", "text": "x" * 100_000})
            except TimeoutError:
                protocol.abort_after(0.0)

        class Watched(CallProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ended.append(loop.time())
                super().connection_lost(exc)

        config = Config(application, ws=Watched, host="127.0.0.1", port=0, lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        with socket.create_connection(server.servers[0].sockets[0].getsockname()) as client:
            client.sendall(handshake())
            began = loop.time()
            await until(lambda: bool(ended))
            assert ended[0] - began < 2
        server.should_exit = True
        await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_the_largest_settings_of_a_client_pass() -> None:
    """100,000 characters of instructions and 128 tools, as a real client may send them, are below the limits."""
    tool = {"type": "function", "name": "f", "description": "d" * 200, "parameters": {"type": "object"}}
    update = {"type": "session.update", "session": {"type": "realtime", "instructions": "x" * 100_000}}
    update["session"]["tools"] = [tool] * 128  # type: ignore[index]
    assert len(json.dumps(update)) < LIMITS.message_bytes
    assert len(base64.b64encode(bytes(48_000))) < LIMITS.message_bytes


def test_messages_that_arrive_are_counted_for_the_host() -> None:
    """The parts of a large message count among what the host keeps, until the application has finished with it.

    If the host has no room, the connection ends with close code 1013. A lost connection gives its bytes back.
    """

    async def scenario() -> None:
        stored = StoredBytes(1_600_000)
        first = await Connection(LIMITS, stored=stored).accepted()
        half = large_header(1_000_000) + b'{"type":"input_audio_buffer.append","audio":"' + b"A" * 500_000
        first.protocol.data_received(half)
        assert 500_000 < stored.used < 501_000
        second = await Connection(LIMITS, stored=stored).accepted()
        second.protocol.data_received(half)
        first.protocol.data_received(b"A" * (1_000_000 - len(half) + 14))
        await first.until(lambda: bool(first.received))
        first.protocol.answered()
        assert 500_000 < stored.used < 501_000
        third = await Connection(LIMITS, stored=stored).accepted()
        third.protocol.data_received(half)
        second.protocol.data_received(b"A" * 400_000)
        third.protocol.data_received(b"A" * 499_000)
        assert third.close == (1013, "the memory of this host for its clients is full")
        for call in (second, third):
            call.protocol.connection_lost(None)
        assert stored.used == 0

    play(scenario)
