"""Tests of resuming over HTTP and WebSocket: tokens, refusals, places and the end of the older connection.

The hosts run in this process with fake stages, and share one journal table.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployments.serving.http_routes import http_app
from deployments.transports.call_protocol import CallProtocol
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import parse_keys
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.survival.journal_table import JournalTable
from rejoinder.core.survival.resume_token import ResumeToken, sign_token
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served, running

SETTLED_S = 0.2


@asynccontextmanager
async def serving(table: JournalTable | None, keys: str = "", **host: Any) -> AsyncIterator[str]:
    """Run a host whose sessions are kept in `table`, and yield its HOST:PORT. `host` are settings of the host."""
    access = AccessControl(parse_keys(keys, "KEYS") if keys else ())
    play = Play(settings=parse_settings({"host": host}), table=table)
    async with (
        play.open() as opened_host,
        running(http_app(Served(opened_host, access)), lifespan="off", ws=CallProtocol) as address,
    ):
        yield address


def table() -> JournalTable:
    return JournalTable(1_000_000, 120)


def connecting(address: str, query: str = "", **headers: str) -> Any:
    """Return the connection to a host, not yet open. A name of `headers` has _ in the place of -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return websockets.connect(f"ws://{address}/v1/realtime?{query}", additional_headers=named)


async def opened(socket: ClientConnection, count: int = 1) -> list[dict[str, Any]]:
    """Return the first `count` events of a connection."""
    return [json.loads(await socket.recv()) for _ in range(count)]


async def refusal(address: str, query: str = "", **headers: str) -> tuple[int, str]:
    """Return status and error code with which a connection is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with connecting(address, query, **headers):
            pass
    response = refused.value.response
    return response.status_code, json.loads(bytes(response.body))["error"]["code"]


def abort(socket: ClientConnection) -> None:
    """Drop a connection without a close frame, as a broken network does."""
    socket.transport.abort()


@pytest.mark.parametrize("by_header", [False, True], ids=["query", "header"])
async def test_a_session_is_resumed_on_another_host(by_header: bool) -> None:
    """A client whose connection broke gets its session from another host: id, settings and items."""
    journal = table()
    async with serving(journal) as first, serving(journal) as second:
        async with connecting(first) as socket:
            (created,) = await opened(socket)
            session = {"type": "realtime", "instructions": "Be kind."}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            await opened(socket)
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            await opened(socket)
            await asyncio.sleep(SETTLED_S)
            abort(socket)
        token = created["rejoinder"]["resume_token"]
        query = "" if by_header else f"resume_token={token}"
        async with connecting(second, query, **({"X_Rejoinder_Resume": token} if by_header else {})) as socket:
            again, resumed = await opened(socket, 2)
            assert again["session"]["id"] == created["session"]["id"]
            assert again["session"]["instructions"] == "Be kind."
            assert again["rejoinder"]["resume_expires_at"] == created["rejoinder"]["resume_expires_at"]
            assert (resumed["type"], resumed["items"]) == ("rejoinder.session.resumed", 1)


async def test_the_older_connection_is_closed_with_a_reason() -> None:
    """If another connection resumes a session on the same host, the older one gets an error and close code 4409."""
    async with serving(table()) as address, connecting(address) as older:
        (created,) = await opened(older)
        await asyncio.sleep(SETTLED_S)
        async with connecting(address, f"resume_token={created['rejoinder']['resume_token']}") as newer:
            assert [event["type"] for event in await opened(newer, 2)][1] == "rejoinder.session.resumed"
            (error,) = await opened(older)
            assert error["error"]["code"] == "session_resumed_elsewhere"
            with pytest.raises(ConnectionClosed):
                await older.recv()
            assert older.close_code == 4409
            await newer.send(json.dumps({"type": "input_audio_buffer.clear"}))
            assert (await opened(newer))[0]["type"] == "input_audio_buffer.cleared"


async def test_wrong_tokens_get_401() -> None:
    """A token that is made up, changed, expired, signed with another key, or sent to a host without journal is 401."""
    journal = table()
    async with serving(journal) as address, serving(None) as bare:
        async with connecting(address) as socket:
            token = (await opened(socket))[0]["rejoinder"]["resume_token"]
            await asyncio.sleep(SETTLED_S)
            abort(socket)
        other = sign_token(ResumeToken("x", "", 2**40), "another key")
        expired = sign_token(ResumeToken("x", "", 1), "key")
        for wrong in ("x", "rt_x.y", f"{token}A", token[:-2], other, expired, "rt_" + "A" * 5000):
            assert await refusal(address, f"resume_token={wrong}") == (401, "invalid_resume_token")
        assert await refusal(bare, f"resume_token={token}") == (401, "invalid_resume_token")
        assert await refusal(address, f"resume_token={token}&heard=x") == (400, "invalid_value")
        assert await refusal(address, f"resume_token={token}", Origin="https://evil.example") == (
            403,
            "origin_not_allowed",
        )
        async with connecting(address, f"resume_token={token}&heard=item_1:250") as socket:
            assert len(await opened(socket, 2)) == 2


async def test_a_token_is_good_for_its_owner_only() -> None:
    """The token of a key's session is refused with another valid key, and where the key is not accepted any more.

    It is enough by itself, because a client secret may have expired since the session began.
    """
    journal = table()
    async with serving(journal, "alpha, beta") as address, serving(journal, "beta") as revoked:
        async with connecting(address, Authorization="Bearer alpha") as socket:
            token = (await opened(socket))[0]["rejoinder"]["resume_token"]
            await asyncio.sleep(SETTLED_S)
            abort(socket)
        query = f"resume_token={token}"
        assert await refusal(address, query, Authorization="Bearer beta") == (401, "invalid_resume_token")
        assert await refusal(revoked, query) == (401, "invalid_resume_token")
        for headers in ({}, {"Authorization": "Bearer ek_expired.x"}, {"Authorization": "Bearer alpha"}):
            async with connecting(address, query, **headers) as socket:
                assert (await opened(socket, 2))[1]["type"] == "rejoinder.session.resumed"
                await asyncio.sleep(SETTLED_S)
                abort(socket)


async def test_an_unknown_session_gets_404() -> None:
    """A session that its client has closed, or that no journal has, is not found."""
    journal = table()
    async with serving(journal) as address:
        async with connecting(address) as socket:
            token = (await opened(socket))[0]["rejoinder"]["resume_token"]
            await asyncio.sleep(SETTLED_S)
        await asyncio.sleep(SETTLED_S)
        assert await refusal(address, f"resume_token={token}") == (404, "session_not_found")


async def test_a_full_host_refuses_and_leaves_the_session_to_another() -> None:
    """A host without a free place answers 503 and does not take the session, so another host can."""
    journal = table()
    async with serving(journal) as first, serving(journal, max_sessions=1) as full:
        async with connecting(first) as socket:
            token = (await opened(socket))[0]["rejoinder"]["resume_token"]
            await asyncio.sleep(SETTLED_S)
            abort(socket)
        async with connecting(full) as other:
            await opened(other)
            assert await refusal(full, f"resume_token={token}") == (503, "overloaded")
            async with connecting(first, f"resume_token={token}") as socket:
                assert len(await opened(socket, 2)) == 2
