"""Tests of the connection of a telephone call to its session, against a scripted server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.asyncio.server import ServerConnection

from loadtest.callers.resume_state import RESUMED
from rejoinder.cli.phone.session_link import SessionLink, SessionServer
from rejoinder.core.wire.fields import Json
from tests.loadtest.callers.server import scripted, send


async def test_an_event_outlives_the_loss_of_its_connection() -> None:
    """Keys that are pressed before the loss is noticed are sent once, in order, when the session has been continued."""
    received: list[dict[str, Any]] = []
    closed, noticed, continued = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(connection: ServerConnection) -> None:
        assert connection.request
        if "resume_token" not in connection.request.path:
            await send(connection, "session.created", rejoinder={"resume_token": "token"})
            await connection.close(1011)
            closed.set()
            return
        await send(connection, RESUMED, audio_after_item_id=None)
        async for message in connection:
            received.append(json.loads(message))
            if len(received) == 2:
                continued.set()

    async def take(event: Json) -> None:
        if event["type"] == "session.created":
            await noticed.wait()

    async with scripted(serve) as url, asyncio.timeout(10):
        link = await SessionLink.dial(SessionServer([url]))
        running = asyncio.create_task(link.run(take, lambda: None, lambda: None))
        await closed.wait()
        for key in "12":
            await link.send({"type": "rejoinder.dtmf", "digit": key})
        assert received == []
        noticed.set()
        await continued.wait()
        await link.close()
        await running
    assert received == [{"type": "rejoinder.dtmf", "digit": key} for key in "12"]
