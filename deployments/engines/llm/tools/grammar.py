"""Grammar for llama.cpp with which every tool call names a declared tool, with arguments that fit its JSON schema.

The grammar is in the format of llguidance (https://github.com/guidance-ai/llguidance), with which xllamacpp is built.
It allows text, then calls on a new line. Text must not contain "<" or "{", with which calls begin. No voice can speak
these characters.
A call is the JSON object that the model would write itself, with or without the tags of its chat template.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from rejoinder.core.reply.tools.calls import FunctionTool, ToolOffer
from rejoinder.core.reply.tools.plain_schema import plain_schema
from rejoinder.core.reply.tools.written import CLOSING, OPENING

# Maximum number of calls in one answer.
MOST_CALLS = 4
_TEXT = "TEXT: /[^<{}\\[\\]`]+/"
# Spaces as models write them after commas and colons. Other spaces are not allowed.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def tool_grammar(offer: ToolOffer, *, text_only: bool = False) -> str:
    """Return the grammar of an answer to a request with these tools; "" if the model may not call any.

    `text_only` is True for an answer that must not call a tool, unless the client demands a call.
    """
    if not offer.active:
        return ""
    if text_only and not offer.forced:
        return f"%llguidance {{}}\nstart: TEXT\n{_TEXT}"
    return _grammar(offer.callable_tools, forced=offer.forced, parallel=offer.parallel and not offer.named)


@lru_cache(maxsize=128)
def _grammar(tools: tuple[FunctionTool, ...], *, forced: bool, parallel: bool) -> str:
    schema = {"anyOf": [call_schema(tool) for tool in tools], "x-guidance": _SPACING}
    more = f'("\\n" call){{0,{MOST_CALLS - 1}}}' if parallel else ""
    return "\n".join(
        (
            "%llguidance {}",
            "start: calls" if forced else 'start: calls | TEXT | TEXT "\\n" calls',
            f"calls: call {more}",
            f'call: "{OPENING}\\n" object "\\n{CLOSING}" | object',
            _TEXT,
            f"object: %json {json.dumps(schema)}",
        )
    )


def call_schema(tool: FunctionTool) -> dict[str, Any]:
    """Return the JSON schema of the object that calls a tool. Arguments that the tool does not declare are excluded."""
    parameters = plain_schema(tool.schema)
    if parameters.get("type") != "object":
        parameters = {"type": "object"}
    elif not tool.schema.get("properties"):
        parameters |= {"properties": {}, "additionalProperties": bool(tool.schema.get("additionalProperties"))}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
