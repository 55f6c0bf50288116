"""Tests of the OpenAI API engine with tools, against a server that sends tool calls in every form of public servers."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest

from actors.stages.ports import LlmRequest, TokenDelta
from deployments.engines.llm.openai_api import OpenAiApi
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer
from rejoinder.core.reply.tools.written import written_calls
from tests.deployments.engines.llm.faulty_server import DONE, FaultyServer, Reply, chunk, words

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = FunctionTool("get_weather", "Get the weather.", json.dumps(PARAMETERS))
TIME = FunctionTool("get_time", "Get the time.")
OFFER = ToolOffer((WEATHER, TIME), call_tokens=100)
QUESTION = ChatMessage("user", "How is the weather in Paris?")
PARIS = '{"city": "Paris"}'
ONE = [("get_weather", PARIS)]
TWO = [*ONE, ("get_time", "{}")]
END = (chunk("tool_calls"), DONE)
JSON = "application/json"


def piece(index: int | None = None, call_id: str | None = None, **function: Any) -> dict[str, Any]:
    """Return a fragment of a call, without the fields that are None."""
    fields = {"index": index, "id": call_id, "function": function}
    return {name: value for name, value in fields.items() if value is not None}


def tool(*pieces: dict[str, Any]) -> str:
    """Return a chunk with these fragments of calls."""
    return chunk(tool_calls=list(pieces))


def streamed(*bodies: str, end: tuple[str, ...] = END) -> Reply:
    """Return a response that streams these chunks and then `end`."""
    return Reply((*bodies, *end))


def whole(message: dict[str, Any], finish: str = "tool_calls") -> Reply:
    """Return a response that is one JSON object instead of a stream."""
    return Reply((json.dumps({"choices": [{"message": message, "finish_reason": finish}]}),), kind=JSON)


FULL = piece(0, "call_1", name="get_weather", arguments=PARIS)
SECOND = piece(1, "call_2", name="get_time", arguments="{}")
HALVES = ('{"city": ', '"Paris"}')
WRITTEN = f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>'

FORMS: dict[str, tuple[Reply, list[tuple[str, str]], str]] = {
    "arguments in pieces": (
        streamed(
            tool(piece(0, "call_1", name="get_weather", arguments="")),
            *(tool(piece(0, arguments=half)) for half in HALVES),
        ),
        ONE,
        "",
    ),
    "one piece": (streamed(tool(FULL)), ONE, ""),
    "name in pieces": (
        streamed(tool(piece(0, "a", name="get_")), tool(piece(0, name="weather")), tool(piece(0, arguments=PARIS))),
        ONE,
        "",
    ),
    "name in every piece": (
        streamed(*(tool(piece(0, "a", name="get_weather", arguments=half)) for half in HALVES)),
        ONE,
        "",
    ),
    "name grows with every piece": (
        streamed(tool(piece(0, "a", name="get_")), tool(piece(0, "a", name="get_weather", arguments=PARIS))),
        ONE,
        "",
    ),
    "arguments grow with every piece": (
        streamed(tool(piece(0, "a", name="get_weather", arguments=HALVES[0])), tool(piece(0, "a", arguments=PARIS))),
        ONE,
        "",
    ),
    "arguments again at the end": (
        streamed(
            tool(piece(0, "a", name="get_weather")),
            *(tool(piece(0, arguments=half)) for half in HALVES),
            tool(piece(0, arguments=PARIS)),
        ),
        ONE,
        "",
    ),
    "no id": (streamed(tool(piece(0, name="get_weather", arguments=PARIS))), ONE, ""),
    "no index": (streamed(tool(piece(None, "call_1", name="get_weather", arguments=PARIS))), ONE, ""),
    "neither id nor index": (streamed(tool(piece(name="get_weather", arguments=PARIS))), ONE, ""),
    "pieces without id and index": (
        streamed(tool(piece(name="get_weather", arguments=HALVES[0])), tool(piece(arguments=HALVES[1]))),
        ONE,
        "",
    ),
    "no arguments": (streamed(tool(piece(0, "a", name="get_time"))), [("get_time", "{}")], ""),
    "arguments null": (streamed(tool(piece(0, "a", name="get_time", arguments=None))), [("get_time", "{}")], ""),
    "arguments empty": (streamed(tool(piece(0, "a", name="get_time", arguments=""))), [("get_time", "{}")], ""),
    "arguments as an object": (
        streamed(tool(piece(0, "a", name="get_weather", arguments={"city": "Paris"}))),
        ONE,
        "",
    ),
    "arguments encoded twice": (
        streamed(tool(piece(0, "a", name="get_weather", arguments=json.dumps(PARIS)))),
        ONE,
        "",
    ),
    "namespace before the name": (
        streamed(tool(piece(0, "a", name="functions.get_weather", arguments=PARIS))),
        ONE,
        "",
    ),
    "function fields at the top": (
        streamed(chunk(tool_calls=[{"index": 0, "id": "a", "name": "get_weather", "arguments": PARIS}])),
        ONE,
        "",
    ),
    "one call instead of a list": (streamed(chunk(tool_calls=FULL)), ONE, ""),
    "two in one chunk": (streamed(tool(FULL, SECOND)), TWO, ""),
    "two one after the other": (streamed(tool(FULL), tool(SECOND)), TWO, ""),
    "two interleaved": (
        streamed(
            tool(piece(0, "a", name="get_weather"), piece(1, "b", name="get_time")),
            tool(piece(0, arguments=HALVES[0]), piece(1, arguments="{")),
            tool(piece(0, arguments=HALVES[1]), piece(1, arguments="}")),
        ),
        TWO,
        "",
    ),
    "two with the same index": (
        streamed(tool(FULL), tool(piece(0, "call_2", name="get_time", arguments="{}"))),
        TWO,
        "",
    ),
    "two without an index": (
        streamed(tool(piece(None, "a", name="get_weather", arguments=PARIS), piece(None, "b", name="get_time"))),
        TWO,
        "",
    ),
    "two without id and index": (
        streamed(tool(piece(name="get_weather", arguments=PARIS)), tool(piece(name="get_time", arguments="{}"))),
        TWO,
        "",
    ),
    "two of the same tool": (
        streamed(tool(FULL), tool(piece(1, "call_2", name="get_weather", arguments='{"city": "Rome"}'))),
        [*ONE, ("get_weather", '{"city": "Rome"}')],
        "",
    ),
    "text before": (streamed(*[str(part) for part in words("Let me look.") if part], tool(FULL)), ONE, "Let me look."),
    "thoughts before": (streamed(chunk(reasoning_content="hm"), tool(FULL)), ONE, ""),
    "content null": (streamed(chunk(content=None, tool_calls=[FULL])), ONE, ""),
    "finish reason stop": (streamed(tool(FULL), end=(chunk("stop"), DONE)), ONE, ""),
    "finish reason function_call": (streamed(tool(FULL), end=(chunk("function_call"), DONE)), ONE, ""),
    "finish reason tool_use": (streamed(tool(FULL), end=(chunk("tool_use"), DONE)), ONE, ""),
    "finish reason in the same chunk": (streamed(chunk("tool_calls", tool_calls=[FULL]), end=(DONE,)), ONE, ""),
    "no finish reason": (streamed(tool(FULL), end=(DONE,)), ONE, ""),
    "no end": (streamed(tool(FULL), end=()), ONE, ""),
    "old function call": (
        streamed(chunk(function_call={"name": "get_weather"}), chunk(function_call={"arguments": PARIS})),
        ONE,
        "",
    ),
    "whole": (whole({"content": None, "tool_calls": [FULL, SECOND]}), TWO, ""),
    "whole without index": (
        whole({"content": "", "tool_calls": [piece(None, "a", name="get_weather", arguments=PARIS)]}, "stop"),
        ONE,
        "",
    ),
    "whole old function call": (
        whole({"content": None, "function_call": {"name": "get_weather", "arguments": PARIS}}, "function_call"),
        ONE,
        "",
    ),
    "written as text": (streamed(chunk(content=WRITTEN), end=(chunk("stop"), DONE)), ONE, WRITTEN),
    "written as text in pieces": (
        streamed(*(chunk(content=part) for part in (WRITTEN[:7], WRITTEN[7:30], WRITTEN[30:])), end=(DONE,)),
        ONE,
        WRITTEN,
    ),
    "written in Mistral's form": (
        streamed(chunk(content=f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {PARIS}}}]'), end=(DONE,)),
        ONE,
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {PARIS}}}]',
    ),
    "written in Llama's form": (
        streamed(chunk(content=f'{{"name": "get_weather", "parameters": {PARIS}}}'), end=(DONE,)),
        ONE,
        f'{{"name": "get_weather", "parameters": {PARIS}}}',
    ),
}


async def ask(server: FaultyServer, offer: ToolOffer = OFFER, *history: ChatMessage) -> list[TokenDelta]:
    """Send one request with tools to the server through the engine, and return all deltas."""
    async with server.open() as url:
        engine = OpenAiApi(url, "m", "none", 0)
        async with aclosing(engine.stream(LlmRequest((QUESTION, *history), 60, tools=offer))) as deltas:
            return [delta async for delta in deltas]


@pytest.mark.parametrize("name", FORMS)
async def test_every_form_of_calls_is_understood(name: str) -> None:
    """Of each form, the same calls and text come out, and only the last delta has calls."""
    reply, expected, text = FORMS[name]
    deltas = await ask(FaultyServer([reply]))
    spoken = "".join(delta.text for delta in deltas)
    found = OFFER.accepted(deltas[-1].calls) or written_calls(spoken, OFFER)
    assert [(call.name, call.arguments) for call in found] == expected
    assert spoken == text
    assert not any(delta.calls for delta in deltas[:-1])


async def test_a_call_that_breaks_off_is_no_call() -> None:
    """If the stream breaks within the arguments, the engine raises BackendError, so that the request is repeated."""
    with pytest.raises(BackendError):
        await ask(FaultyServer([streamed(tool(piece(0, "a", name="get_weather", arguments=HALVES[0])), end=())]))


async def test_arguments_that_take_long_show_that_the_server_works() -> None:
    """While arguments arrive, the engine returns deltas without text, so that the request does not time out."""
    parts = (tool(piece(0, "a", name="get_weather")), 0.4, tool(piece(0, arguments=PARIS)), 0.4, *END)
    deltas = await ask(FaultyServer([Reply(parts)]))
    assert len(deltas) > 1
    assert deltas[-1].calls == (ToolCall("get_weather", PARIS, "a"),)


@pytest.mark.parametrize(
    ("offer", "choice", "parallel"),
    [
        (OFFER, None, None),
        (ToolOffer(OFFER.tools, "none"), "none", None),
        (ToolOffer(OFFER.tools, "required", parallel=False), "required", False),
        (
            ToolOffer(OFFER.tools, "required", "get_time"),
            {"type": "function", "function": {"name": "get_time"}},
            None,
        ),
    ],
)
async def test_tools_are_sent(offer: ToolOffer, choice: object, parallel: bool | None) -> None:
    """The request has the tools, and tool_choice and parallel_tool_calls unless they are the default."""
    server = FaultyServer([streamed(tool(FULL))])
    await ask(server, offer)
    (sent,) = server.requests
    assert [entry["function"]["name"] for entry in sent["tools"]] == ["get_weather", "get_time"]
    assert sent["tools"][0]["function"]["parameters"] == PARAMETERS
    assert (sent.get("tool_choice"), sent.get("parallel_tool_calls")) == (choice, parallel)
    assert sent["max_tokens"] == 60 + offer.call_tokens * (offer.mode != "none")


async def test_calls_and_results_are_sent() -> None:
    """The history has the calls of assistant messages, and results with their call ids."""
    called = ChatMessage("assistant", "", (ToolCall("get_weather", PARIS, "call_1"),))
    server = FaultyServer([Reply((*words("Sunny."), chunk("stop"), DONE))])
    await ask(server, OFFER, called, ChatMessage("tool", "sunny", call_id="call_1"))
    _, assistant, result = server.requests[0]["messages"]
    assert assistant["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": PARIS}}
    ]
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


async def test_text_has_its_own_limit() -> None:
    """With tools the server may send more tokens than the answer may have, but text is cut off at `max_tokens`."""
    deltas = await ask(FaultyServer([Reply(words("word " * 200))]))
    assert deltas[-1].finish == "length"
    assert len("".join(delta.text for delta in deltas).split()) <= 61
