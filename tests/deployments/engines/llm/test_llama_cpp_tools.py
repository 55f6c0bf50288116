"""The llama.cpp engine with tools: prompts, grammar, limits and KV cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from actors.stages.ports import LlmRequest, TokenDelta
from deployments.engines.llm.chat_template import ChatTemplate, with_tools_as_text
from deployments.engines.llm.llama_cpp import LlamaCpp, LlamaCppOptions, chat_template, gguf_file
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.spoken.hidden import visible_text
from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer
from rejoinder.core.reply.tools.schema_values import fits
from rejoinder.core.reply.tools.written import written_calls
from rejoinder.store.model_store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.asyncio(loop_scope="module")]

MODEL = "qwen2.5-coder-0.5b-instruct"
WITHOUT_TOOLS = "smollm2-135m-instruct"
ROOM = {
    "type": "object",
    "properties": {"room": {"enum": ["kitchen", "attic"]}, "degrees": {"type": "integer"}},
    "required": ["room", "degrees"],
}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (
    FunctionTool("set_temperature", "Set the temperature of a room.", json.dumps(ROOM)),
    FunctionTool("get_weather", "Get the weather of a city.", json.dumps(WEATHER)),
)
INSTRUCTIONS = ChatMessage("system", "You are a friendly voice assistant. Answer in one short sentence.")
HISTORY = (
    INSTRUCTIONS,
    ChatMessage("user", "How is the weather in Rome?"),
    ChatMessage("assistant", "", (ToolCall("get_weather", '{"city": "Rome"}', "call_1"),)),
    ChatMessage("tool", "sunny, 31 degrees", call_id="call_1"),
)


@pytest.fixture(scope="module")
def llm(store: ModelStore) -> Iterator[LlamaCpp]:
    engine = LlamaCpp(store.path(MODEL), LlamaCppOptions(slots=1, coalesce_ms=0, no_repeat_ngram=4))
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=[MODEL, WITHOUT_TOOLS])
def template(request: pytest.FixtureRequest, store: ModelStore) -> ChatTemplate:
    return chat_template(gguf_file(store.path(request.param)))


def ask(text: str, offer: ToolOffer, session: str = "") -> LlmRequest:
    return LlmRequest((INSTRUCTIONS, ChatMessage("user", text)), 40, tools=offer, session=session)


async def answer(llm: LlamaCpp, request: LlmRequest) -> list[TokenDelta]:
    async with aclosing(llm.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[TokenDelta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("named", ["set_temperature", "get_weather"])
async def test_a_named_tool_is_called_with_valid_arguments(llm: LlamaCpp, named: str) -> None:
    """A named tool is called whatever the caller says, its arguments fit the schema, and nothing is spoken."""
    offer = ToolOffer(TOOLS, "required", named, parallel=False, call_tokens=60)
    text = text_of(await answer(llm, ask("Hello, who are you?", offer)))
    (call,) = written_calls(text, offer)
    schema = next(tool.schema for tool in TOOLS if tool.name == named)
    assert (call.name, fits(call.values, schema)) == (named, True)
    assert not visible_text(text).strip()


async def test_the_fitting_tool_is_called(llm: LlamaCpp) -> None:
    """With the mode "auto" the model calls the tool for which the caller asks."""
    offer = ToolOffer(TOOLS, call_tokens=60, parallel=False)
    (call,) = written_calls(text_of(await answer(llm, ask("What is the weather in Paris?", offer))), offer)
    assert (call.name, call.values) == ("get_weather", {"city": "Paris"})


async def test_text_keeps_its_limit(llm: LlamaCpp) -> None:
    """The tokens of calls are not available to text: an answer without a call ends at `max_tokens`."""
    request = ask("Who wrote Hamlet, and what is it about?", ToolOffer(TOOLS, call_tokens=200))
    deltas = await answer(llm, replace(request, max_tokens=5))
    assert deltas[-1].finish == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 5


async def test_a_result_is_spoken(llm: LlamaCpp) -> None:
    """After the result of a tool, the model answers with the result."""
    offer = ToolOffer(TOOLS, call_tokens=60)
    text = text_of(await answer(llm, LlmRequest(HISTORY, 40, tools=offer)))
    assert written_calls(text, offer) == ()
    assert "31" in text


async def test_tools_are_prefilled_with_the_instructions(llm: LlamaCpp) -> None:
    """After a prefill of the instructions alone, a request computes only the tokens of the caller\'s message."""
    offer = ToolOffer(TOOLS, call_tokens=60)
    await answer(llm, LlmRequest((INSTRUCTIONS,), 0, prefill=True, session="s", tools=offer))
    usage = (await answer(llm, ask("What is the weather in Paris?", offer, "s")))[-1].usage
    assert usage is not None
    assert usage.prompt_tokens > 150
    assert usage.prompt_tokens - usage.cached_tokens < 25


async def test_every_template_describes_tools_calls_and_results(template: ChatTemplate) -> None:
    """With and without support for tools in the template, the prompt has tools, the call and its result."""
    prompt = template.render(HISTORY, tools=TOOLS)
    for part in ("set_temperature", '"enum": ["kitchen", "attic"]', '"city": "Rome"', "sunny, 31 degrees"):
        assert part in prompt
    assert prompt.startswith(template.render_open((INSTRUCTIONS,), tools=TOOLS))
    assert "set_temperature" not in template.render(HISTORY)


async def test_results_of_one_message_are_one_user_message() -> None:
    """Without support for tools in the template, the results of parallel calls share one message of the user."""
    again = ChatMessage("tool", "rainy", call_id="call_2")
    *_, last = with_tools_as_text((*HISTORY, again), ())
    assert last.role == "user"
    assert last.content.count("<tool_response>") == 2
