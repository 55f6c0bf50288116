"""One MCP server, at an address (streamable HTTP) or as a program of this host (stdio).

The package `mcp` is imported with the first connection: few systems need it, and it is an optional extra. A connection
is kept for all conversations. After a failure it is closed, and the next use connects again, but not before RETRY_S.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from actors.stages.tool_servers import ToolResult
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.tools.calls import FunctionTool
from rejoinder.core.reply.tools.server_side import capped
from rejoinder.core.settings.tools.servers import McpServer

RETRY_S = 5.0
"""Seconds after a failed connection before the next one: meanwhile all calls fail at once."""
GUARD_S = 2.0
"""Seconds that a call may take beyond its timeout before the connection is given up."""
IDLE_S = 300.0
"""Seconds without a byte, beyond the timeout of a call, after which a connection is broken. MCP's own default."""
LIST_S = 300.0
"""Seconds for which a list of tools is used again."""
MOST_PAGES = 16
"""Maximum number of pages of a list of tools that are read."""
DESCRIPTION = 4000
"""Maximum number of characters of a tool's description that the model gets."""


class McpToolServer:
    """`ToolServerPort` of one MCP server."""

    requestable = True

    def __init__(self, settings: McpServer, environment: Mapping[str, str] = os.environ) -> None:
        """Create the server without a connection. `environment` has the token, and the variables of the program."""
        self.label = settings.label
        self.url = settings.url
        self.for_all = settings.sessions == "all"
        self._settings = settings
        self._environment = environment
        self._holder: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[Any] | None = None
        self._failed_at = -RETRY_S
        self._listed: tuple[float, tuple[FunctionTool, ...]] | None = None
        self._listing = asyncio.Lock()

    async def tools(self) -> tuple[FunctionTool, ...]:
        """Return the tools that the settings allow, at most LIST_S old. Raise BackendError if there is no answer."""
        async with self._listing:
            if self._listed and time.monotonic() - self._listed[0] < LIST_S:
                return self._listed[1]
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    found = await self._list(await self._client())
            except Exception as error:  # whatever a server does, its tools are missing and the call goes on
                await self.close()
                raise BackendError(f"the MCP server {self.label} did not answer ({error!r}).", stage="tools") from error
            allowed = self._settings.allowed_tools
            tools = tuple(tool for tool in found if not allowed or tool.name in allowed)
            self._listed = (time.monotonic(), tools)
            return tools

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Return the result of a call. Every failure of the server is a result."""
        settings = self._settings
        if settings.allowed_tools and name not in settings.allowed_tools:
            return ToolResult("This tool is not allowed.", failed=True)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                client = await self._client()
            # Shielded, and with the client's own timeout: a request that is cancelled from outside may end the
            # connection, on which other conversations wait for results.
            calling = asyncio.ensure_future(client.call_tool(name, arguments, read_timeout_seconds=settings.timeout_s))
            calling.add_done_callback(lambda future: future.cancelled() or future.exception())
            async with asyncio.timeout(settings.timeout_s + GUARD_S):
                answer = await asyncio.shield(calling)
        except TimeoutError:
            await self.close()
            return ToolResult(f"The tool did not answer for {settings.timeout_s:g} s.", failed=True)
        except Exception as error:  # noqa: BLE001  # whatever a server does, its tool has failed and the call goes on
            if _timed_out(error):
                return ToolResult(f"The tool did not answer for {settings.timeout_s:g} s.", failed=True)
            if not _is_answer(error):
                await self.close()
            return ToolResult(capped(f"The tool server failed ({error}).", settings.result_bytes), failed=True)
        return ToolResult(capped(_text(answer), settings.result_bytes), failed=bool(answer.is_error))

    async def close(self) -> None:
        """End the connection and the program, if there are any."""
        holder, self._holder, self._connected = self._holder, None, None
        if holder:
            holder.cancel()
            await asyncio.wait({holder})

    async def _client(self) -> Any:
        """Return the connected client. Its connection is kept by a task of its own, which also closes it."""
        if self._holder is None or self._holder.done() or self._connected is None:
            if time.monotonic() - self._failed_at < RETRY_S:
                raise BackendError(f"the MCP server {self.label} failed a moment ago.", stage="tools")
            self._connected = asyncio.get_running_loop().create_future()
            self._connected.add_done_callback(lambda future: future.cancelled() or future.exception())
            self._holder = asyncio.create_task(self._hold(self._connected))
        return await asyncio.shield(self._connected)

    async def _hold(self, connected: asyncio.Future[Any]) -> None:
        try:
            async with self._connection() as client:
                connected.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001  # the caller that waits for the connection gets the error
            self._failed_at = time.monotonic()
            if not connected.done():
                connected.set_exception(BackendError(f"{error!r}"[:500], stage="tools"))
        finally:
            connected.cancel()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        # Imported here, because the package is optional and takes half a second.
        from mcp import Client, StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client

        if self._settings.command:
            program, *arguments = self._settings.command
            names = {"PATH", "HOME", *self._settings.environment} & self._environment.keys()
            environment = {name: self._environment[name] for name in names}
            async with Client(StdioServerParameters(command=program, args=arguments, env=environment)) as client:
                yield client
            return
        token = self._environment.get(self._settings.token_env, "") if self._settings.token_env else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Longer than a call may take: a read that times out would end the connection, with the calls of others.
        timeout = httpx2.Timeout(self._settings.connect_timeout_s, read=IDLE_S + self._settings.timeout_s)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout, follow_redirects=False, trust_env=False) as http,
            Client(streamable_http_client(self._settings.url, http_client=http)) as client,
        ):
            yield client

    async def _list(self, client: Any) -> list[FunctionTool]:
        found: list[FunctionTool] = []
        cursor = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += [_function(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                break
        return found


def _is_answer(error: Exception) -> bool:
    """Return True if an error is an answer of the server, whose connection is therefore in order."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED

    return isinstance(error, MCPError) and error.code != CONNECTION_CLOSED


def _timed_out(error: Exception) -> bool:
    from mcp import MCPError
    from mcp.types import REQUEST_TIMEOUT

    return isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT


def _function(tool: Any) -> FunctionTool:
    schema = json.dumps(tool.input_schema, ensure_ascii=False) if tool.input_schema else ""
    return FunctionTool(tool.name, (tool.description or "")[:DESCRIPTION], schema)


def _text(answer: Any) -> str:
    """Return the text of a result. Of other content only the kind is named, because the model reads text."""
    texts = [part.text if part.type == "text" else f"[{part.type}]" for part in answer.content]
    if not texts and answer.structured_content is not None:
        return json.dumps(answer.structured_content, ensure_ascii=False)
    return "\n".join(texts)
