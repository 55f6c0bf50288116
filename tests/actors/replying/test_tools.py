"""Tool calls of the language model: what the client gets, what the caller hears, and what the model gets next."""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.stages.ports import LlmUsage, TokenDelta
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.settings.openings import Opening
from rejoinder.core.settings.settings import ConversationSettings, HedgingSettings, Settings, ToolSettings
from rejoinder.core.wire.chat_history import PENDING
from tests.actors.asking import message, prompts, refused, settled
from tests.actors.fakes import ANSWER
from tests.actors.replying.test_backend_faults import WORDS, Event, play_of, said
from tests.actors.stage_play import ENDING_PCM, Caller, Play
from tests.actors.virtual_time import virtual

TIME = {
    "type": "function",
    "name": "get_time",
    "description": "Tell the time in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TIMER = {"type": "function", "name": "set_timer"}
PARIS = ToolCall("get_time", '{"city": "Paris"}')
LEAD_IN = "One moment, please."


def calls(*made: ToolCall) -> Event:
    """Return the last delta of a generation that calls tools."""
    return TokenDelta("", 0, "tool_calls", LlmUsage(30, 12), calls=made)


async def declare(caller: Caller, **fields: Any) -> None:
    """Declare the tools TIME and TIMER in the session; `fields` are further fields of the session."""
    await caller.ask(type="session.update", session={"type": "realtime", "tools": [TIME, TIMER]} | fields)


async def result(caller: Caller, output: str, number: int = 1) -> None:
    """Send the result of the `number`-th call, and wait until the session has stored it."""
    call_id = caller.of("response.function_call_arguments.done")[number - 1]["call_id"]
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    await caller.ask(type="conversation.item.create", item=item)
    await settled(caller)


def play_with(*scripts: tuple[Event, ...], **tools: Any) -> Play:
    """Return a scenario whose language model answers with `scripts`, with these settings of tools."""
    play = play_of(*scripts, settings=Settings(tools=ToolSettings(**tools)))
    play.phrases = (HeldClip(LEAD_IN, ENDING_PCM),)
    return play


@virtual
async def test_a_call_reaches_the_client_and_its_result_is_spoken() -> None:
    """A call without words ends the response as completed, in silence. The reply after its result is spoken."""
    play = play_with((calls(PARIS),), (*said("It is noon in Paris."), TokenDelta("", 0, "stop", LlmUsage(40, 6))))
    async with play.call() as caller:
        await declare(caller)
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        (call,) = done["response"]["output"]
        assert (call["type"], call["name"], call["arguments"]) == ("function_call", "get_time", PARIS.arguments)
        assert caller.audio == b""
        await result(caller, "12:00")
        await caller.ask(type="response.create")
        done = await caller.listen("response.done", 2)
    assert done["response"]["output"][0]["content"][0]["transcript"] == "It is noon in Paris."
    assert [tool.name for tool in play.llm.requests[0][1].tools.tools] == ["get_time", "set_timer"]
    question, called, output = play.llm.requests[1][1].messages[1:]
    assert question.role == "user"
    assert (called.calls[0].name, called.calls[0].call_id) == ("get_time", output.call_id)
    assert (output.role, output.content) == ("tool", "12:00")


@virtual
async def test_calls_follow_the_words_before_them() -> None:
    """Words before calls are spoken. The client gets the calls before the words are heard to their end."""
    made = (PARIS, ToolCall("set_timer", ""))
    play = play_with((*said("Let me look that up for you right away."), calls(*made)))
    async with play.call() as caller:
        await declare(caller)
        done = await caller.say()
        words, *found = done["response"]["output"]
        assert words["content"][0]["transcript"] == "Let me look that up for you right away."
        assert [(item["name"], item["arguments"]) for item in found] == [
            ("get_time", PARIS.arguments),
            ("set_timer", "{}"),
        ]
        assert caller.at("response.output_item.done") < caller.at("response.done") - 1
        await result(caller, "12:00")
        await result(caller, "set", 2)
        await caller.ask(type="response.create")
        await caller.listen("response.done", 2)
        assert caller.transcript.endswith(ANSWER)
    assert [(role, text) for role, text in prompts(play)[1][1:]] == [
        ("assistant", "Let me look that up for you right away."),
        ("tool", "12:00"),
        ("tool", "set"),
    ]


@virtual
async def test_a_call_written_as_text_is_called_and_not_spoken() -> None:
    """A call that the model writes into its answer is a call, is not spoken, and is no part of the transcript."""
    text = 'Sure. <tool_call>\n{"name": "get_time", "arguments": {"city": "Paris"}}\n</tool_call>'
    play = play_with((*said(text), TokenDelta("", 0, "stop", LlmUsage(30, 20))))
    async with play.call() as caller:
        await declare(caller)
        done = await caller.say()
    words, call = done["response"]["output"]
    assert words["content"][0]["transcript"] == "Sure."
    assert (call["name"], call["arguments"]) == ("get_time", '{"city": "Paris"}')
    assert all("tool_call" not in text and "get_time" not in text for text in play.tts.texts)


@virtual
async def test_an_undeclared_tool_is_not_called() -> None:
    """A call of a tool that the session does not declare fails the response, and the caller hears that."""
    play = play_with((calls(ToolCall("delete_everything", "{}")),))
    async with play.call() as caller:
        await declare(caller)
        done = await caller.say()
    assert done["response"]["status_details"]["error"]["code"] == "unhandled_tool_call"
    assert not caller.of("response.function_call_arguments.done")
    assert caller.transcript == WORDS.no_answer


@virtual
async def test_without_parallel_calls_only_the_first_counts() -> None:
    """With `parallel_tool_calls: false` the client gets one call, even if the model makes two."""
    play = play_with((calls(PARIS, ToolCall("set_timer", "{}")),))
    async with play.call() as caller:
        await declare(caller, parallel_tool_calls=False)
        done = await caller.say()
    assert [item["name"] for item in done["response"]["output"]] == ["get_time"]
    assert not play.llm.requests[0][1].tools.parallel


@virtual
async def test_tool_choice_reaches_the_language_model() -> None:
    """The session's tool_choice applies to turns. That of a response.create, and its tools, apply to it alone."""
    play = play_with(*[(calls(PARIS),)] * 4)
    async with play.call() as caller:
        await declare(caller, tool_choice={"type": "function", "name": "get_time"})
        await caller.say()
        await caller.ask(type="response.create", response={"tool_choice": "none"})
        await caller.listen("response.done", 2)
        await caller.ask(type="response.create", response={"tools": [TIMER], "tool_choice": "required"})
        await caller.listen("response.done", 3)
        await caller.ask(type="response.create")
        await caller.listen("response.done", 4)
    offers = [request.tools for _, request in play.llm.requests]
    assert [(offer.mode, offer.named) for offer in offers] == [
        ("required", "get_time"),
        ("none", ""),
        ("required", ""),
        ("required", "get_time"),
    ]
    assert [tool.name for tool in offers[2].tools] == ["set_timer"]
    outputs = [[item["type"] for item in event["response"]["output"]] for event in caller.of("response.done")]
    assert outputs == [["function_call"], ["message"], ["message"], ["function_call"]]


@virtual
async def test_invalid_tools_are_refused_by_name() -> None:
    """An undeclared tool in tool_choice, and a result without a call, are errors that name the field."""
    play = play_with()
    async with play.call() as caller:
        await declare(caller)
        choice = {"type": "function", "name": "fly"}
        error = await refused(caller, type="session.update", session={"type": "realtime", "tool_choice": choice})
        assert error["param"] == "session.tool_choice.name"
        output = {"type": "function_call_output", "call_id": "call_9", "output": "1"}
        error = await refused(caller, type="conversation.item.create", item=output)
        assert (error["param"], error["code"]) == ("item.call_id", "invalid_call_id")
        assert len(caller.session.conversation) == 0


@virtual
async def test_an_mcp_tool_is_left_out_and_the_rest_takes_effect() -> None:
    """A tool of type mcp gives an error that names it. The instructions and the other tools take effect."""
    play = play_with()
    async with play.call() as caller:
        server = {"type": "mcp", "server_label": "docs", "server_url": "https://example.org"}
        session = {"type": "realtime", "instructions": "Be brief.", "tools": [server, TIME]}
        error = await refused(caller, type="session.update", session=session)
        assert (error["param"], error["code"]) == ("session.tools[0].server_url", "unsupported_tool")
    updated = caller.of("session.updated")[0]["session"]
    assert updated["instructions"] == "Be brief."
    assert [tool["name"] for tool in updated["tools"]] == ["get_time"]


@virtual
async def test_tools_and_results_are_prefilled() -> None:
    """The instructions are prefilled with the tools, and the prompt of the answer as soon as all results are known."""
    play = play_with((calls(PARIS, ToolCall("set_timer", "{}")),), lead_in_after_ms=0)
    async with play.call() as caller:
        await declare(caller)
        await caller.hush(0.1)
        prefilled = play.llm.prefills[-1]
        assert [message.role for message in prefilled.messages] == ["system"]
        assert [tool.name for tool in prefilled.tools.tools] == ["get_time", "set_timer"]
        await caller.say()
        before = len(play.llm.prefills)
        await result(caller, "12:00")
        await caller.hush(0.1)
        assert len(play.llm.prefills) == before
        await result(caller, "set", 2)
        await caller.hush(0.1)
        await caller.ask(type="response.create")
        await caller.listen("response.done", 2)
    assert play.llm.prefills[before].messages == play.llm.requests[1][1].messages


@virtual
async def test_a_draft_calls_nothing_before_the_turn_ends() -> None:
    """The call of a speculative reply reaches the client only after the end of the turn; a discarded one never does."""
    play = play_with((calls(PARIS),), (calls(ToolCall("set_timer", "{}")),))
    play.stt.texts.extend(["What time is it in Paris and", "Set a timer."])
    play.stt.texts.popleft()
    play.turn.probabilities = deque([0.1, 0.98])
    async with play.call() as caller:
        await declare(caller)
        await caller.speak(1)
        await caller.hush(0.4)
        assert not caller.of("response.created")
        await caller.speak(1)
        await caller.listen("response.done")
        committed = caller.at("input_audio_buffer.committed")
        assert all(at > committed for at, event in caller.events if event["type"].startswith("response."))
    assert len(caller.of("response.function_call_arguments.done")) == 1


@virtual
async def test_a_broken_stream_calls_once() -> None:
    """If a replica fails after words, the next one continues, and its call reaches the client once."""
    gone = BackendError("died.", stage="llm", replica="a")
    play = play_with((*said("Let me see."), gone), (calls(PARIS),))
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
    assert len(caller.of("response.function_call_arguments.done")) == 1
    assert len(play.llm.requests) == 2


@virtual
async def test_a_hedged_request_calls_once() -> None:
    """If the first replica is late and another one answers, the client gets one call, although both would call."""
    settings = Settings(hedging=HedgingSettings(budget=1.0))
    play = play_of((2.0, calls(PARIS)), (calls(PARIS),), settings=settings)
    async with play.call() as caller:
        await declare(caller)
        done = await caller.say()
        await caller.hush(4)
    assert done["rejoinder"]["hedged"]
    assert len(caller.of("response.function_call_arguments.done")) == 1


# -- while a tool runs -------------------------------------------------------------------------------------------------


@virtual
async def test_a_slow_tool_gets_a_lead_in_once() -> None:
    """A phrase is said once, `lead_in_after_ms` after a call in silence. The result is spoken after it."""
    play = play_with((calls(PARIS),), lead_in_after_ms=1000)
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
        ended = caller.at("response.done")
        await caller.listen("response.done", 2)
        assert caller.transcript == LEAD_IN
        assert abs(caller.at("response.created", 2) - ended - 1.0) < 0.1
        await caller.hush(10)
        assert caller.transcript == LEAD_IN
        await result(caller, "12:00")
        await caller.ask(type="response.create")
        await caller.listen("response.done", 3)
        assert caller.transcript == LEAD_IN + ANSWER
    assert prompts(play)[1][1:] == [("assistant", LEAD_IN), ("tool", "12:00")]


@virtual
async def test_a_response_during_a_lead_in_waits_for_its_end() -> None:
    """A client may ask for the response while the lead-in is spoken. The response opens when the lead-in has ended."""
    play = play_with((calls(PARIS),), lead_in_after_ms=500)
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.listen("response.created", 2)
        await result(caller, "12:00")
        await caller.ask(type="response.create")
        await caller.listen("response.done", 3)
        assert not caller.of("error")
    assert caller.transcript == LEAD_IN + ANSWER
    assert caller.at("response.created", 3) >= caller.at("response.done", 2)


@virtual
async def test_no_lead_in_where_the_caller_knows_or_speaks() -> None:
    """A fast result, words before the call, and a caller who speaks again leave the lead-in out."""
    fast = play_with((calls(PARIS),), lead_in_after_ms=1000)
    async with fast.call() as caller:
        await declare(caller)
        await caller.say()
        await result(caller, "12:00")
        await caller.hush(3)
        assert caller.transcript == ""
    told = play_with((*said("Let me look that up."), calls(PARIS)), lead_in_after_ms=1000)
    async with told.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.hush(3)
        assert caller.transcript == "Let me look that up."
    speaking = play_with((calls(PARIS),), lead_in_after_ms=1000)
    async with speaking.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.say(2)
        assert caller.transcript == ANSWER


@virtual
async def test_a_barge_in_ends_the_lead_in() -> None:
    """Speech over a lead-in cancels it, like any other reply."""
    play = play_with((calls(PARIS),), lead_in_after_ms=500)
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.listen("response.output_audio.delta")
        await caller.speak(2)
        await caller.listen("response.done", 3)
    statuses = [event["response"]["status"] for event in caller.of("response.done")]
    assert statuses == ["completed", "cancelled", "completed"]


@virtual
async def test_a_late_result_is_told_where_it_arrived() -> None:
    """If the caller speaks before the result arrives, the model first gets PENDING, then the result as news."""
    play = play_with((calls(PARIS),), lead_in_after_ms=0)
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.say()
        await result(caller, "12:00")
        await caller.ask(type="response.create")
        await caller.listen("response.done", 3)
    question = ("user", "What time is it?")
    assert prompts(play)[1] == [question, ("assistant", ""), ("tool", PENDING), question]
    assert prompts(play)[2][3:] == [
        question,
        ("assistant", ANSWER),
        ("system", "Result of the tool call get_time: 12:00"),
    ]


@virtual
async def test_tools_and_openings() -> None:
    """A reply that may call a tool begins with no opening, because a model that speaks rarely calls."""
    opening = Opening(say="Good question.")
    settings = Settings(conversation=ConversationSettings(openings=(opening,)))
    play = Play(settings, phrases=(HeldClip(opening.say, ENDING_PCM),))
    async with play.call() as caller:
        await declare(caller)
        await caller.say()
        await caller.ask(type="session.update", session={"type": "realtime", "tools": []})
        await caller.ask(type="conversation.item.create", item=message("And now?"))
        await caller.hush(1)
        await caller.ask(type="response.create")
        await caller.listen("response.done", 2)
    assert caller.transcript.startswith(ANSWER + "Good question.")
