"""Tests of session.update: updates are merged and echoed, and a wrong field changes nothing.

The first updates that common client libraries send are accepted.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.actors.asking import ids, refused
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual


async def configure(caller: Caller, **session: object) -> dict[str, Any]:
    updates = len(caller.of("session.updated"))
    await caller.ask(type="session.update", session={"type": "realtime"} | session)
    echoed: dict[str, Any] = (await caller.until("session.updated", updates + 1))["session"]
    return echoed


@virtual
async def test_updates_merge_and_the_echo_is_whole() -> None:
    """An absent field keeps its value, null clears the field, and session.updated has the whole configuration."""
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


@virtual
async def test_null_and_empty_clear() -> None:
    """null clears turn_detection, transcription and noise_reduction; "" clears the instructions, and [] the tools."""
    async with Play().call() as caller:
        tools = [{"type": "function", "name": "time", "description": "The time."}]
        audio = {"input": {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "far_field"}}}
        echoed = await configure(caller, instructions="Be brief.", tools=tools, audio=audio)
        assert echoed["tools"] == tools
        cleared = {"turn_detection": None, "transcription": None, "noise_reduction": None}
        echoed = await configure(caller, instructions="", tools=[], audio={"input": cleared})
        assert echoed["instructions"] == ""
        assert echoed["tools"] == []
        assert {name: echoed["audio"]["input"][name] for name in cleared} == cleared


# The first session.update of each common client library. All must be accepted.
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
    """The first session.update of each common client library is accepted, the echo has explicit booleans, and a spoken
    question is then answered.
    """
    async with Play().call() as caller:
        echoed = await configure(caller, **session)
        assert echoed["audio"]["input"]["turn_detection"]["interrupt_response"] is True
        assert echoed["audio"]["input"]["transcription"] == session["audio"]["input"]["transcription"]
        await caller.say()
        assert caller.of("conversation.item.input_audio_transcription.completed")


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "dictation"}, "type"),
        ({"output_modalities": ["text", "audio"]}, "output_modalities"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "audio.input.format.rate"),
        ({"audio": {"output": {"format": {"type": "audio/opus"}}}}, "audio.output.format.type"),
        ({"audio": {"input": {"format": {"type": "audio/pcma", "rate": 16000}}}}, "audio.input.format.rate"),
        ({"audio": {"input": {"format": {}}}}, "audio.input.format.type"),
        ({"audio": {"input": {"format": "g711_ulaw"}}}, "audio.input.format"),
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
    """If one field of an update is wrong, no field is changed, and the error names the wrong field."""
    async with Play().call() as caller:
        before = caller.session.config
        error = await refused(
            caller, type="session.update", session={"type": "realtime", "instructions": "x"} | session
        )
        assert error["param"].endswith(param)
        assert caller.session.config is before
        assert not caller.of("session.updated")


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"prompt": {"id": "pmpt_1"}}, "session.prompt"),
        ({"reasoning": {"effort": "low"}}, "session.reasoning"),
        ({"include": ["item.input_audio_transcription.logprobs"]}, "session.include"),
    ],
)
@virtual
async def test_an_unserved_field_is_named_and_the_rest_takes_effect(field: dict[str, Any], param: str) -> None:
    """A field that is known and has no effect gets an error that names it; the rest of the update takes effect."""
    async with Play().call() as caller:
        error = await refused(caller, type="session.update", session={"type": "realtime", "instructions": "x"} | field)
        assert (error["code"], error["param"]) == ("unsupported_parameter", param)
        assert caller.session.config.instructions == "x"
        error = await refused(caller, type="response.create", response={"prompt": {"id": "pmpt_1"}})
        assert (error["code"], error["param"]) == ("unsupported_parameter", "response.prompt")
        error = await refused(caller, type="response.create", response={"reasoning": {"effort": "low"}})
        assert error["param"] == "response.reasoning"
        assert not caller.of("response.created")


@virtual
async def test_the_model_of_an_update_is_echoed() -> None:
    """A session.update may name any model, and the echo has its name."""
    async with Play().call() as caller:
        assert (await configure(caller, model="gpt-realtime-2.1"))["model"] == "gpt-realtime-2.1"


@virtual
async def test_inf_lifts_the_operators_limit_of_tokens() -> None:
    """max_output_tokens "inf" permits 4,096 tokens, in a session and in one response; without it the operator's limit
    applies.
    """
    play = Play()
    limits = []
    async with play.call() as caller:
        for number, response in enumerate([{}, {"max_output_tokens": "inf"}, {}], start=1):
            if number == 3:
                await configure(caller, max_output_tokens="inf")
            await caller.ask(type="response.create", response=response)
            await caller.listen("response.done", number)
        limits = [request.max_tokens for _, request in play.llm.requests]
    assert limits == [play.settings.conversation.max_reply_tokens, 4096, 4096]


@virtual
async def test_the_voice_is_locked_once_it_was_heard() -> None:
    """The voice may change until the first audio. After that the same name is accepted and another is refused."""
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
    """A commit of less than 100 ms of audio gives the error input_audio_buffer_commit_empty and creates no item."""
    async with Play().call() as caller:
        await caller.hush(0.08)
        error = await refused(caller, type="input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert ids(caller) == []


@virtual
async def test_the_output_cannot_be_cleared_where_the_client_plays_it() -> None:
    """Over WebSocket output_audio_buffer.clear is an error that says what to do instead."""
    async with Play().call() as caller:
        error = await refused(caller, type="output_audio_buffer.clear")
        assert error["code"] == "unsupported_event"
        assert "conversation.item.truncate" in error["message"]
