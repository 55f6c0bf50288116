"""Tests of complete turns of a conversation in one process, with fake stages and in virtual time."""

from __future__ import annotations

from collections import deque

import pytest

from rejoinder.core.reply.satisfaction import HangUp
from rejoinder.core.settings.settings import ConversationSettings, Settings
from tests.actors.asking import RESPONSE_ENDS, TURN, prompts
from tests.actors.fakes import ANSWER, ScriptedStt, ToneTts, WordyLlm, voice
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


@virtual
async def test_one_turn_sends_every_event_in_the_order_of_the_wire() -> None:
    """A spoken question is answered, and the events have the order of OpenAI's Realtime API."""
    play = Play()
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    assert caller.types == [
        "session.created",
        *TURN,
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        *RESPONSE_ENDS,
    ]
    assert done["response"]["status"] == "completed"
    assert caller.transcript == ANSWER
    assert caller.audio == b"".join(voice(text) for text in play.tts.texts)
    assert prompts(play)[-1] == [("user", "What time is it?")]


@virtual
async def test_the_speech_edges_are_in_input_buffer_time() -> None:
    """audio_start_ms is the start of speech less the prefix padding of 300 ms.

    audio_end_ms is the end of speech plus the 100 ms of silence that a certain end requires. Both count from the start
    of the input audio and are exact to a voice activity window (32 ms).
    """
    async with Play().call() as caller:
        await caller.hush(1.0)
        await caller.say(1.0)
    assert caller.of(TURN[0])[0]["audio_start_ms"] == pytest.approx(1000 - 300, abs=32)
    assert caller.of(TURN[1])[0]["audio_end_ms"] == pytest.approx(2000 + 100, abs=40)


@virtual
async def test_a_second_turn_reads_the_first() -> None:
    """The prompt of the second turn contains the first question and its answer."""
    play = Play(stt=ScriptedStt(deque(["What time is it?", "And tomorrow?"])))
    async with play.call() as caller:
        await caller.say()
        await caller.hush(8)
        await caller.say()
    assert prompts(play)[-1] == [("user", "What time is it?"), ("assistant", ANSWER), ("user", "And tomorrow?")]


@virtual
async def test_transcripts_are_sent_when_configured() -> None:
    """Transcription events are sent only if configured. They name the item of the turn and the length of its audio."""
    play = Play(stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.say()
        await caller.hush(8)
        transcription = {"model": "whisper-1"}
        await caller.ask(
            type="session.update", session={"type": "realtime", "audio": {"input": {"transcription": transcription}}}
        )
        await caller.say(2.0)
    (completed,) = caller.of("conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == "Two."
    assert completed["item_id"] == caller.of("input_audio_buffer.committed")[1]["item_id"]
    assert completed["usage"]["seconds"] == pytest.approx(2.4, abs=0.05)


@virtual
async def test_a_long_answer_that_hits_its_limit_is_incomplete() -> None:
    """An answer that reaches max_output_tokens is spoken, and its response has status incomplete with that reason."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "max_output_tokens": 5})
        done = await caller.say()
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert caller.transcript == "It is noon. The sun"
    assert done["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("lead_ms", [20, 60, 320, 2000])
@virtual
async def test_audio_runs_ahead_of_the_listener_by_the_configured_lead(lead_ms: int) -> None:
    """All samples are sent, none more than playout_lead_ms before it is heard, and the listener always has audio."""
    settings = Settings(conversation=ConversationSettings(playout_lead_ms=lead_ms))
    play = Play(settings, tts=ToneTts(delay_s=0.02))
    async with play.call() as caller:
        await caller.say()
    assert caller.audio == b"".join(voice(text) for text in play.tts.texts)
    began = caller.at("response.output_audio.delta")
    sent = 0.0
    deltas = [(at, event) for at, event in caller.events if event["type"] == "response.output_audio.delta"]
    for at, event in deltas:
        assert lead_ms < 60 or sent >= at - began - 1e-6, "the listener ran dry"
        sent += len(event["delta"]) / 48_000
        assert sent - (at - began) <= lead_ms / 1000 + 1e-6
    assert lead_ms < 200 or len(deltas) <= 10 * sent + 5


@virtual
async def test_an_answer_without_words_is_no_answer() -> None:
    """If the model generates nothing, the caller hears a sentence, the response has failed with the reason
    "empty_answer", its item has no words, and the next turn is answered.
    """
    play = Play(llm=WordyLlm(answer=""))
    async with play.call() as caller:
        done = await caller.say()
        assert done["response"]["status"] == "failed"
        assert done["response"]["status_details"]["error"]["code"] == "empty_answer"
        assert done["response"]["output"][0]["content"] == []
        play.llm.answer = ANSWER
        await caller.say()
    assert caller.transcript == play.settings.conversation.no_answer + ANSWER


@virtual
async def test_a_repeated_question_is_counted_once() -> None:
    """A turn is compared with the caller's turn before it, whatever the agent said between them."""
    turns = ["When do you open on Sunday?", "I said, when do you open on Sunday?", "Thank you very much."]
    play = Play(stt=ScriptedStt(deque(turns)))
    async with play.call() as caller:
        for _ in turns:
            await caller.say()
            await caller.hush(8)
    assert play.metrics.counts["repeated turn"] == 1


@pytest.mark.parametrize(
    ("quiet_s", "when"), [(0.0, HangUp.DURING_REPLY), (8.0, HangUp.SOON), (30.0, HangUp.LATER)], ids=lambda value: value
)
@virtual
async def test_a_hang_up_is_counted_by_the_time_since_the_reply(quiet_s: float, when: HangUp) -> None:
    """The agent's answer is heard for some seconds after it was sent, and hanging up then is during the reply."""
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(quiet_s)
        caller.session.hung_up()
    assert play.metrics.counts[f"hung up {when.value} after 1"] == 1


@virtual
async def test_a_hang_up_before_the_first_reply_has_no_turns() -> None:
    """A caller who says nothing and hangs up has had no turn."""
    play = Play()
    async with play.call() as caller:
        caller.session.hung_up()
    assert play.metrics.counts[f"hung up {HangUp.BEFORE_REPLY.value} after 0"] == 1
