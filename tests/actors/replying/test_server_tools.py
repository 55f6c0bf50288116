"""Tools that this system calls: what client and caller notice, and what the model gets, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.replying.lead_in import MOST_IN_A_ROW
from actors.stages.ports import LlmUsage, TokenDelta
from actors.stages.tool_servers import ToolResult, ToolServers
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall
from rejoinder.core.settings.settings import Settings, ToolSettings
from tests.actors.fakes import ANSWER
from tests.actors.replying.test_backend_faults import Event, play_of, said
from tests.actors.replying.test_tools import LEAD_IN, PARIS, TIMER, calls, declare, result
from tests.actors.stage_play import ENDING_PCM, Play
from tests.actors.virtual_time import virtual

GET_TIME = FunctionTool("get_time", "Tell the time in a city.")
SPOKEN = (*said("It is noon in Paris."), TokenDelta("", 0, "stop", LlmUsage(40, 6)))


@dataclass
class FakeServer:
    """Fake tool server that answers each call with `answer` after `delay_s`. With `fault` it lists no tools."""

    label: str = "clock"
    url: str = "https://clock.example/mcp"
    for_all: bool = True
    requestable: bool = True
    answer: ToolResult = field(default_factory=lambda: ToolResult("12:00"))
    delay_s: float = 0.1
    fault: BackendError | None = None
    made: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancelled: int = 0
    listing: tuple[FunctionTool, ...] = (GET_TIME, FunctionTool("stop_time"))

    async def tools(self) -> tuple[FunctionTool, ...]:
        await asyncio.sleep(0.05)
        if self.fault:
            raise self.fault
        return self.listing

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        self.made.append((name, arguments))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer


def play_with(server: FakeServer, *scripts: tuple[Event, ...], **tools: Any) -> Play:
    """Return a scenario with one tool server, whose language model answers with `scripts`."""
    play = play_of(*scripts, settings=Settings(tools=ToolSettings(**tools)))
    play.phrases = (HeldClip(LEAD_IN, ENDING_PCM),)
    play.tool_servers = ToolServers({server.label: server})
    return play


def prompt(play: Play, number: int) -> list[tuple[str, str]]:
    """Return the messages of the `number`-th request without the instructions, as (role, text)."""
    return [(message.role, message.content) for message in play.llm.requests[number][1].messages[1:]]


@virtual
async def test_a_tool_of_a_server_is_called_and_its_result_is_spoken() -> None:
    """The client sees the call and its result and does nothing: the reply to the result starts by itself."""
    server = FakeServer()
    play = play_with(server, (calls(PARIS),), SPOKEN)
    async with play.call() as caller:
        await caller.hush(0.2)
        await caller.say()
        done = await caller.listen("response.done", 2)
    assert server.made == [("get_time", {"city": "Paris"})]
    assert done["response"]["output"][0]["content"][0]["transcript"] == "It is noon in Paris."
    begun = [event["item"] for event in caller.of("response.output_item.added")]
    (added,) = [item for item in begun if item["type"] == "mcp_call"]
    assert (added["server_label"], added["name"], added["arguments"]) == ("clock", "get_time", "")
    for kind in ("response.mcp_call_arguments.done", "response.mcp_call.in_progress", "response.mcp_call.completed"):
        assert [event["item_id"] for event in caller.of(kind)] == [added["id"]]
    finished = [event["item"] for event in caller.of("conversation.item.done") if event["item"]["id"] == added["id"]]
    assert [item["output"] for item in finished] == ["12:00"]
    assert not caller.of("response.function_call_arguments.done")
    assert prompt(play, 1)[1:] == [("assistant", ""), ("tool", "12:00")]


@virtual
async def test_the_model_is_told_of_a_failure() -> None:
    """A call that fails is an item with an error. The model gets the reason, and the conversation goes on."""
    play = play_with(FakeServer(answer=ToolResult("no such city", failed=True)), (calls(PARIS),), SPOKEN)
    async with play.call() as caller:
        await caller.hush(0.2)
        await caller.say()
        await caller.listen("response.done", 2)
        assert caller.of("response.mcp_call.failed")
        assert not caller.of("error")
    assert prompt(play, 1)[-1] == ("tool", "The tool failed: no such city")


@virtual
async def test_a_server_that_is_gone_harms_nothing() -> None:
    """If a server lists no tools, the session has none of it, and is answered as always."""
    play = play_with(FakeServer(fault=BackendError("gone.")))
    async with play.call() as caller:
        await caller.hush(0.2)
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        assert caller.transcript == ANSWER
    assert not play.llm.requests[0][1].tools.tools
    assert [name for name in play.metrics.counts if "tools" in name]


@virtual
async def test_a_slow_tool_gets_a_lead_in_and_its_answer_follows() -> None:
    """While a server's tool runs for long, one phrase is said. The reply to the result follows it."""
    play = play_with(FakeServer(delay_s=4.0), (calls(PARIS),), SPOKEN, lead_ins=(LEAD_IN,))
    async with play.call() as caller:
        await caller.hush(0.2)
        await caller.say()
        await caller.listen("response.done", 3)
    assert caller.transcript.split(".")[0] == LEAD_IN.rstrip(".")
    assert caller.transcript.endswith("It is noon in Paris.")


@virtual
async def test_a_caller_who_speaks_meanwhile_is_answered_first() -> None:
    """A result that comes after the caller has spoken starts no reply of its own: the next reply has it."""
    play = play_with(FakeServer(delay_s=6.0), (calls(PARIS),), lead_in_after_ms=0)
    async with play.call() as caller:
        await caller.hush(0.2)
        await caller.say()
        await caller.say()
        await caller.hush(8)
        assert len(caller.of("response.done")) == 2
        await caller.say()
    assert ("tool", "The result has not arrived yet.") in prompt(play, 1)
    assert ("tool", "12:00") in prompt(play, 2)


@virtual
async def test_a_model_that_always_calls_is_made_to_speak() -> None:
    """A forced call is forced once, and after MOST_IN_A_ROW replies to results the next one cannot call a tool."""
    server = FakeServer()
    play = play_with(server, *[(calls(PARIS),)] * (MOST_IN_A_ROW + 1), SPOKEN)
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "tool_choice": "required"})
        await caller.hush(0.2)
        await caller.say()
        await caller.listen("response.done", MOST_IN_A_ROW + 2)
        await caller.hush(5)
        assert len(caller.of("response.done")) == MOST_IN_A_ROW + 2
        assert caller.transcript.endswith("It is noon in Paris.")
    assert len(server.made) == MOST_IN_A_ROW + 1
    modes = [request.tools.mode for _, request in play.llm.requests]
    assert modes == ["required", *["auto"] * MOST_IN_A_ROW, "none"]


@virtual
async def test_the_end_of_the_session_cancels_the_call() -> None:
    """A call that runs when the client hangs up is cancelled."""
    server = FakeServer(delay_s=60)
    play = play_with(server, (calls(PARIS),))
    async with play.call() as caller:
        await caller.hush(0.2)
        await caller.say()
    assert server.cancelled == 1


@virtual
async def test_the_results_of_the_client_are_awaited() -> None:
    """If one answer calls a server's tool and a client's, the client's response.create starts the reply."""
    play = play_with(FakeServer(), (calls(PARIS, ToolCall("set_timer", "{}")),), SPOKEN)
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "tools": [TIMER]})
        await caller.hush(0.2)
        await caller.say()
        await caller.hush(1)
        assert len(caller.of("response.done")) == 1
        await result(caller, "set")
        await caller.ask(type="response.create")
        await caller.listen("response.done", 2)
    assert sorted(text for role, text in prompt(play, 1) if role == "tool") == ["12:00", "set"]


@virtual
async def test_a_client_s_tool_comes_before_a_server_s() -> None:
    """A server's tool with the name of a client's gets the server's label in front of it."""
    play = play_with(FakeServer(), (calls(PARIS),))
    async with play.call() as caller:
        await declare(caller)
        await caller.hush(0.2)
        await caller.say()
        assert caller.of("response.function_call_arguments.done")
    names = [tool.name for tool in play.llm.requests[0][1].tools.tools]
    assert names == ["get_time", "set_timer", "clock_get_time", "stop_time"]


@virtual
async def test_a_client_requests_a_declared_server() -> None:
    """A tool of type mcp lists the server's tools as an item, and only those that the client allows are offered."""
    server = FakeServer(for_all=False)
    play = play_with(server, (calls(PARIS),), SPOKEN)
    tool = {"type": "mcp", "server_label": "mine", "server_url": server.url + "/", "allowed_tools": ["get_time"]}
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "tools": [tool]})
        await caller.listen("mcp_list_tools.completed")
        await caller.say()
        await caller.listen("response.done", 2)
        (listed,) = [e["item"] for e in caller.of("conversation.item.done") if e["item"]["type"] == "mcp_list_tools"]
    assert caller.of("mcp_list_tools.in_progress")[0]["item_id"] == listed["id"]
    assert (listed["server_label"], [entry["name"] for entry in listed["tools"]]) == ("mine", ["get_time"])
    assert caller.of("session.updated")[0]["session"]["tools"][0]["server_label"] == "mine"
    assert [tool.name for tool in play.llm.requests[0][1].tools.tools] == ["get_time"]
    assert server.made


@virtual
async def test_a_list_that_fails_is_reported() -> None:
    """If the requested server does not answer, the client gets mcp_list_tools.failed, and the session goes on."""
    play = play_with(FakeServer(for_all=False, fault=BackendError("gone.")))
    async with play.call() as caller:
        tool = {"type": "mcp", "server_label": "clock"}
        await caller.ask(type="session.update", session={"type": "realtime", "tools": [tool]})
        await caller.listen("mcp_list_tools.failed")
        assert (await caller.say())["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"server_label": "clock", "server_url": "http://169.254.169.254/latest"}, "session.tools[0].server_url"),
        ({"server_label": "clock", "server_url": "https://clock.example/mcp/../x"}, "session.tools[0].server_url"),
        ({"server_label": "other"}, "session.tools[0].server_label"),
        ({"server_label": "clock", "authorization": "secret"}, "session.tools[0].authorization"),
        ({"server_label": "clock", "require_approval": "always"}, "session.tools[0].require_approval"),
    ],
)
@virtual
async def test_no_other_address_is_ever_reached(fields: dict[str, Any], param: str) -> None:
    """A server that is not declared, or is to be reached in another way, is refused. The rest takes effect."""
    play = play_with(FakeServer(for_all=False))
    async with play.call() as caller:
        update = {"type": "realtime", "instructions": "Be kind.", "tools": [{"type": "mcp"} | fields, TIMER]}
        await caller.ask(type="session.update", session=update)
        error = (await caller.listen("error"))["error"]
        assert error["param"] == param
        updated = caller.of("session.updated")[0]["session"]
        assert (updated["instructions"], [tool["type"] for tool in updated["tools"]]) == ("Be kind.", ["function"])
        assert not caller.of("mcp_list_tools.in_progress")
