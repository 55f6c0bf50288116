"""Tools of type mcp in a session: which MCP server a client requests, and why a request is refused.

A client can only request servers that the operator has declared. The server connects to no address that a client
sends: a `server_url` has to be the address of a declared server. So a client cannot make the server reach a machine
that the client cannot reach itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import Fields, Json, refuse

MCP = "mcp"
MOST_SERVERS = 8
_FORBIDDEN = ("authorization", "headers", "connector_id")
"""Fields with which a client would choose how this server identifies itself."""


@dataclass(frozen=True, slots=True)
class McpRequest:
    """An MCP server that a client requests.

    Attributes:
        label: The client's name of the server.
        url: Address of the server; "" if the client names it by its label only.
        allowed: Names of the tools that may be called; None for all that the operator allows.
    """

    label: str
    url: str = ""
    allowed: frozenset[str] | None = None

    def wire(self) -> Json:
        """Return the tool as JSON, as session.updated contains it."""
        found: Json = {"type": MCP, "server_label": self.label, "require_approval": "never"}
        found |= {"server_url": self.url} if self.url else {}
        return found | ({"allowed_tools": sorted(self.allowed)} if self.allowed is not None else {})


def request_of(tool: Json) -> McpRequest:
    """Return the request that `McpRequest.wire` has encoded."""
    allowed = tool.get("allowed_tools")
    return McpRequest(tool["server_label"], tool.get("server_url", ""), None if allowed is None else frozenset(allowed))


def mcp_requests(
    tools: list[Fields], permitted: Callable[[str, str], bool]
) -> tuple[tuple[McpRequest, ...], list[CallerError]]:
    """Return the MCP servers among the tools of a session.update, and an error for each one that is left out.

    Args:
        tools: The field `tools`.
        permitted: Returns whether a client may request the server with this label and address ("" for none).
    """
    found: dict[str, McpRequest] = {}
    faults: list[CallerError] = []
    for tool in tools:
        if tool.raw("type") != MCP:
            continue
        try:
            request = _request(tool, permitted)
            if request.label in found or len(found) >= MOST_SERVERS:
                path = tool.at("server_label")
                raise refuse(f"{path} is given twice, or there are too many.", path, remedy="Send each server once.")
            found[request.label] = request
        except CallerError as fault:
            faults.append(fault)
    return tuple(found.values()), faults


def _request(tool: Fields, permitted: Callable[[str, str], bool]) -> McpRequest:
    for name in _FORBIDDEN:
        if tool.raw(name) is not None:
            path = tool.at(name)
            remedy = "Leave it out: the operator configures how a server is reached."
            raise refuse(f"{path} is not supported.", path, code="unsupported_parameter", remedy=remedy)
    if tool.raw("require_approval") not in (None, "never"):
        path = tool.at("require_approval")
        remedy = 'Send "never": calls are not submitted for approval here.'
        raise refuse(f"{path} is not supported with this value.", path, code="unsupported_parameter", remedy=remedy)
    label, url = tool.text("server_label", limit=64), tool.optional_text("server_url") or ""
    if not permitted(label, url):
        path = tool.at("server_url" if url else "server_label")
        remedy = "Request a server that the operator of this system has declared in tools.mcp_servers."
        raise refuse(f"{path} is no MCP server of this system.", path, code="unsupported_tool", remedy=remedy)
    return McpRequest(label, url, _allowed(tool))


def _allowed(tool: Fields) -> frozenset[str] | None:
    given = tool.raw("allowed_tools")
    if given is None:
        return None
    if isinstance(given, dict):
        return frozenset(tool.child("allowed_tools").texts("tool_names", 128))
    return frozenset(tool.texts("allowed_tools", 128))
