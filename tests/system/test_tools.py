"""Tools over a real system with emulated engines, with the unmodified OpenAI client."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeResponse

from tests.system.harness.served import Served, serving

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

CLOCK = {
    "label": "clock",
    "command": [sys.executable, "-m", "tests.deployments.tool_servers.clock"],
    "environment": ["PYTHONPATH"],
    "allowed_tools": ["get_time"],
    "connect_timeout_s": 30,
}
EMULATED: dict[str, Any] = {stage: {"engine": "emulated"} for stage in ("stt", "llm", "tts")}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
}
OUTPUT = "sunny with twenty degrees"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    arguments = EMULATED | {"tools": {"mcp_servers": [CLOCK]}}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with serving(tmp_path_factory.mktemp("tools"), arguments, environment=environment) as found:
        yield found


async def _response(connection: AsyncRealtimeConnection) -> RealtimeResponse:
    """Read events until the response has ended, and return it. Fail at an error event."""
    async for event in connection:
        assert event.type != "error", event
        if event.type == "response.done":
            return event.response
    raise AssertionError("the connection was closed")


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_a_call_and_its_result_through_every_process(served: Served, modality: Any) -> None:
    """The call of the model, in its own process, reaches the client, and the answer has the words of its result."""
    client = AsyncOpenAI(
        api_key="none", base_url=f"{served.url}/v1", websocket_base_url=f"{served.url.replace('http', 'ws')}/v1"
    )
    async with client.realtime.connect(model="rejoinder") as connection:
        await connection.session.update(
            session={"type": "realtime", "output_modalities": [modality], "tools": [WEATHER]}
        )
        question: Any = {"type": "input_text", "text": "Please get weather."}
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [question]})
        await connection.response.create()
        called = await _response(connection)
        assert called.output is not None
        *_, call = called.output  # on a slow machine, a filler comes before
        assert call.type == "function_call"
        assert (call.name, call.arguments, call.status) == ("get_weather", '{"city": "Paris"}', "completed")
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id or "", "output": OUTPUT}
        )
        await connection.response.create()
        answered = await _response(connection)
        assert answered.output is not None
        (message,) = answered.output
        assert message.type == "message"
        assert message.role == "assistant"
        assert OUTPUT in message.model_dump_json()


async def test_the_host_calls_an_mcp_server(served: Served) -> None:
    """The host starts the MCP server, calls its tool, and starts the reply to the result. The client does nothing."""
    client = AsyncOpenAI(
        api_key="none", base_url=f"{served.url}/v1", websocket_base_url=f"{served.url.replace('http', 'ws')}/v1"
    )
    async with client.realtime.connect(model="rejoinder") as connection:
        requested: Any = {"type": "mcp", "server_label": "clock"}
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "tools": [requested]}
        )
        async for event in connection:
            assert event.type not in ("error", "mcp_list_tools.failed"), event
            if event.type == "mcp_list_tools.completed":
                break
        question: Any = {"type": "input_text", "text": "Please get time."}
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [question]})
        await connection.response.create()
        called, answered = await _response(connection), await _response(connection)
    assert [item.type for item in called.output or []] == ["mcp_call"]
    assert "12:00 in" in answered.model_dump_json()


async def test_single_stages_through_every_process(served: Served) -> None:
    """Speech, its transcript and a chat completion come from the stages' own processes, through HAProxy."""
    client = AsyncOpenAI(api_key="none", base_url=f"{served.url}/v1", max_retries=0)
    speech = await client.audio.speech.create(model="m", voice="v", input="Hello there.", response_format="wav")
    heard = await client.audio.transcriptions.create(model="m", file=("speech.wav", speech.content, "audio/wav"))
    assert "seconds" in heard.text
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hello."}], stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text.startswith("Thank you for calling")
