"""Test servers in this process on a free port: the real HTTP application with fake stages, or a script."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from websockets.asyncio.server import ServerConnection, serve

from actors.host import Host
from cluster.self_signed import TlsFiles
from deployments.serving.http_routes import http_app
from deployments.serving.regions import places_of
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import ApiKey, digest_of
from tests.actors.stage_play import Play


@dataclass(frozen=True)
class Served:
    """The part of a deployment that `http_app` uses: a host and its API keys."""

    host: Host
    access: AccessControl = field(default_factory=AccessControl)

    async def targets(self) -> list[dict[str, Any]]:
        return []

    async def places(self) -> dict[str, int]:
        return places_of([{"sessions": self.host.live, "max_sessions": self.host.services.settings.host.max_sessions}])

    async def regions(self) -> dict[str, Any]:
        return {"region": "", "regions": []}


@asynccontextmanager
async def listening(
    play: Play, keys: frozenset[str] = frozenset(), tls: TlsFiles | None = None
) -> AsyncIterator[tuple[str, Host]]:
    """Run the HTTP application with the fake stages of `play`. Yield (ws:// or wss:// base URL, host).

    `keys` are the API keys that the application accepts. If there are none, a client needs no key. With `tls` the
    server speaks TLS only.
    """
    options = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key} if tls else {}
    async with play.open() as host:
        app = http_app(Served(host, access_of(keys)))
        async with running(app, log_level="warning", lifespan="off", ws="websockets-sansio", **options) as address:
            yield f"{'wss' if tls else 'ws'}://{address}/v1", host


@asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI application until the block ends, and yield its HOST:PORT. `options` are uvicorn's."""
    with free_socket() as listener:
        server = uvicorn.Server(uvicorn.Config(app, **{"log_level": "critical", **options}))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def access_of(keys: frozenset[str]) -> AccessControl:
    """Return the access control of a host that accepts these keys, or everybody if there are none."""
    return AccessControl(ApiKey(digest_of(key)) for key in keys)


def free_socket() -> socket.socket:
    """Return a listening socket on a free port, so that a client can connect before the server accepts."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """Run a WebSocket server that only executes `script` for each connection. Yield its ws:// base URL."""
    async with serve(script, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"


async def send(connection: ServerConnection, kind: str, **fields: Any) -> None:
    await connection.send(json.dumps({"type": kind, "event_id": "event_1"} | fields))


class Relay:
    """A TCP relay to servers, in front of which the connections can be cut.

    Attributes:
        ports: Ports of the servers on 127.0.0.1. New connections go to the first one.
    """

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    def silence(self) -> None:
        """Pass nothing on any more over the present connections, as if the server's machine had vanished.

        They stay open. New connections go to the next server.
        """
        self.ports.append(self.ports.pop(0))
        self._passing.clear()
        self._passing = asyncio.Event()
        self._passing.set()

    def cut(self) -> None:
        """Break all connections without a close frame, and send new ones to the next server."""
        self.ports.append(self.ports.pop(0))
        for writer in list(self._writers):
            writer.transport.abort()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        server, server_writer = await asyncio.open_connection("127.0.0.1", self.ports[0])
        pair, passing = {writer, server_writer}, self._passing
        self._writers |= pair
        ways = {
            asyncio.create_task(_copy(reader, server_writer, passing)),
            asyncio.create_task(_copy(server, writer, passing)),
        }
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in pair:
            end.close()
        self._writers -= pair


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await passing.wait()
            writer.write(data)


@asynccontextmanager
async def relayed(*urls: str) -> AsyncIterator[tuple[str, Relay]]:
    """Run a relay in front of servers with these ws:// base URLs. Yield (its base URL, the relay)."""
    relay = Relay([int(url.split(":")[2].split("/")[0]) for url in urls])
    server = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", relay
        relay.cut()
