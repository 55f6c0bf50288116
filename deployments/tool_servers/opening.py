"""Makes the tool servers of a host from its settings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

from actors.stages.tool_servers import ToolServerPort, ToolServers
from deployments.tool_servers.http_tools import HttpTools
from deployments.tool_servers.mcp_server import McpToolServer
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ToolSettings


def open_tool_servers(settings: ToolSettings, environment: Mapping[str, str] = os.environ) -> ToolServers:
    """Return the tool servers of the settings. None is connected yet.

    Raises:
        ConfigError: An MCP server is declared and the package `mcp` is missing, or a variable with a token or a header
            is empty.
    """
    if settings.mcp_servers and importlib.util.find_spec("mcp") is None:
        remedy = "Run `pip install -e '.[mcp]'` in the checkout on every node."
        raise ConfigError("MCP servers need the package mcp.", remedy, field="args.tools.mcp_servers")
    for number, tool in enumerate(settings.http):
        for header, variable in tool.headers_env.items():
            if not environment.get(variable):
                field = f"args.tools.http.{number}.headers_env.{header}"
                raise ConfigError(f"the variable {variable} is empty.", "Set it on every node.", field=field)
    for number, each in enumerate(settings.mcp_servers):
        if each.token_env and not environment.get(each.token_env):
            field = f"args.tools.mcp_servers.{number}.token_env"
            raise ConfigError(f"the variable {each.token_env} is empty.", "Set it on every node.", field=field)
    servers: list[ToolServerPort] = [HttpTools(settings.http, environment)] if settings.http else []
    servers += [McpToolServer(each, environment) for each in settings.mcp_servers]
    return ToolServers({server.label: server for server in servers})
