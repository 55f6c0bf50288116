"""Tools that the language model may call, and the calls that it makes.

Every type here is immutable and can be hashed, because tools and calls are parts of prompts, which are compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

ToolMode = Literal["auto", "none", "required"]
"""Whether the model calls a tool: it decides ("auto"), it never does ("none"), or it must ("required")."""

NO_ARGUMENTS = "{}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: Name of the tool.
        arguments: The arguments as JSON text.
        call_id: Id that connects the call with its result; "" if the model's server gave none.
    """

    name: str
    arguments: str
    call_id: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as a dict; empty if they are not a JSON object."""
        return json_object(self.arguments) or {}


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """One tool that the client declares.

    Attributes:
        name: Name of the tool.
        description: What the tool does, for the model.
        parameters: JSON schema of the arguments, as JSON text; "" if the tool takes none.
        server: Label of the tool server if this system calls the tool itself; "" if the client does.
    """

    name: str
    description: str = ""
    parameters: str = ""
    server: str = ""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return json_object(self.parameters) or {"type": "object", "properties": {}}

    def chat_form(self) -> dict[str, Any]:
        """Return the tool as chat completions and chat templates describe tools."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """The tools of one generation, and whether the model has to call one.

    Attributes:
        tools: The tools, in the client's order.
        mode: Whether the model calls a tool.
        named: Name of the only tool that the model may call; "" for any. It is set only if `mode` is "required".
        parallel: True if one answer may call several tools.
        call_tokens: Number of tokens that the calls of one answer may take, besides the tokens of its text.
    """

    tools: tuple[FunctionTool, ...] = ()
    mode: ToolMode = "auto"
    named: str = ""
    parallel: bool = True
    call_tokens: int = 0

    @property
    def active(self) -> bool:
        """True if the model may call a tool."""
        return bool(self.tools) and self.mode != "none"

    @property
    def forced(self) -> bool:
        """True if the model must call a tool."""
        return bool(self.tools) and self.mode == "required"

    @property
    def callable_tools(self) -> tuple[FunctionTool, ...]:
        """The tools that the model may call."""
        if not self.active:
            return ()
        return tuple(tool for tool in self.tools if self.named in ("", tool.name))

    def of_client(self) -> ToolOffer:
        """Return the offer without the tools that this system calls."""
        tools = tuple(tool for tool in self.tools if not tool.server)
        return replace(self, tools=tools) if tools else NO_TOOLS

    @property
    def client_names(self) -> tuple[str, ...]:
        """Names of the tools that the client calls."""
        return tuple(tool.name for tool in self.tools if not tool.server)

    def server_of(self, name: str) -> str:
        """Return the label of the tool server that has this tool; "" if the client calls it."""
        return next((tool.server for tool in self.tools if tool.name == name), "")

    @property
    def state(self) -> str:
        """The offer as one text, to compare or hash; "" without tools."""
        return repr(self) if self.tools else ""

    def accepted(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Return the calls that the client gets, in order.

        A call of a tool that may not be called is left out. Without `parallel`, only the first call is kept. Arguments
        that are empty or JSON in a JSON string are corrected. Other arguments stay as the model wrote them.
        """
        names = {tool.name for tool in self.callable_tools}
        found = [
            ToolCall(name, plain_arguments(call.arguments), call.call_id)
            for call in calls
            if (name := known_name(call.name, names)) is not None
        ]
        return tuple(found if self.parallel else found[:1])


NO_TOOLS = ToolOffer()


def known_name(name: str, names: set[str]) -> str | None:
    """Return the tool that a model means by `name`; None if no tool in `names` has this name.

    Some models write a namespace before it, for example "functions.get_time".
    """
    name = name.strip()
    if name in names:
        return name
    last = name.rsplit(".", 1)[-1]
    return last if last in names else None


def plain_arguments(arguments: str) -> str:
    """Return arguments as the text of a JSON object, if they mean one; otherwise unchanged.

    Blank text and "null" mean no arguments. Some servers encode the object a second time, as a JSON string.
    """
    text = arguments.strip()
    if text in ("", "null", '""'):
        return NO_ARGUMENTS
    if text.startswith('"'):
        try:
            inner = json.loads(text)
        except ValueError:
            return text
        return inner.strip() if isinstance(inner, str) and json_object(inner) is not None else text
    return text


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a text; None if the text is anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
