"""Reader of the request files of `rejoinder bench tools`, and the judgement of a model's calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer, json_object
from rejoinder.core.reply.tools.schema_values import fits

FOLDER = Path(__file__).parent
TEST_SET = FOLDER / "requests.yaml"
"""The 50 requests of `rejoinder bench tools`."""
DEVELOPMENT_SET = FOLDER / "development.yaml"
"""Other requests, on which prompts and grammars may be tuned."""
CALL_TOKENS = 256
"""Maximum number of tokens of a call, as in a conversation (`tools.max_call_tokens`)."""
INSTRUCTIONS = (
    "You are a friendly voice assistant on a phone call. Answer in one or two short spoken sentences. "
    "Use a tool whenever one fits the caller's wish."
)
"""System prompt of every request."""


class CallFault(Enum):
    """What is wrong with a model's answer to a request.

    SILENT: no call. TOOL: a call of another tool, or several calls. SCHEMA: the arguments do not fit the JSON schema.
    VALUES: the arguments fit the schema, but not the caller's words. NEEDLESS: a call where none was needed.
    """

    SILENT = "no call"
    TOOL = "wrong tool"
    SCHEMA = "invalid arguments"
    VALUES = "wrong values"
    NEEDLESS = "needless call"


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One request.

    Attributes:
        service: Name of the set of tools.
        text: What the caller says.
        offer: The tools.
        tool: Name of the tool that is needed; "" if none is.
        values: Accepted values of arguments, by name.
    """

    service: str
    text: str
    offer: ToolOffer
    tool: str
    values: Mapping[str, Sequence[Any]]

    def fault(self, calls: Sequence[ToolCall]) -> CallFault | None:
        """Return what is wrong with the calls that a model makes; None if they are right."""
        if not self.tool:
            return CallFault.NEEDLESS if calls else None
        if not calls:
            return CallFault.SILENT
        if [call.name for call in calls] != [self.tool]:
            return CallFault.TOOL
        schema = next(tool.schema for tool in self.offer.tools if tool.name == self.tool)
        arguments = json_object(calls[0].arguments)
        if arguments is None or not fits(arguments, schema):
            return CallFault.SCHEMA
        right = all(_matches(arguments.get(name), accepted) for name, accepted in self.values.items())
        return None if right else CallFault.VALUES


def read_requests(path: Path = TEST_SET) -> list[ToolRequest]:
    """Return the requests of a file, in its order."""
    document: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = []
    for service, fields in document.items():
        offer = _offer(fields["tools"])
        found += [
            ToolRequest(service, entry["ask"], offer, tool=entry["call"], values=entry["with"])
            for entry in fields["requests"]
        ]
        found += [ToolRequest(service, text, offer, tool="", values={}) for text in fields["talk"]]
    return found


def _offer(tools: Mapping[str, Mapping[str, Any]]) -> ToolOffer:
    declared = tuple(
        FunctionTool(name, tool["description"], json.dumps(_schema(tool["parameters"], tool["required"])))
        for name, tool in tools.items()
    )
    return ToolOffer(declared, call_tokens=CALL_TOKENS)


def _schema(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _matches(value: Any, accepted: Sequence[Any]) -> bool:
    """Return True if a text contains an accepted text, or a number equals an accepted number."""
    if isinstance(value, str):
        return any(str(right).lower() in value.lower() for right in accepted)
    return value in accepted
