"""Tests of HTTP tools and MCP servers against real servers: over HTTP in this process, and over stdio."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from deployments.tool_servers.http_tools import HttpTools
from deployments.tool_servers.mcp_server import McpToolServer
from deployments.tool_servers.opening import open_tool_servers
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.settings import ToolSettings
from rejoinder.core.settings.tools.servers import HttpTool, McpServer
from tests.deployments.tool_servers.clock import clock
from tests.loadtest.callers.server import free_socket, running

PROGRAM = (sys.executable, "-m", "tests.deployments.tool_servers.clock")


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application until the block ends. Yield its address."""
    async with running(app, timeout_graceful_shutdown=1) as address:
        yield f"http://{address}"


@asynccontextmanager
async def connected(settings: McpServer, **environment: str) -> AsyncIterator[McpToolServer]:
    """Yield the client of an MCP server, and close it at the end."""
    server = McpToolServer(settings, environment)
    try:
        yield server
    finally:
        await server.close()


async def test_an_mcp_server_over_http() -> None:
    """Tools are listed as the allow-list says. Results are capped, and failures and timeouts are results."""
    async with listening(clock().streamable_http_app()) as url:
        allowed = ("get_time", "broken", "slow", "long")
        settings = McpServer(label="clock", url=f"{url}/mcp", allowed_tools=allowed, timeout_s=1.0, result_bytes=300)
        async with connected(settings) as server:
            tools = await server.tools()
            assert {tool.name for tool in tools} == set(allowed)
            (get_time,) = [tool for tool in tools if tool.name == "get_time"]
            assert get_time.description == "Tell the time in a city."
            assert get_time.schema["required"] == ["city"]
            assert (await server.call("get_time", {"city": "Paris"})).text == "12:00 in Paris"
            broken, slow, long, forbidden, wrong = [
                await server.call(name, {}) for name in ("broken", "slow", "long", "variable", "get_time")
            ]
            assert "out of order" in broken.text
            assert slow.text == "The tool did not answer for 1 s."
            assert all(found.failed for found in (broken, slow, forbidden, wrong))
            assert not long.failed
            assert len(long.text) <= 300
            assert long.text.endswith("[cut off: the result has 300000 bytes]")
            assert (await server.call("get_time", {"city": "Rome"})).text == "12:00 in Rome"


async def test_an_mcp_program_over_stdio() -> None:
    """The host starts the program, which gets only the variables that the settings name."""
    settings = McpServer(label="clock", command=PROGRAM, environment=("PYTHONPATH", "SHOWN"), connect_timeout_s=30)
    environment = {name: os.environ.get(name, "") for name in ("PATH", "HOME", "PYTHONPATH")}
    async with connected(settings, SHOWN="yes", HIDDEN="secret", **environment) as server:
        assert len(await server.tools()) == 5
        shown, hidden = [(await server.call("variable", {"name": name})).text for name in ("SHOWN", "HIDDEN")]
        assert (shown, hidden) == ("yes", "not set")


async def test_a_server_that_does_not_answer() -> None:
    """A server that cannot be reached lists no tools, its calls fail at once, and other servers are not affected."""
    with free_socket() as unused:
        port = unused.getsockname()[1]
    settings = McpServer(label="gone", url=f"http://127.0.0.1:{port}/mcp", connect_timeout_s=2)
    async with connected(settings) as server:
        with pytest.raises(BackendError):
            await server.tools()
        async with asyncio.timeout(1):
            assert (await server.call("get_time", {})).failed


async def test_a_program_that_ends_at_once() -> None:
    """A program that does not speak MCP and ends lists no tools, and leaves the host running."""
    settings = McpServer(label="none", command=(sys.executable, "-c", "pass"), connect_timeout_s=5)
    async with connected(settings) as server:
        with pytest.raises(BackendError):
            await server.tools()


async def _echo(request: Request) -> Response:
    body = (await request.body()).decode()
    key = request.headers.get("x-key")
    return PlainTextResponse(json.dumps([request.method, dict(request.query_params), body, key]))


async def _large(_: Request) -> Response:
    return PlainTextResponse("y" * 100_000)


async def _failing(_: Request) -> Response:
    return PlainTextResponse("no such order", status_code=404)


async def _moved(_: Request) -> Response:
    return RedirectResponse("http://169.254.169.254/latest/meta-data")


async def _slow(_: Request) -> Response:
    await asyncio.sleep(3)
    return PlainTextResponse("late")


WEB = Starlette(
    routes=[
        Route(f"/{name}", handler, methods=["GET", "POST"])
        for name, handler in (
            ("echo", _echo),
            ("large", _large),
            ("failing", _failing),
            ("moved", _moved),
            ("slow", _slow),
        )
    ]
)


async def test_http_tools() -> None:
    """Arguments are the JSON body or the query, headers come from the environment, and every failure is a result.

    A redirect is not followed, so a tool reaches only the address in the settings.
    """
    async with listening(WEB) as url:
        settings = [
            HttpTool(name="post", description="d", url=f"{url}/echo", headers_env={"x-key": "KEY"}),
            HttpTool(name="get", description="d", url=f"{url}/echo", method="GET"),
            *(
                HttpTool(name=name, description="d", url=f"{url}/{name}", timeout_s=0.3, result_bytes=256)
                for name in ("large", "failing", "moved", "slow")
            ),
        ]
        tools = HttpTools(settings, {"KEY": "secret"})
        assert [tool.name for tool in await tools.tools()] == ["post", "get", "large", "failing", "moved", "slow"]
        posted = json.loads((await tools.call("post", {"id": 7})).text)
        assert posted == ["POST", {}, '{"id":7}', "secret"]
        got = json.loads((await tools.call("get", {"id": 7, "name": "a b"})).text)
        assert got[:2] == ["GET", {"id": "7", "name": "a b"}]
        found = {name: await tools.call(name, {}) for name in ("large", "failing", "moved", "slow")}
    assert len(found["large"].text) <= 256
    assert "cut off" in found["large"].text
    assert found["failing"].text == "The tool answered with status 404: no such order"
    assert "status 307" in found["moved"].text
    assert found["slow"].text == "The tool did not answer for 0.3 s."
    assert [result.failed for result in found.values()] == [False, True, True, True]


def test_missing_variables_are_named() -> None:
    """A host whose environment lacks a token or a header does not start, and the error names setting and variable."""
    for tools in (
        ToolSettings(mcp_servers=(McpServer(label="a", url="http://a/mcp", token_env="TOKEN"),)),
        ToolSettings(http=(HttpTool(name="a", description="d", url="http://a", headers_env={"x": "TOKEN"}),)),
    ):
        with pytest.raises(ConfigError, match="TOKEN"):
            open_tool_servers(tools, {})
        assert open_tool_servers(tools, {"TOKEN": "t"}).ports


@pytest.mark.parametrize(
    "wrong",
    [
        {"mcp_servers": [{"label": "a"}]},
        {"mcp_servers": [{"label": "a", "url": "http://a", "command": ["b"]}]},
        {"mcp_servers": [{"label": "a", "url": "http://a"}] * 2},
        {"mcp_servers": [{"label": "http", "url": "http://a"}]},
        {"http": [{"name": "a b", "description": "d", "url": "http://a"}]},
        {"http": [{"name": "a", "description": "d", "url": ""}]},
    ],
)
def test_wrong_declarations_are_refused(wrong: dict[str, Any]) -> None:
    """A server needs one way to reach it, and names that are unique and that a model can write."""
    with pytest.raises(ValueError, match="a"):
        ToolSettings.model_validate(wrong)
