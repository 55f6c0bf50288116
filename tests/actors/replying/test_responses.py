"""Tests of responses that a client requests, cancels, or requests outside the conversation."""

from __future__ import annotations

import asyncio

import pytest

from tests.actors.asking import ids, message, prompts, refused, settled
from tests.actors.fakes import ANSWER, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


@virtual
async def test_a_conversation_in_text() -> None:
    """A written message with a request for a text response is answered in text, without any speech synthesis.

    The deltas add up to the answer.
    """
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
    """If the session is configured with output_modalities ["text"], a spoken question is answered in text."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
        done = await caller.say()
    assert done["response"]["output_modalities"] == ["text"]
    assert caller.audio == b""
    assert done["rejoinder"]["unattributed_ms"] <= 5


@virtual
async def test_a_requested_response_is_announced_at_once() -> None:
    """response.created is sent at once after response.create, because clients wait for it with a timeout."""
    async with Play(llm=WordyLlm(ttft_s={"a": 5.0})).call() as caller:
        await caller.ask(type="response.create", response={"metadata": {"client_event_id": "x"}})
        await settled(caller)
        assert caller.of("response.created")[0]["response"]["metadata"] == {"client_event_id": "x"}
        done = await caller.until("response.done")
    assert done["response"]["metadata"] == {"client_event_id": "x"}


@virtual
async def test_a_second_response_is_refused_while_one_is_open() -> None:
    """While a response is open, another response.create gets the error conversation_already_has_active_response, and
    the first response continues.
    """
    async with Play().call() as caller:
        await caller.ask(type="response.create")
        error = await refused(caller, type="response.create")
        assert error["code"] == "conversation_already_has_active_response"
        done = await caller.until("response.done")
        assert done["response"]["status"] == "completed"
        # The first response has ended on the wire, although the client may still be playing it.
        await caller.ask(type="response.create")
        await caller.until("response.done", 2)
    assert len(caller.of("error")) == 1


@virtual
async def test_a_response_is_cancelled_by_the_client() -> None:
    """After response.cancel no delta is sent, the conversation keeps what was heard, and a new response may start at
    once.
    """
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
    """If a response is cancelled right after its request, response.done is sent, and the next turn is answered."""
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
    """If the client cancels a reply before any event of it was sent, a cancelled response.done is still sent."""
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
    """response.cancel without an open response gets the error response_cancel_not_active, and a message whose beginning
    LiveKit's client expects.
    """
    async with Play().call() as caller:
        error = await refused(caller, type="response.cancel")
        assert error["code"] == "response_cancel_not_active"
        assert error["message"].startswith("Cancellation failed")
        done = await caller.say()
        error = await refused(caller, type="response.cancel", response_id=done["response"]["id"])
        assert error["code"] == "response_cancel_not_active"


@virtual
async def test_a_response_outside_the_conversation_runs_beside_it() -> None:
    """A response with conversation "none" uses its own input, returns its metadata, adds no item, and runs at the same
    time as another response.
    """
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
    """A barge-in does not cancel a response outside the conversation."""
    async with Play(llm=WordyLlm(gap_s=0.2)).call() as caller:
        await caller.ask(type="response.create", response={"conversation": "none", "output_modalities": ["text"]})
        await caller.speak(1.0)
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"


@virtual
async def test_responses_outside_the_conversation_are_limited() -> None:
    """If four responses outside the conversation are active, a fifth is refused."""
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
async def test_a_wrong_response_create_starts_nothing(response: dict[str, object], param: str) -> None:
    """A response.create with a wrong field gets an error that names it, and starts no response."""
    play = Play()
    async with play.call() as caller:
        error = await refused(caller, type="response.create", response=response)
        assert error["param"] == param
        assert not caller.of("response.created")
    assert play.llm.requests == []
