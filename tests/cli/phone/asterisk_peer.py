"""Scripted Asterisk in virtual time: AudioSocket on one side, the sessions of hosts in this process on the other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from actors.host import Host
from deployments.transports.realtime_ws import RealtimeSocket
from rejoinder.cli.phone.audiosocket_call import AudioSocketCall
from rejoinder.cli.phone.session_link import SessionServer
from rejoinder.core.audio.g711 import MU_LAW
from rejoinder.core.telephony.audiosocket import FrameKind, FrameReader, SocketFrame
from rejoinder.core.telephony.phone_tools import PhoneProfile
from rejoinder.core.wire.session import SessionConfig

FRAME_S = 0.02
TONE = (np.sin(np.arange(160) * 0.4) * 8000).astype("<i2").tobytes()
HUSH = bytes(320)
CALL_ID = uuid.UUID(int=7)


class Connection:
    """Both ends of a WebSocket without a network: the gateway's interface, and that of `AcceptedSocket`."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.down: asyncio.Queue[str | int] = asyncio.Queue()
        self.sent: list[str] = []
        self._lost = False

    async def send(self, message: str) -> None:
        if self._lost:
            raise ConnectionClosed(None, None)
        self.sent.append(message)
        self.up.put_nowait({"type": "websocket.receive", "text": message})

    async def recv(self) -> str:
        message = await self.down.get()
        if isinstance(message, int):
            self._lost = True
            raise ConnectionClosed(Close(message, "") if message else None, None)
        return message

    def cut(self, code: int = 0) -> None:
        """Break the connection for both ends; the gateway sees the close code `code`, 0 for none."""
        self._lost = True
        self.up.put_nowait({"type": "websocket.disconnect", "code": code or 1006})
        self.down.put_nowait(code)

    async def receive(self) -> Mapping[str, Any]:
        return await self.up.get()

    async def send_text(self, data: str) -> None:
        self.down.put_nowait(data)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.cut(code)


class HostsServer(SessionServer):
    """Server whose URLs are numbers of hosts of this process.

    Attributes:
        connections: All connections, the newest last.
    """

    def __init__(self, *hosts: Host) -> None:
        super().__init__([str(number) for number in range(len(hosts))])
        self._hosts: tuple[Host, ...]
        object.__setattr__(self, "_hosts", hosts)
        object.__setattr__(self, "connections", [])
        object.__setattr__(self, "_running", set())

    connections: list[Connection]
    _running: set[asyncio.Task[None]]

    async def open(self, url: str, **query: str) -> ClientConnection:
        host, origin = self._hosts[int(url)], None
        if token := query.get("resume_token"):
            assert host.keeper
            known = await host.keeper.token(token)
            origin = await host.keeper.claim(known, None) if known else None
            if origin is None:
                raise InvalidStatus(Response(404, "", None))  # type: ignore[arg-type]  # no headers are read
        connection = Connection()
        self.connections.append(connection)
        task = asyncio.create_task(RealtimeSocket(connection, host, SessionConfig(), origin=origin).converse())
        self._running.add(task)
        return cast(ClientConnection, connection)


class Refusing(SessionServer):
    """Server that refuses every call with a status."""

    async def open(self, url: str, **query: str) -> ClientConnection:
        raise InvalidStatus(Response(503, "", None))  # type: ignore[arg-type]  # no headers are read


class Asterisk:
    """One call of Asterisk: sends audio all the time, and records what it gets.

    Attributes:
        got: Times and frames that arrived.
        closed: True once the gateway has closed the connection.
    """

    def __init__(self) -> None:
        self.got: list[tuple[float, SocketFrame]] = []
        self.closed = False
        self.reader = asyncio.StreamReader()
        self._frames = FrameReader()
        self._say: list[bytes] = []

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self.reader.feed_data(SocketFrame(kind, payload).encode())

    def speak(self, seconds: float) -> None:
        """Speak for some seconds from now on."""
        self._say += [TONE] * round(seconds / FRAME_S)

    @property
    def heard(self) -> bytes:
        """All audio that arrived, 16-bit PCM."""
        return b"".join(frame.payload for _, frame in self.got if frame.kind == FrameKind.AUDIO)

    @property
    def audio_times(self) -> list[float]:
        """When each frame of audio arrived."""
        return [at for at, frame in self.got if frame.kind == FrameKind.AUDIO]

    @property
    def heard_s(self) -> float:
        """Seconds of audio that is not silent."""
        loud = [bool(np.abs(np.frombuffer(frame.payload, "<i2")).max() > 50) for _, frame in self.got if frame.payload]
        return sum(loud) * FRAME_S

    async def until(self, reached: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Wait until a condition is true, which is checked in each frame."""
        async with asyncio.timeout(limit_s):
            while not reached():  # noqa: ASYNC110  # the condition is checked at each frame
                await asyncio.sleep(FRAME_S)

    @asynccontextmanager
    async def calling(self, server: SessionServer, profile: PhoneProfile | None = None) -> AsyncIterator[None]:
        """Call a gateway in front of `server`, and send the call's id and audio until the block ends."""
        self.send(FrameKind.UUID, CALL_ID.bytes)
        writer = cast(asyncio.StreamWriter, self)
        running = asyncio.create_task(AudioSocketCall(self.reader, writer, server, profile or PhoneProfile()).run())
        microphone = asyncio.create_task(self._run())
        try:
            yield
        finally:
            microphone.cancel()
            if not self.closed:
                self.send(FrameKind.HANG_UP)
            async with asyncio.timeout(10):
                await running

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FRAME_S)
            self.send(FrameKind.AUDIO, self._say.pop(0) if self._say else HUSH)

    # -- the interface of asyncio.StreamWriter -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self.got += [(now, frame) for frame in self._frames.feed(data)]

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        pass


def as_sent(pcm: bytes) -> bytes:
    """Return PCM as mu-law and back, which is what a telephone hears of it."""
    return MU_LAW.decode(MU_LAW.encode(pcm))
