"""Find the tool calls that a model writes as text, and describe tools to a model whose chat template cannot.

The forms are those of open models: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen),
`[TOOL_CALLS] [{...}]` (Mistral), `<function=NAME>{...}</function>` (Llama), and a JSON object that begins a line.
Such text is never spoken (`rejoinder.core.reply.spoken.hidden`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer

OPENING = "<tool_call>"
CLOSING = "</tool_call>"
_STARTS = re.compile(
    r"<tool_calls?>|<function_calls?>|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call>|^[ \t]*(?=\{)", re.MULTILINE
)
_NAMED = re.compile(r"<function=([^>\s]+)>\s*")
_SPACE = re.compile(r"[\s,\[]*")
_DECODER = json.JSONDecoder()


def written_calls(text: str, offer: ToolOffer) -> tuple[ToolCall, ...]:
    """Return the calls of callable tools in a model's text, in order.

    Args:
        text: Everything that the model wrote.
        offer: The tools. Objects that name no callable tool are not calls.
    """
    if not offer.active:
        return ()
    text = _without_thoughts(text)
    found: list[tuple[int, ToolCall]] = []
    end = 0
    for start in _STARTS.finditer(text):
        if start.end() >= end:
            for after, value in _objects(text, start.end()):
                end = after  # a line within this object is not the start of another call
                found += [(start.start(), call) for call in _calls_of(value)]
    for start in _NAMED.finditer(text):
        for _, value in _objects(text, start.end()):
            found.append((start.start(), ToolCall(start[1], json.dumps(value, ensure_ascii=False))))
            break
    ordered = [call for _, call in sorted(found, key=lambda entry: entry[0])]
    return offer.accepted(list(dict.fromkeys(ordered)))  # small models repeat a call word for word


def begins_call(text: str) -> bool:
    """Return True if a model's text so far may have begun a call, so that its limit of spoken tokens does not apply."""
    return _STARTS.search(text) is not None or _NAMED.search(text) is not None


def instructions_for(tools: tuple[FunctionTool, ...]) -> str:
    """Return the part of the system message that describes the tools, in the form of Hermes and Qwen2.5 models."""
    described = "\n".join(json.dumps(tool.chat_form(), ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{described}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"{OPENING}{CLOSING} XML tags:\n{OPENING}\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n'
        f"{CLOSING}"
    )


def call_text(call: ToolCall) -> str:
    """Return a call as a Hermes or Qwen2.5 model writes it."""
    return f'{OPENING}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n{CLOSING}'


def result_text(output: str) -> str:
    """Return the result of a call as a Hermes or Qwen2.5 model reads it, in a message of the user."""
    return f"<tool_response>\n{output}\n</tool_response>"


def _without_thoughts(text: str) -> str:
    """Return the text without the model's reasoning, in which calls do not count."""
    return re.sub(r"<(think|thinking)>.*?(</\1>|$)", "", text, flags=re.DOTALL | re.IGNORECASE)


def _objects(text: str, at: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position after the object, object) of each JSON object that follows `at`, one directly after another."""
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # the pattern matches the empty text
        if at >= len(text) or text[at] != "{":
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except ValueError:
            return
        if isinstance(value, dict):
            yield at, value


def _calls_of(value: dict[str, Any]) -> Iterator[ToolCall]:
    """Yield the call that a JSON object describes, if it describes one."""
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name") or value.get("tool_name") or value.get("function")
    if not isinstance(name, str):
        return
    arguments: Any = next((value[key] for key in ("arguments", "parameters", "args") if key in value), {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    yield ToolCall(name, text, str(value.get("id") or ""))
