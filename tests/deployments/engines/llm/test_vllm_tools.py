"""The vLLM engine with tools, with vLLM's modules replaced by stand-ins that record what the engine sends.

The stand-ins have the names and parameters of vLLM 0.32. No model runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from actors.stages.ports import LlmRequest, TokenDelta
from deployments.engines.llm.vllm import Vllm
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer
from rejoinder.core.reply.tools.written import written_calls
from rejoinder.core.settings.settings import LlmSettings, VllmSettings

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (FunctionTool("get_weather", "Get the weather.", json.dumps(SCHEMA)), FunctionTool("get_time"))
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
HISTORY = (
    ChatMessage("user", "Weather in Rome?"),
    ChatMessage("assistant", "", (ToolCall("get_weather", '{"city": "Rome"}', "call_1"),)),
    ChatMessage("tool", "sunny", call_id="call_1"),
)


@dataclass
class Recorded:
    """Stand-in of vLLM's engine and tokenizer. It answers with `pieces`, one token each."""

    pieces: list[str]
    templates: list[dict[str, Any]] = field(default_factory=list)
    sampling: list[dict[str, Any]] = field(default_factory=list)
    aborted: bool = False

    model_config = SimpleNamespace(max_model_len=1000, quantization=None, dtype="float32")

    def get_tokenizer(self) -> Recorded:
        return self

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        self.templates.append({"messages": messages, **options})
        return "prompt"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(range(10))

    async def generate(self, prompt: object, sampling: dict[str, Any], name: str) -> AsyncIterator[Any]:
        self.sampling.append(sampling)
        try:
            for number, piece in enumerate(self.pieces):
                last = number == len(self.pieces) - 1
                output = SimpleNamespace(text=piece, token_ids=[number], finish_reason="stop" if last else None)
                yield SimpleNamespace(outputs=[output], num_cached_tokens=0, metrics=None)
        finally:
            self.aborted = True


@pytest.fixture(autouse=True)
def vllm_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put stand-ins of the modules that the engine imports into `sys.modules`."""
    modules: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": "0.32", "SamplingParams": dict},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(DELTA="delta"), "StructuredOutputsParams": dict},
        "vllm.inputs": {"tokens_input": list},
        "vllm.exceptions": {
            "VLLMClientError": type("VLLMClientError", (Exception,), {}),
            "VLLMServerError": type("VLLMServerError", (Exception,), {}),
        },
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)


async def ask(monkeypatch: pytest.MonkeyPatch, recorded: Recorded, request: LlmRequest) -> list[TokenDelta]:
    """Send a request through the engine to the stand-in, and return all deltas."""
    monkeypatch.setattr("deployments.engines.llm.vllm._start", lambda model, stage: recorded)
    engine = Vllm("m", LlmSettings(engine="vllm", model="m", coalesce_ms=0, vllm=VllmSettings(max_num_seqs=2)))
    async with aclosing(engine.stream(request)) as deltas:
        return [delta async for delta in deltas]


async def test_tools_and_calls_reach_the_chat_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template gets the tools, calls with their arguments as objects, and results with call ids."""
    recorded = Recorded(["Sunny."])
    await ask(monkeypatch, recorded, LlmRequest(HISTORY, 40, tools=ToolOffer(TOOLS, call_tokens=60)))
    (template,) = recorded.templates
    assert [tool["function"]["name"] for tool in template["tools"]] == ["get_weather", "get_time"]
    _, called, result = template["messages"]
    assert called["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_1")
    (sampling,) = recorded.sampling
    assert (sampling["max_tokens"], sampling["skip_special_tokens"]) == (100, False)
    assert sampling["structured_outputs"] is None


async def test_a_call_in_the_text_is_longer_than_the_text_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes on after `max_tokens`, and is found in the text; an answer in words is cut off there."""
    offer = ToolOffer(TOOLS, call_tokens=60)
    called = Recorded([CALL[at : at + 4] for at in range(0, len(CALL), 4)])
    deltas = await ask(monkeypatch, called, LlmRequest(HISTORY[:1], 5, tools=offer))
    text = "".join(delta.text for delta in deltas)
    assert written_calls(text, offer) == (ToolCall("get_weather", '{"city": "Paris"}'),)
    assert deltas[-1].finish == "stop"
    talking = Recorded(["word "] * 50)
    deltas = await ask(monkeypatch, talking, LlmRequest(HISTORY[:1], 5, tools=offer))
    assert (deltas[-1].finish, talking.aborted) == ("length", True)
    assert "".join(delta.text for delta in deltas).split() == ["word"] * 5


async def test_a_forced_call_has_structured_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a named tool, the output is the JSON object of a call of this tool."""
    recorded = Recorded(['{"name": "get_time", "arguments": {}}'])
    offer = ToolOffer(TOOLS, "required", "get_time", call_tokens=60)
    deltas = await ask(monkeypatch, recorded, LlmRequest(HISTORY[:1], 40, tools=offer))
    (option,) = recorded.sampling[0]["structured_outputs"]["json"]["anyOf"]
    assert option["properties"]["name"] == {"const": "get_time"}
    assert written_calls("".join(delta.text for delta in deltas), offer) == (ToolCall("get_time", "{}"),)


async def test_without_tools_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tools, and with tool_choice none, the template and the sampling have no tools."""
    for offer in (ToolOffer(), ToolOffer(TOOLS, "none", call_tokens=60)):
        recorded = Recorded(["Sunny."])
        await ask(monkeypatch, recorded, LlmRequest(HISTORY[:1], 40, tools=offer))
        assert recorded.templates[0]["tools"] is None
        assert recorded.sampling[0]["max_tokens"] == 40
        assert recorded.sampling[0]["skip_special_tokens"]
