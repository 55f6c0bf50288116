"""What clients ask of a session besides speaking to it: responses, items, configuration."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.actors.fakes import WordyLlm
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

ANSWER = "It is noon. The sun stands high, and lunch is ready for everyone who wants some."


def message(text: str, role: str = "user", **fields: object) -> dict[str, object]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]} | fields


async def refused(caller: Caller, **event: Any) -> dict[str, Any]:
    """The error that answers an event, which names the event."""
    errors = len(caller.of("error"))
    event_id = await caller.ask(**event)
    error: dict[str, Any] = (await caller.until("error", errors + 1))["error"]
    assert error["event_id"] == event_id
    assert error["type"] == "invalid_request_error"
    return error


async def settled(caller: Caller) -> None:
    """Until everything that was asked is answered."""
    await asyncio.sleep(0.001)


def prompts(play: Play) -> list[list[tuple[str, str]]]:
    return [[(message.role, message.content) for message in request.messages[1:]] for _, request in play.llm.requests]


def ids(caller: Caller) -> list[str]:
    return [item.id for item in caller.session.conversation]


# -- responses ---------------------------------------------------------------------------------------------------------


@virtual
async def test_a_conversation_in_text() -> None:
    """Text in, text out: no audio is made, and the deltas are the answer."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="conversation.item.create", item=message("Hello."))
        await caller.ask(type="response.create", response={"output_modalities": ["text"]})
        done = await caller.until("response.done")
    assert caller.types == [
        "session.created",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": ANSWER}]
    assert done["response"]["usage"]["output_tokens"] == len(ANSWER.split())
    assert prompts(play) == [[("user", "Hello.")]]
    assert play.tts.texts == []


@virtual
async def test_a_session_may_be_in_text_for_good() -> None:
    """output_modalities of the session: a spoken question is answered in text."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
        done = await caller.say()
    assert done["response"]["output_modalities"] == ["text"]
    assert caller.audio == b""
    assert done["rejoinder"]["unattributed_ms"] <= 5


@virtual
async def test_a_requested_response_is_announced_at_once() -> None:
    """response.created comes with the request, not with the first word: clients wait for it with a timeout."""
    async with Play(llm=WordyLlm(ttft_s={"a": 5.0})).call() as caller:
        await caller.ask(type="response.create", response={"metadata": {"client_event_id": "x"}})
        await settled(caller)
        assert caller.of("response.created")[0]["response"]["metadata"] == {"client_event_id": "x"}
        done = await caller.until("response.done")
    assert done["response"]["metadata"] == {"client_event_id": "x"}


@virtual
async def test_a_second_response_is_refused_while_one_is_open() -> None:
    """conversation_already_has_active_response, with the event's id; the first goes on."""
    async with Play().call() as caller:
        await caller.ask(type="response.create")
        error = await refused(caller, type="response.create")
        assert error["code"] == "conversation_already_has_active_response"
        done = await caller.until("response.done")
        assert done["response"]["status"] == "completed"
        # The rest of it is still being heard, but on the wire it has ended.
        await caller.ask(type="response.create")
        await caller.until("response.done", 2)
    assert len(caller.of("error")) == 1


@virtual
async def test_a_response_is_cancelled_by_the_client() -> None:
    """Nothing of it follows, the conversation keeps what was heard, and another may start at once."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="response.create")
        await caller.until("response.output_audio.delta")
        await asyncio.sleep(1.0)
        await caller.ask(type="response.cancel")
        await caller.ask(type="response.create")
        cut, _ = await caller.until("response.done"), await caller.until("response.done", 2)
    assert cut["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert prompts(play)[1] == [("assistant", "It is noon.")]
    assert play.metrics.stops_s == []
    assert play.llm.running == 0


@virtual
async def test_a_response_cancelled_before_its_first_step_leaves_the_floor() -> None:
    """Both events in one breath: the client hears of the end, and the next turn is answered."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="response.create")
        await caller.ask(type="response.cancel")
        cut = await caller.until("response.done")
        assert cut["response"]["status"] == "cancelled"
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert len(play.llm.requests) == 1


@virtual
async def test_a_turns_reply_can_be_cancelled_before_its_first_word() -> None:
    """The client that asks to cancel is told of a response that it had not seen yet, and of its end."""
    async with Play(llm=WordyLlm(ttft_s={"a": 1.0})).call() as caller:
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.ask(type="response.cancel")
        cut = await caller.until("response.done")
        await caller.hush(2)
    assert cut["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert caller.audio == b""


@virtual
async def test_cancelling_nothing_is_an_error_that_clients_know() -> None:
    """response_cancel_not_active, its message as livekit matches it; also by the id of a response that has ended."""
    async with Play().call() as caller:
        error = await refused(caller, type="response.cancel")
        assert error["code"] == "response_cancel_not_active"
        assert error["message"].startswith("Cancellation failed")
        done = await caller.say()
        error = await refused(caller, type="response.cancel", response_id=done["response"]["id"])
        assert error["code"] == "response_cancel_not_active"


@virtual
async def test_a_response_outside_the_conversation_runs_beside_it() -> None:
    """conversation "none": its own input, metadata echoed, nothing added to the conversation, in parallel."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="conversation.item.create", item=message("Hello.", id="hello"))
        await caller.ask(type="response.create")
        await caller.ask(
            type="response.create",
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "instructions": "Classify.",
                "metadata": {"topic": "greeting"},
                "input": [{"type": "item_reference", "id": "hello"}, message("What is this?")],
            },
        )
        aside = await caller.until("response.done")
        main = await caller.until("response.done", 2)
    assert aside["response"]["metadata"] == {"topic": "greeting"}
    assert "conversation_id" not in aside["response"]
    assert main["response"]["metadata"] is None
    request = play.llm.requests[1][1]
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Classify."),
        ("user", "Hello."),
        ("user", "What is this?"),
    ]
    assert ids(caller) == ["hello", main["response"]["output"][0]["id"]]


@virtual
async def test_a_barge_in_leaves_a_response_outside_the_conversation_alone() -> None:
    """It answers a client's question, not the caller's."""
    async with Play(llm=WordyLlm(gap_s=0.2)).call() as caller:
        await caller.ask(type="response.create", response={"conversation": "none", "output_modalities": ["text"]})
        await caller.speak(1.0)
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"


@virtual
async def test_responses_outside_the_conversation_are_limited() -> None:
    """One session cannot fill the language model's queue."""
    async with Play().call() as caller:
        for _ in range(4):
            await caller.ask(type="response.create", response={"conversation": "none"})
        error = await refused(caller, type="response.create", response={"conversation": "none"})
        assert error["code"] == "rate_limit_exceeded"
        await caller.until("response.done", 4)


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {str(n): "x" for n in range(17)}}, "response.metadata"),
        ({"metadata": {"k": "v" * 513}}, "response.metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "response.metadata"),
        ({"metadata": {"k": 1}}, "response.metadata.k"),
        ({"output_modalities": ["audio", "text"]}, "response.output_modalities"),
        ({"conversation": "other"}, "response.conversation"),
        ({"max_output_tokens": 0}, "response.max_output_tokens"),
        ({"input": [{"type": "item_reference", "id": "nobody"}]}, "item_id"),
    ],
)
@virtual
async def test_an_order_that_cannot_be_filled_starts_nothing(response: dict[str, object], param: str) -> None:
    """The error names the field, and no response was created."""
    play = Play()
    async with play.call() as caller:
        error = await refused(caller, type="response.create", response=response)
        assert error["param"] == param
        assert not caller.of("response.created")
    assert play.llm.requests == []


# -- items -------------------------------------------------------------------------------------------------------------


@virtual
async def test_items_stand_where_the_client_puts_them() -> None:
    """Appended, at the root, behind another; each event names the true predecessor."""
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("b", id="b"))
        await caller.ask(type="conversation.item.create", item=message("a", id="a"), previous_item_id="root")
        await caller.ask(type="conversation.item.create", item=message("d", "assistant", id="d"))
        await caller.ask(type="conversation.item.create", item=message("c", "system", id="c"), previous_item_id="b")
        await caller.until("conversation.item.done", 4)
        assert ids(caller) == ["a", "b", "c", "d"]
        assert [event["previous_item_id"] for event in caller.of("conversation.item.added")] == [None, None, "b", "b"]


@virtual
async def test_a_tool_result_reaches_the_model() -> None:
    """Replayed function calls and their outputs are kept, echoed and read."""
    play = Play()
    async with play.call() as caller:
        call = {"type": "function_call", "id": "f", "call_id": "c1", "name": "time", "arguments": "{}"}
        await caller.ask(type="conversation.item.create", item=call)
        output = {"type": "function_call_output", "call_id": "c1", "output": "12:00"}
        await caller.ask(type="conversation.item.create", item=output)
        await caller.ask(type="response.create", response={"output_modalities": ["text"]})
        await caller.until("response.done")
    assert caller.of("conversation.item.added")[0]["item"]["arguments"] == "{}"
    assert "12:00" in prompts(play)[0][0][1]


@virtual
async def test_errors_about_items_change_nothing() -> None:
    """Duplicate ids, unknown ids, images, audio without words: each refused with the code that clients know."""
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("a", id="a"))
        error = await refused(caller, type="conversation.item.create", item=message("again", id="a"))
        assert error["code"] == "item_create_duplicate_item_id"
        error = await refused(caller, type="conversation.item.create", item=message("b"), previous_item_id="nobody")
        assert error["param"] == "previous_item_id"
        error = await refused(caller, type="conversation.item.retrieve", item_id="nobody")
        assert error["code"] == "item_retrieve_invalid_item_id"
        assert (await refused(caller, type="conversation.item.delete", item_id="nobody"))["param"] == "item_id"
        image = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}
        assert (await refused(caller, type="conversation.item.create", item=image))["code"] == "unsupported_content"
        audio = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "AAAA"}]}
        assert (await refused(caller, type="conversation.item.create", item=audio))["code"] == "unsupported_content"
        assert ids(caller) == ["a"]


@virtual
async def test_a_full_conversation_refuses_items_but_not_the_caller() -> None:
    """A client's endless replay is refused; the caller's own turns still fit."""
    async with Play().call() as caller:
        for _ in range(2000):
            await caller.ask(type="conversation.item.create", item=message("x"))
        assert (await refused(caller, type="conversation.item.create", item=message("x")))["param"] == "item"
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        assert len(ids(caller)) == 2002


@virtual
async def test_a_deleted_item_is_forgotten() -> None:
    """item.deleted, and the model does not read it any more."""
    play = Play()
    async with play.call() as caller:
        for text in ("a", "b"):
            await caller.ask(type="conversation.item.create", item=message(text, id=text))
        await caller.ask(type="conversation.item.delete", item_id="a")
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert caller.of("conversation.item.deleted")[0]["item_id"] == "a"
    assert prompts(play) == [[("user", "b")]]


@virtual
async def test_a_reply_deleted_while_it_is_spoken_stays_deleted() -> None:
    """Its response ends as ever; the conversation does not get it back, and no item.done is told of it."""
    async with Play().call() as caller:
        await caller.ask(type="response.create")
        await caller.until("response.output_audio.delta")
        await caller.ask(type="conversation.item.delete", item_id=caller.of("conversation.item.added")[0]["item"]["id"])
        await caller.until("response.done")
        assert ids(caller) == []


@virtual
async def test_retrieve_shows_the_transcript() -> None:
    """item.added keeps a spoken item's transcript null; retrieved, it is filled in."""
    async with Play().call() as caller:
        await caller.say()
        question = caller.of("conversation.item.added")[0]["item"]
        assert question["content"] == [{"type": "input_audio", "transcript": None}]
        await caller.ask(type="conversation.item.retrieve", item_id=question["id"])
        shown = await caller.until("conversation.item.retrieved")
        assert shown["item"]["content"] == [{"type": "input_audio", "transcript": "What time is it?"}]


@virtual
async def test_the_client_may_guess_our_next_id() -> None:
    """An item of the client's under the id of the caller's next turn gives way; the turn is held."""
    play = Play()
    async with play.call() as caller:
        for number in range(7, 13):
            await caller.ask(type="conversation.item.create", item=message("mine", id=f"item_test_{number:04d}"))
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert prompts(play)[0][-1] == ("user", "What time is it?")
    assert len(caller.of("conversation.item.deleted")) == 2


@virtual
async def test_truncate_corrects_what_was_heard() -> None:
    """Of a cut reply the client knows best what was played: the model reads that, and a little overshoot is clamped."""
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(3.0)
        await caller.speak(1.0)
        cut = await caller.until("response.done")
        item_id = cut["response"]["output"][0]["id"]
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
        truncated = await caller.until("conversation.item.truncated")
        await caller.listen("response.done", 2)
        assert truncated["audio_end_ms"] == 1000
        assert prompts(play)[1][1] == ("assistant", "It is noon.")
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=3500)
        await caller.until("conversation.item.truncated", 2)
        error = await refused(
            caller, type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=30_000
        )
        assert error["param"] == "audio_end_ms"


@virtual
async def test_a_completed_reply_can_be_truncated() -> None:
    """Also after response.done: the unheard words leave the context."""
    play = Play()
    async with play.call() as caller:
        done = await caller.say()
        item_id = done["response"]["output"][0]["id"]
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
        await caller.until("conversation.item.truncated")
        await caller.ask(type="conversation.item.retrieve", item_id=item_id)
        assert (await caller.until("conversation.item.retrieved"))["item"]["content"] == []
        await caller.hush(8)
        await caller.say()
    assert [role for role, _ in prompts(play)[1]] == ["user", "user"]


@virtual
async def test_only_spoken_assistant_items_can_be_truncated() -> None:
    """A user's item, a text, an unknown id: errors."""
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("a", id="a"))
        await caller.ask(type="conversation.item.create", item=message("b", "assistant", id="b"))
        for item_id in ("a", "b", "c"):
            error = await refused(
                caller, type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0
            )
            assert error["param"] == "item_id"


# -- configuration -----------------------------------------------------------------------------------------------------


async def configure(caller: Caller, **session: object) -> dict[str, Any]:
    updates = len(caller.of("session.updated"))
    await caller.ask(type="session.update", session={"type": "realtime"} | session)
    echoed: dict[str, Any] = (await caller.until("session.updated", updates + 1))["session"]
    return echoed


@virtual
async def test_updates_merge_and_the_echo_is_whole() -> None:
    """An absent field stays as it was, null clears, and session.updated carries everything."""
    async with Play().call() as caller:
        first = caller.of("session.created")[0]["session"]
        assert first["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "create_response": True,
            "interrupt_response": True,
            "eagerness": "auto",
        }
        await configure(caller, instructions="Be brief.", audio={"output": {"speed": 1.2}})
        echoed = await configure(
            caller,
            audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}, "transcription": {}}},
        )
        assert (echoed["instructions"], echoed["audio"]["output"]["speed"]) == ("Be brief.", 1.2)
        assert echoed["audio"]["input"]["transcription"] == {}
        echoed = await configure(
            caller,
            audio={
                "input": {
                    "turn_detection": {"type": "server_vad", "threshold": 0.7},
                    "transcription": {"model": "whisper-1", "language": "en"},
                    "noise_reduction": {"type": "near_field"},
                }
            },
            tools=[{"type": "function", "name": "time", "parameters": {"type": "object", "default": None}}],
        )
        assert echoed["audio"]["input"]["turn_detection"] == {
            "type": "server_vad",
            "create_response": True,
            "interrupt_response": True,
            "threshold": 0.7,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
            "idle_timeout_ms": 5000,
        }
        echoed = await configure(caller, audio={"input": {"transcription": {"prompt": "names"}}})
        assert echoed["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en", "prompt": "names"}
        cleared = {"turn_detection": None, "transcription": None, "noise_reduction": None}
        echoed = await configure(caller, instructions="", tools=[], audio={"input": cleared})
        assert echoed["instructions"] == ""
        assert echoed["tools"] == []
        assert {name: echoed["audio"]["input"][name] for name in cleared} == cleared


# What each stock client sends first (openai-realtime.md section 2); none may be refused.
STOCK = {
    "agents JS": {
        "model": "gpt-realtime-2.1",
        "tracing": "auto",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {"type": "semantic_vad"},
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "noise_reduction": None,
            },
            "output": {"speed": 1},
        },
    },
    "agents py": {
        "model": "gpt-realtime-2.1",
        "audio": {
            "input": {
                "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
                "transcription": {"model": "gpt-4o-mini-transcribe"},
            },
            "output": {"voice": "ash"},
        },
    },
    "livekit": {
        "model": "gpt-realtime",
        "tracing": None,
        "max_output_tokens": "inf",
        "audio": {
            "input": {
                "turn_detection": {
                    "type": "semantic_vad",
                    "eagerness": "medium",
                    "create_response": True,
                    "interrupt_response": True,
                },
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "noise_reduction": None,
            },
            "output": {"voice": "marin"},
        },
    },
    "pipecat": {"model": "gpt-realtime-2.1", "audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}},
}


@pytest.mark.parametrize("session", STOCK.values(), ids=list(STOCK))
@virtual
async def test_what_stock_clients_send_first_is_taken(session: dict[str, Any]) -> None:
    """Each is answered by session.updated with explicit booleans, and holds a turn."""
    async with Play().call() as caller:
        echoed = await configure(caller, **session)
        assert echoed["audio"]["input"]["turn_detection"]["interrupt_response"] is True
        assert echoed["audio"]["input"]["transcription"] == session["audio"]["input"]["transcription"]
        await caller.say()
        assert caller.of("conversation.item.input_audio_transcription.completed")


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "transcription"}, "type"),
        ({"output_modalities": ["text", "audio"]}, "output_modalities"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "audio.input.format.rate"),
        ({"audio": {"output": {"format": {"type": "audio/pcmu"}}}}, "audio.output.format.type"),
        ({"audio": {"output": {"speed": 3}}}, "audio.output.speed"),
        ({"audio": {"input": {"turn_detection": {"type": "psychic"}}}}, "audio.input.turn_detection.type"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "audio.input.turn_detection.threshold",
        ),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "x"}}}}, ".eagerness"),
        ({"audio": {"input": {"noise_reduction": {"type": "x"}}}}, "audio.input.noise_reduction.type"),
        ({"audio": {"input": {"transcription": {"model": 3}}}}, "audio.input.transcription.model"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"truncation": {"type": "retention_ratio", "retention_ratio": 7}}, "truncation.retention_ratio"),
        ({"tracing": "never"}, "tracing"),
        ({"include": "x"}, "include"),
    ],
)
@virtual
async def test_a_bad_field_leaves_the_whole_configuration_as_it_was(session: dict[str, Any], param: str) -> None:
    """Not even the good fields beside it are taken; the error names the bad one."""
    async with Play().call() as caller:
        before = caller.session.config
        error = await refused(
            caller, type="session.update", session={"type": "realtime", "instructions": "x"} | session
        )
        assert error["param"].endswith(param)
        assert caller.session.config is before
        assert not caller.of("session.updated")


@virtual
async def test_the_voice_is_locked_once_it_was_heard() -> None:
    """It may change until the first audio; then the same name is taken and another refused."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(
            type="conversation.item.create",
            item={
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_audio", "transcript": "Replayed."}],
            },
        )
        await configure(caller, audio={"output": {"voice": "ash"}})
        await configure(caller, audio={"output": {"voice": {"id": "marin"}}})
        await caller.say()
        error = await refused(
            caller, type="session.update", session={"type": "realtime", "audio": {"output": {"voice": "ash"}}}
        )
        assert error["param"] == "session.audio.output.voice"
        echoed = await configure(caller, audio={"output": {"voice": "marin"}})
        assert echoed["audio"]["output"]["voice"] == "marin"


@virtual
async def test_an_empty_commit_is_refused() -> None:
    """Under 100 ms of audio: input_audio_buffer_commit_empty, and no item."""
    async with Play().call() as caller:
        await caller.hush(0.08)
        error = await refused(caller, type="input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert ids(caller) == []
