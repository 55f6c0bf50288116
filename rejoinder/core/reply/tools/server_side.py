"""Tools that the server calls: their names for the model, what a client may request, and the size of results."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rejoinder.core.reply.tools.calls import FunctionTool

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
MOST_SERVER_TOOLS = 64
"""Maximum number of tools of servers that one conversation has. More would not fit into the prompt."""


@dataclass(frozen=True, slots=True)
class ServerTool:
    """One tool of a tool server.

    Attributes:
        tool: The tool as the model sees it. Its `server` is the label of the tool server.
        remote_name: Name of the tool at the server.
    """

    tool: FunctionTool
    remote_name: str


@dataclass(frozen=True, slots=True)
class ListedServer:
    """The tools of one tool server, as it lists them, and the names of those that the conversation may use.

    Attributes:
        label: Label of the server.
        tools: The tools, with the names that they have at the server.
        allowed: Names at the server of the tools that may be used; None for all.
    """

    label: str
    tools: tuple[FunctionTool, ...]
    allowed: frozenset[str] | None = None


def exposed(servers: Sequence[ListedServer], taken: Collection[str] = ()) -> tuple[ServerTool, ...]:
    """Return the tools of servers that the model may call, each with a name that no other tool has.

    A name that is taken, or that a language model cannot write, is preceded by the server's label. At most
    MOST_SERVER_TOOLS are returned.

    Args:
        servers: The servers, the most important first.
        taken: Names of the client's own tools.
    """
    names = set(taken)
    found: list[ServerTool] = []
    for server in servers:
        for tool in server.tools:
            if server.allowed is not None and tool.name not in server.allowed:
                continue
            name = tool.name
            if name in names or not _NAME.fullmatch(name):
                name = _OTHER.sub("_", f"{server.label}_{name}")[:64]
            if name in names:
                continue
            names.add(name)
            shown = FunctionTool(name, tool.description, tool.parameters, server=server.label)
            found.append(ServerTool(shown, tool.name))
    return tuple(found[:MOST_SERVER_TOOLS])


def capped(text: str, most_bytes: int) -> str:
    """Return a result of at most `most_bytes` bytes of UTF-8, with a note for the model if it was cut off."""
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    note = f" [cut off: the result has {len(encoded)} bytes]"
    return encoded[: max(0, most_bytes - len(note))].decode(errors="ignore") + note
