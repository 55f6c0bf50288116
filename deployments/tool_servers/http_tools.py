"""Tools that are one HTTP request each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from actors.stages.tool_servers import ToolResult
from rejoinder.core.reply.tools.calls import FunctionTool
from rejoinder.core.reply.tools.server_side import capped
from rejoinder.core.settings.tools.servers import HTTP_LABEL, HttpTool

CUT_NOTE_BYTES = 64
"""Bytes that are read beyond the maximum size of a result, so that it is known to be cut off."""


class HttpTools:
    """`ToolServerPort` of all HTTP tools in the settings.

    Redirects are not followed, and proxies of the environment are not used: a request goes to the configured address
    and nowhere else.
    """

    label, url, for_all, requestable = HTTP_LABEL, "", True, False

    def __init__(self, tools: Sequence[HttpTool], environment: Mapping[str, str]) -> None:
        """Create the tools. `environment` has the values of the headers."""
        self._tools = {tool.name: tool for tool in tools}
        self._headers = {
            tool.name: {header: environment.get(variable, "") for header, variable in tool.headers_env.items()}
            for tool in tools
        }

    async def tools(self) -> tuple[FunctionTool, ...]:
        """Return the tools of the settings."""
        return tuple(
            FunctionTool(tool.name, tool.description, json.dumps(tool.parameters) if tool.parameters else "")
            for tool in self._tools.values()
        )

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Send the request of a tool, and return the body of the answer. A status of 400 or above is a failure."""
        tool = self._tools[name]
        try:
            async with asyncio.timeout(tool.timeout_s):
                return await self._answer(tool, arguments)
        except TimeoutError:
            return ToolResult(f"The tool did not answer for {tool.timeout_s:g} s.", failed=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            return ToolResult(f"The tool cannot be reached ({type(error).__name__}).", failed=True)

    async def _answer(self, tool: HttpTool, arguments: dict[str, Any]) -> ToolResult:
        content: dict[str, Any] = {"params": _query(arguments)} if tool.method == "GET" else {"json": arguments}
        async with (
            httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=tool.timeout_s) as http,
            http.stream(tool.method, tool.url, headers=self._headers[tool.name], **content) as reply,
        ):
            body = b""
            async for piece in reply.aiter_bytes():
                body += piece
                if len(body) > tool.result_bytes + CUT_NOTE_BYTES:
                    break
            text = capped(body.decode(reply.encoding or "utf-8", errors="replace"), tool.result_bytes)
            if reply.status_code >= 300:
                return ToolResult(f"The tool answered with status {reply.status_code}: {text}", failed=True)
            return ToolResult(text)


def _query(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the arguments as a query: texts as they are, other values as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in arguments.items()}
