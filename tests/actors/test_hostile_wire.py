"""Tests of malformed and hostile client messages.

Each gets an error or has a legal effect, and the session still answers the next turn.
"""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import run_virtual, virtual
from tests.core.wire.hostile import corpus, hostile

# The configuration that a spoken turn needs. Hostile messages may have changed every field of it legally.
USUAL = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "max_output_tokens": "inf",
    "audio": {"input": {"turn_detection": {"type": "semantic_vad", "create_response": True}}},
}


async def throw(caller: Caller, message: str | bytes) -> int:
    """Send one message and return the number of error events that it caused."""
    errors = len(caller.of("error"))
    await caller.throw(message)
    await asyncio.sleep(0.001)
    return len(caller.of("error")) - errors


async def hold_a_turn(play: Play, caller: Caller) -> None:
    """Check that the session works: cancel what earlier messages began, and have a spoken question answered."""
    await asyncio.sleep(60)
    await caller.ask(type="input_audio_buffer.clear")
    await caller.ask(type="session.update", session=USUAL)
    done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert caller.session.conversation.messages()[-2].content == "What time is it?"
    assert not [kind for kind in play.metrics.counts if kind.startswith(("internal", "backend"))]


@virtual
async def test_the_corpus_costs_an_error_each_at_most() -> None:
    """Each of at least 500 malformed messages in one session gets at most one error, and never an internal error.

    Afterwards a spoken question is answered.
    """
    play = Play()
    messages = corpus()
    async with play.call() as caller:
        answers = [await throw(caller, message) for message in messages]
        assert len(messages) >= 500
        assert max(answers) == 1
        assert sum(answers) >= 400
        assert {event["error"]["type"] for event in caller.of("error")} == {"invalid_request_error"}
        await hold_a_turn(play, caller)


async def _storm(messages: list[str | bytes]) -> None:
    play = Play()
    async with play.call() as caller:
        for message in messages:
            assert await throw(caller, message) <= 1
        await hold_a_turn(play, caller)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(hostile(), min_size=1, max_size=12))
def test_no_sequence_of_messages_costs_the_next_turn(messages: list[str | bytes]) -> None:
    """After any sequence of malformed messages all server events are legal, and the next question is answered."""
    run_virtual(_storm(messages))
