"""A conversation in one process with fake stages, in virtual time."""

from __future__ import annotations

import asyncio

from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual


async def _listen(caller, kind: str, count: int = 1):  # type: ignore[no-untyped-def]
    """Stay silent, as a caller does, until the event comes."""
    hush = asyncio.create_task(caller.hush(60))
    event = await asyncio.wait_for(caller.until(kind, count), 60)
    hush.cancel()
    return event


def test_one_turn_sends_every_event_in_the_order_of_the_wire() -> None:
    """A spoken question is answered, each event exactly where openai-realtime.md section 5 puts it."""

    async def play() -> None:
        async with Play().call() as caller:
            await caller.hush(0.5)
            await caller.speak(1.0)
            done = await _listen(caller, "response.done")
        assert caller.types == [
            "session.created",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ], caller.types
        print(done)

    run_virtual(play())
