"""The port of a tool server: tools that the server calls itself, not the client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from rejoinder.core.reply.tools.calls import FunctionTool


@dataclass(frozen=True, slots=True)
class ToolResult:
    """Result of one call of a tool.

    Attributes:
        text: The result for the model; if the call has failed, what went wrong.
        failed: True if the tool or its server has failed.
    """

    text: str
    failed: bool = False


class ToolServerPort(Protocol):
    """Interface of a tool server. Many conversations use it at the same time.

    The implementation limits the time of both methods, and the size of results.
    """

    @property
    def label(self) -> str:
        """Name of the server, which clients see."""
        ...

    @property
    def url(self) -> str:
        """Address of the server, "" if it has none. A client may name the server by it."""
        ...

    @property
    def for_all(self) -> bool:
        """True if every conversation has the server's tools."""
        ...

    @property
    def requestable(self) -> bool:
        """True if a client may request the server with a tool of type mcp."""
        ...

    async def tools(self) -> tuple[FunctionTool, ...]:
        """Return the tools that may be called. Raise BackendError if the server does not answer."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Return the result of a call. A failure is a result, too: no exception is raised.

        Args:
            name: Name of the tool at the server.
            arguments: The arguments.
        """
        ...


StartTask = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task that ends with the session."""


@dataclass(frozen=True, slots=True)
class ToolServers:
    """The tool servers of a host, by label."""

    ports: dict[str, ToolServerPort] = field(default_factory=dict)

    def requested(self, label: str, url: str) -> ToolServerPort | None:
        """Return the server that a client requests; None if it may not request this server.

        Args:
            label: The client's `server_label`.
            url: The client's `server_url`; "" if it sends none. Then the label has to be a server's.
        """
        if url:
            wanted = url.rstrip("/")
            known = (port for port in self.ports.values() if port.url and port.url.rstrip("/") == wanted)
        else:
            known = (port for port in self.ports.values() if port.label == label)
        return next((port for port in known if port.requestable), None)


NO_SERVERS = ToolServers()
