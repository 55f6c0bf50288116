"""A real MCP server for tests: `python -m tests.deployments.tool_servers.clock` speaks MCP over standard input."""

from __future__ import annotations

import asyncio
import os

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError


def clock() -> MCPServer:
    """Return a server with a tool that works, one that fails, one that hangs, a long result and a variable's value."""
    server = MCPServer("clock")

    @server.tool()
    def get_time(city: str) -> str:
        """Tell the time in a city."""
        return f"12:00 in {city}"

    @server.tool()
    def broken() -> str:
        """Fail."""
        raise ToolError("out of order")

    @server.tool()
    async def slow() -> str:
        """Never answer."""
        await asyncio.sleep(3600)
        return ""

    @server.tool()
    def long() -> str:
        """Return 300 kB."""
        return "x" * 300_000

    @server.tool()
    def variable(name: str) -> str:
        """Return the value of an environment variable."""
        return os.environ.get(name, "not set")

    return server


if __name__ == "__main__":
    clock().run("stdio")
