"""Requests for chat completions (`POST /v1/chat/completions`): their messages, tools and options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from rejoinder.core.http_api.parameters import check_names
from rejoinder.core.reply.prompt_window import ChatMessage, Role
from rejoinder.core.reply.tools.calls import NO_ARGUMENTS, NO_TOOLS, FunctionTool, ToolCall, ToolMode, ToolOffer
from rejoinder.core.wire.fields import Fields, refuse

MOST_MESSAGES = 2048
MOST_TOOLS = 128
MOST_STOPS = 4

HONOURED = frozenset(
    {"messages", "model", "max_tokens", "max_completion_tokens", "temperature", "stop", "stream", "stream_options"}
    | {"tools", "tool_choice", "parallel_tool_calls", "prompt_cache_key"}
)
IGNORED = frozenset(
    {"user", "safety_identifier", "metadata", "store", "service_tier", "seed", "reasoning_effort", "verbosity"}
    | {"prompt_cache_retention", "prompt_cache_options"}
)
"""Parameters that change nothing: they name the user, the record or the price, or tune models that think first."""
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "audio": None,
    "functions": None,
    "function_call": None,
    "prediction": None,
    "web_search_options": None,
    "moderation": None,
}


@dataclass(frozen=True, slots=True)
class ChatOrder:
    """A chat completion to generate.

    Attributes:
        messages: The prompt.
        model: The model name that the client sent, which the answer repeats. It does not change which engine answers.
        max_tokens: Maximum number of tokens of the answer.
        temperature: Sampling temperature; None for the setting's.
        stops: Stop sequences.
        tools: The tools that the model may call.
        events: True to send the answer as server-sent events.
        counts: True to send the token counts after the events.
        cache_key: The client's name of prompts with the same beginning; "" for none.
    """

    messages: tuple[ChatMessage, ...]
    model: str
    max_tokens: int
    temperature: float | None = None
    stops: tuple[str, ...] = ()
    tools: ToolOffer = NO_TOOLS
    events: bool = False
    counts: bool = False
    cache_key: str = ""

    @classmethod
    def parse(cls, body: Fields, most_tokens: int) -> ChatOrder:
        """Return the order in the JSON body of a request. Raise CallerError if a parameter is invalid.

        Args:
            body: The body.
            most_tokens: Maximum number of tokens of an answer. A higher limit of the client is lowered to it.
        """
        check_names(body, HONOURED, IGNORED, NEUTRAL)
        messages = tuple(_message(entry) for entry in body.items("messages", MOST_MESSAGES))
        if not messages:
            raise refuse("messages is empty.", "messages", code="missing_required_parameter", remedy="Send a message.")
        events = body.flag("stream", False)
        options = body.child("stream_options") if body.raw("stream_options") is not None else Fields({}, "")
        if options.keys() and not events:
            raise refuse("stream_options needs stream.", "stream_options", remedy="Set stream to true.")
        check_names(options, frozenset({"include_usage"}), frozenset({"include_obfuscation"}), {})
        wanted = [body.whole(name, 1, 2**31) for name in ("max_completion_tokens", "max_tokens") if _given(body, name)]
        return cls(
            messages,
            body.text("model", "rejoinder", limit=256),
            max_tokens=min([most_tokens, *wanted]),
            temperature=body.number("temperature", 0, 2) if _given(body, "temperature") else None,
            stops=_stops(body),
            tools=_offer(body),
            events=events,
            counts=options.flag("include_usage", False),
            cache_key=body.optional_text("prompt_cache_key") or "",
        )


def _given(body: Fields, name: str) -> bool:
    return body.raw(name) is not None


def _stops(body: Fields) -> tuple[str, ...]:
    given = body.raw("stop")
    if isinstance(given, str):
        return (given,) if given else ()
    return tuple(stop for stop in body.texts("stop", MOST_STOPS) if stop)


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def _message(entry: Fields) -> ChatMessage:
    role = _ROLES[entry.choice("role", tuple(_ROLES))]
    calls = tuple(_call(call) for call in entry.items("tool_calls", MOST_TOOLS)) if role == "assistant" else ()
    if entry.raw("content") is None:
        if role != "assistant":
            raise refuse(f"{entry.at('content')} is required.", entry.at("content"), code="missing_required_parameter")
        return ChatMessage(role, "", calls)
    call_id = entry.text("tool_call_id", limit=256) if role == "tool" else ""
    return ChatMessage(role, _content(entry), calls, call_id)


def _content(entry: Fields) -> str:
    """Return the text of a message. Its content is a text, or a list of parts with texts."""
    if isinstance(entry.raw("content"), str):
        return entry.text("content", limit=1_000_000)
    texts = []
    for part in entry.items("content", 256):
        kind = part.text("type", limit=64)
        if kind not in ("text", "refusal"):
            remedy = "Send text: the language model gets no images, audio or files."
            raise refuse(
                f"{part.at('type')} {kind!r} is not supported.",
                part.at("type"),
                code="unsupported_content",
                remedy=remedy,
            )
        texts.append(part.text(kind, limit=1_000_000))
    return "\n".join(texts)


def _call(call: Fields) -> ToolCall:
    function = call.child("function")
    arguments = function.text("arguments", NO_ARGUMENTS) or NO_ARGUMENTS
    return ToolCall(function.text("name", limit=128), arguments, call.text("id", limit=256))


def _offer(body: Fields) -> ToolOffer:
    tools = tuple(_tool(tool) for tool in body.items("tools", MOST_TOOLS))
    mode, named = _choice(body, {tool.name for tool in tools})
    if not tools:
        return NO_TOOLS
    return ToolOffer(tools, mode, named, parallel=body.flag("parallel_tool_calls", True))


def _tool(tool: Fields) -> FunctionTool:
    tool.choice("type", ("function",))
    function = tool.child("function")
    parameters = function.child("parameters").as_dict() if function.raw("parameters") is not None else {}
    return FunctionTool(
        function.text("name", limit=128),
        function.optional_text("description") or "",
        json.dumps(parameters, ensure_ascii=False) if parameters else "",
    )


def _choice(body: Fields, declared: set[str]) -> tuple[ToolMode, str]:
    """Return (whether the model calls a tool, name of the only one that it may call or "")."""
    if not isinstance(body.raw("tool_choice"), dict):
        given = body.raw("tool_choice")
        mode = "auto" if given is None else body.choice("tool_choice", ("auto", "none", "required"))
        if mode == "required" and not declared:
            raise refuse("tool_choice is 'required'.", "tool_choice", remedy="Declare a tool.")
        return cast(ToolMode, mode), ""
    choice = body.child("tool_choice")
    choice.choice("type", ("function",))
    name = choice.child("function").text("name", limit=128)
    if name not in declared:
        path = "tool_choice.function.name"
        raise refuse(f"{path} {name!r} is not a declared tool.", path, remedy="Declare it, or name another one.")
    return "required", name
