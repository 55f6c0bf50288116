"""Test servers in this process on a free port: the real HTTP application with fake stages, or a script."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from websockets.asyncio.server import ServerConnection, serve

from actors.host import Host
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
async def listening(play: Play, keys: frozenset[str] = frozenset()) -> AsyncIterator[tuple[str, Host]]:
    """Run the HTTP application with the fake stages of `play`. Yield (ws:// base URL, host).

    `keys` are the API keys that the application accepts. If there are none, a client needs no key.
    """
    with free_socket() as listener:
        async with play.open() as host:
            config = uvicorn.Config(
                http_app(Served(host, access_of(keys))), log_level="warning", lifespan="off", ws="websockets-sansio"
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield f"ws://127.0.0.1:{listener.getsockname()[1]}/v1", host
            finally:
                server.should_exit = True
                await running


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
