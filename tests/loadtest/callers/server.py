"""The real HTTP surface on a free port of this process: fake stages behind it, or a script instead of a host."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from websockets.asyncio.server import ServerConnection, serve

from actors.host import Host
from deployments.serving.http_routes import http_app
from tests.actors.stage_play import Play


@dataclass(frozen=True)
class Served:
    """A host for `http_app`, without a deployment around it."""

    host: Host
    keys: frozenset[str] = frozenset()

    async def targets(self) -> list[dict[str, Any]]:
        return []


@asynccontextmanager
async def listening(play: Play, keys: frozenset[str] = frozenset()) -> AsyncIterator[tuple[str, Host]]:
    """The base URL of a running server, and its host."""
    with free_socket() as door:
        async with play.open() as host:
            config = uvicorn.Config(
                http_app(Served(host, keys)), log_level="warning", lifespan="off", ws="websockets-sansio"
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve(sockets=[door]))
            try:
                yield f"ws://127.0.0.1:{door.getsockname()[1]}/v1", host
            finally:
                server.should_exit = True
                await running


def free_socket() -> socket.socket:
    """Bound and listening, so that a client may connect before the server accepts."""
    door = socket.socket()
    door.bind(("127.0.0.1", 0))
    door.listen()
    return door


Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """The base URL of a server that does only what `script` says."""
    async with serve(script, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"


async def send(connection: ServerConnection, kind: str, **fields: Any) -> None:
    await connection.send(json.dumps({"type": kind, "event_id": "event_1"} | fields))
