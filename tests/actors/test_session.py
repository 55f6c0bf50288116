"""A conversation in one process with fake stages, in virtual time."""

from __future__ import annotations

from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual


def test_one_turn_sends_every_event_in_the_order_of_the_wire() -> None:
    """A spoken question is answered, each event exactly where openai-realtime.md section 5 puts it."""

    async def play() -> None:
        async with Play().call() as caller:
            await caller.hush(0.5)
            await caller.speak(1.0)
            done = await caller.listen("response.done")
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
