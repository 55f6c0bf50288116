"""Tests of barge-in: the caller interrupts the reply."""

from __future__ import annotations

from collections import deque

import pytest

from tests.actors.asking import RESPONSE_ENDS, prompts, server_vad
from tests.actors.fakes import ANSWER, ScriptedStt, WordyLlm, voice
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

# All audio of the answer: its two segments.
WHOLE = voice("It is noon.") + voice("The sun stands high, and lunch is ready for everyone who wants some.")


async def interrupt(caller: Caller, after_s: float) -> None:
    """Ask a question, then speak for a second over the reply, `after_s` seconds after its first audio."""
    await caller.speak(1.0)
    await caller.listen("response.output_audio.delta")
    await caller.hush(after_s)
    await caller.speak(1.0)


@virtual
async def test_a_barge_in_silences_the_reply_and_is_answered() -> None:
    """After a barge-in the response is cancelled and no delta follows. The conversation has the words that were heard,
    the interruption is a turn that is answered, and `stop_ms` is reported.
    """
    play = Play(stt=ScriptedStt(deque(["What time is it?", "Stop."])))
    async with play.call() as caller:
        await interrupt(caller, after_s=3.0)
        await caller.listen("response.done", 2)
    cut, answered = caller.of("response.done")
    assert cut["response"]["status"] == "cancelled"
    assert cut["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert cut["response"]["output"][0]["status"] == "incomplete"
    assert answered["response"]["status"] == "completed"
    second = [kind for at, kind in enumerate(caller.types) if at > caller.types.index("response.output_audio.delta")]
    start = second.index("input_audio_buffer.speech_started")
    assert second[start : start + 7] == [
        "input_audio_buffer.speech_started",
        *RESPONSE_ENDS,
    ]
    question, heard, interruption = prompts(play)[-1]
    assert (question[1], interruption[1]) == ("What time is it?", "Stop.")
    assert ANSWER.startswith(heard[1])
    # 3 s at 80 ms per character, and the characters played until the sound counts as speech.
    assert 30 < len(heard[1]) < 45
    assert cut["rejoinder"]["interrupted"]
    assert 40 < cut["rejoinder"]["stop_ms"] <= 100
    assert play.metrics.stops_s == [pytest.approx(cut["rejoinder"]["stop_ms"] / 1000, abs=1e-4)]
    assert not answered["rejoinder"]["interrupted"]
    assert answered["rejoinder"]["stop_ms"] is None
    assert (play.llm.running, play.tts.running) == (0, 0)


@virtual
async def test_speech_behind_the_last_delta_still_cuts_the_reply() -> None:
    """A response stays open until it was heard. So a barge-in after the last delta still cancels it, and the
    conversation has only the words that were heard.
    """
    play = Play(stt=ScriptedStt(deque(["What time is it?", "Stop."])))
    async with play.call() as caller:
        await caller.speak(1.0)
        while len(caller.audio) < len(WHOLE):
            await caller.hush(0.02)
        await caller.speak(1.0)
        await caller.listen("response.done", 2)
    assert [event["response"]["status"] for event in caller.of("response.done")] == ["cancelled", "completed"]
    heard = prompts(play)[-1][1][1]
    assert ANSWER.startswith(heard)
    assert len(heard) < len(ANSWER)
    assert len(play.metrics.stops_s) == 1
    assert caller.of("response.done")[1]["rejoinder"]["stop_ms"] is None


@virtual
async def test_a_barge_in_before_the_first_word_leaves_no_response_on_the_wire() -> None:
    """If the caller speaks again before the reply has begun, no event of that reply is sent, and the next prompt has
    both turns.
    """
    play = Play(llm=WordyLlm(ttft_s={"a": 0.7, "b": 0.7}), stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(0.3)
        await caller.say(1.0)
    assert len(caller.of("response.created")) == 1
    assert prompts(play)[-1] == [("user", "One."), ("user", "Two.")]
    assert play.metrics.stops_s == []
    assert play.llm.running == 0


@virtual
async def test_a_noise_before_the_first_word_does_not_cost_the_answer() -> None:
    """A noise before the reply begins does not cancel the reply: the question is answered."""
    play = Play(llm=WordyLlm(ttft_s={"a": 0.7, "b": 0.7}), stt=ScriptedStt(deque(["One.", ""])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(0.3)
        await caller.say(0.2)
    assert prompts(play)[-1] == [("user", "One.")]


@virtual
async def test_a_reply_that_may_not_be_interrupted_is_heard_to_its_end() -> None:
    """With interrupt_response=false, speech over the reply does not cancel it, and is answered after it as a turn."""
    play = Play(stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(interrupt_response=False))
        await interrupt(caller, after_s=1.0)
        await caller.listen("response.done", 2)
    first, second = caller.of("response.done")
    assert [first["response"]["status"], second["response"]["status"]] == ["completed", "completed"]
    assert prompts(play)[-1] == [("user", "One."), ("assistant", ANSWER), ("user", "Two.")]
    assert second["rejoinder"]["unattributed_ms"] <= 5
