"""Tests of keys of a telephone and of signs of life in a session, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from actors.turn_taking.keypad import ENTRY_BYTES, MAX_KEYS
from rejoinder.core.wire.items import MAX_ITEMS, Item
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

ANSWER = "One two three four five six seven eight."


def _play() -> Play:
    return Play(stt=ScriptedStt(deque(["Hello there."])), llm=WordyLlm(ANSWER))


@virtual
async def test_keys_are_reported_and_answered() -> None:
    """Each key is reported at once. With # they are one item of the caller, which is answered."""
    play = _play()
    async with play.call() as caller:
        for digit in "12#":
            await caller.ask(type="rejoinder.dtmf", digit=digit)
        done = await caller.until("response.done")
        assert done["response"]["status"] == "completed"
        assert [event["event"] for event in caller.of("input_audio_buffer.dtmf_event_received")] == ["1", "2", "#"]
        (item,) = (e["item"] for e in caller.of("conversation.item.done") if e["item"]["role"] == "user")
        assert item["content"][0]["text"] == "(The caller pressed the keys 1 2 #.)"


@virtual
async def test_a_long_entry_is_complete() -> None:
    """MAX_KEYS keys are an entry, without # and without a pause."""
    async with _play().call() as caller:
        for _ in range(MAX_KEYS):
            await caller.ask(type="rejoinder.dtmf", digit="1")
        await caller.until("response.created")
        assert caller.at("response.created") - caller.at("input_audio_buffer.dtmf_event_received") < 1.0


@virtual
async def test_keys_while_the_caller_speaks_get_no_answer_of_their_own() -> None:
    """The reply to the speech answers both: there is one response, and its prompt has the keys."""
    play = _play()
    async with play.call() as caller:
        speaking = asyncio.create_task(caller.speak(2.0))
        await caller.until("input_audio_buffer.speech_started")
        for digit in "7#":
            await caller.ask(type="rejoinder.dtmf", digit=digit)
        await speaking
        await caller.listen("response.done")
        await caller.hush(5.0)
        assert len(caller.of("response.done")) == 1
        assert any("7 #" in message.content for message in play.llm.requests[-1][1].messages)


@pytest.mark.parametrize("detection", [None, {"type": "semantic_vad", "create_response": False}])
@virtual
async def test_a_client_that_asks_for_replies_itself_gets_only_the_item(detection: dict[str, Any] | None) -> None:
    """Without automatic replies, keys become an item and start no response."""
    async with _play().call() as caller:
        session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
        await caller.ask(type="session.update", session=session)
        await caller.ask(type="rejoinder.dtmf", digit="#")
        await caller.until("conversation.item.done")
        await caller.hush(3.0)
        assert not caller.of("response.created")


@virtual
async def test_the_first_key_ends_the_reply() -> None:
    """A key during a reply cancels it at once; the entry is answered when it is complete."""
    async with _play().call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        pressed = asyncio.get_running_loop().time()
        await caller.ask(type="rejoinder.dtmf", digit="5")
        done = await caller.until("response.done")
        assert (done["response"]["status"], caller.at("response.done") - pressed < 0.05) == ("cancelled", True)
        answer = await caller.listen("response.done", 2)
        assert answer["response"]["status"] == "completed"


@pytest.mark.parametrize("digit", ["", "10", "E", 5, None])
@virtual
async def test_other_keys_are_refused(digit: object) -> None:
    """A key that no telephone has is an error that names the field."""
    async with _play().call() as caller:
        await caller.ask(type="rejoinder.dtmf", digit=digit)
        assert (await caller.until("error"))["error"]["param"] == "digit"


@virtual
async def test_a_ping_is_answered() -> None:
    """`rejoinder.ping` is answered with `rejoinder.pong`, also while a reply is spoken."""
    async with _play().call() as caller:
        await caller.ask(type="rejoinder.ping")
        await caller.until("rejoinder.pong")
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.ask(type="rejoinder.ping")
        await caller.until("rejoinder.pong", 2)


@virtual
async def test_keys_cannot_fill_the_memory() -> None:
    """Keys are refused when the conversation is full. An entry takes at most the bytes reserved for it."""
    async with _play().call() as caller:
        await caller.ask(
            type="session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        for _ in range(MAX_ITEMS + 5):
            await caller.ask(type="rejoinder.dtmf", digit="#")
        await caller.until("error", 5)
        assert len(caller.session.conversation) == MAX_ITEMS
        before = caller.session.conversation.size
        assert before <= MAX_ITEMS * ENTRY_BYTES
    assert (
        Item("item_0123456789abcdef01234567_0001", text=f"(The caller pressed the keys {' '.join('1' * 64)}.)").size
        < ENTRY_BYTES
    )
