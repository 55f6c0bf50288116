"""A conversation in one process with fake stages, in virtual time: turns, barge-in, endpointing, detection modes."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from rejoinder.core.context import Message
from tests.actors.fakes import CHUNK_SAMPLES, ScriptedStt, ScriptedTurn, ToneTts, WordyLlm, voice
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
ANSWER = "It is noon. The sun stands high, and lunch is ready for everyone who wants some."


def server_vad(**fields: object) -> dict[str, object]:
    return {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"} | fields}}}


def detection(value: object) -> dict[str, object]:
    return {"type": "realtime", "audio": {"input": {"turn_detection": value}}}


def spoken_prompt(play: Play, number: int = -1) -> list[tuple[str, str]]:
    """The conversation that a request to the language model held, without the instructions."""
    messages: tuple[Message, ...] = play.llm.requests[number][1].messages
    return [(message.role, message.content) for message in messages if message.role != "system"]


@virtual
async def test_one_turn_sends_every_event_in_the_order_of_the_wire() -> None:
    """A spoken question is answered, each event exactly where openai-realtime.md section 5 puts it."""
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
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert done["response"]["status"] == "completed"
    assert caller.transcript == ANSWER
    assert caller.audio == b"".join(voice(text) for text in play.tts.texts)
    assert spoken_prompt(play) == [("user", "What time is it?")]


@virtual
async def test_the_speech_edges_are_in_input_buffer_time() -> None:
    """audio_start_ms includes the prefix padding, audio_end_ms the silence that ended the turn; both to a window."""
    async with Play().call() as caller:
        await caller.hush(1.0)
        await caller.say(1.0)
    assert caller.of(TURN[0])[0]["audio_start_ms"] == pytest.approx(1000 - 300, abs=32)
    assert caller.of(TURN[1])[0]["audio_end_ms"] == pytest.approx(2000 + 100, abs=40)


@virtual
async def test_a_second_turn_reads_the_first() -> None:
    """The prompt grows by what was said and answered."""
    play = Play(stt=ScriptedStt(deque(["What time is it?", "And tomorrow?"])))
    async with play.call() as caller:
        await caller.say()
        await caller.hush(8)
        await caller.say()
    assert spoken_prompt(play) == [("user", "What time is it?"), ("assistant", ANSWER), ("user", "And tomorrow?")]


# -- barge-in ----------------------------------------------------------------------------------------------------------


async def interrupt(caller: Caller, after_s: float) -> None:
    """Speak a second over the reply, `after_s` after its first audio."""
    await caller.speak(1.0)
    await caller.listen("response.output_audio.delta")
    await caller.hush(after_s)
    await caller.speak(1.0)


@virtual
async def test_a_barge_in_silences_the_reply_and_is_answered() -> None:
    """speech_started, then the cancelled response's ends, no delta after; history holds what was heard; the
    interruption is a turn of its own, and the stop is reported."""
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
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    question, heard, interruption = spoken_prompt(play)
    assert (question[1], interruption[1]) == ("What time is it?", "Stop.")
    assert ANSWER.startswith(heard[1])
    # 3.1 s of 80 ms a character, and what the listener hears until the speech is believed.
    assert 30 < len(heard[1]) < 45
    assert cut["rejoinder"]["interrupted"]
    assert 60 < cut["rejoinder"]["stop_ms"] <= 150
    assert play.metrics.stops_s == [pytest.approx(cut["rejoinder"]["stop_ms"] / 1000, abs=1e-4)]
    assert not answered["rejoinder"]["interrupted"]
    assert answered["rejoinder"]["stop_ms"] is None
    assert (play.llm.running, play.tts.running) == (0, 0)


@virtual
async def test_speech_behind_the_last_delta_corrects_the_history() -> None:
    """A response that is complete on the wire but still being heard is cut in the history alone."""
    play = Play(stt=ScriptedStt(deque(["What time is it?", "Stop."])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.done")
        await caller.speak(1.0)
        await caller.listen("response.done", 2)
    assert [event["response"]["status"] for event in caller.of("response.done")] == ["completed", "completed"]
    heard = spoken_prompt(play)[1][1]
    assert ANSWER.startswith(heard)
    assert len(heard) < len(ANSWER)
    assert len(play.metrics.stops_s) == 1
    assert caller.of("response.done")[1]["rejoinder"]["stop_ms"] is None


@virtual
async def test_a_barge_in_before_the_first_word_leaves_no_response_on_the_wire() -> None:
    """The client never hears of the reply that was not begun; both of the caller's items are in the prompt."""
    play = Play(llm=WordyLlm(ttft_s={"a": 0.7, "b": 0.7}), stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(0.3)
        await caller.say(1.0)
    assert len(caller.of("response.created")) == 1
    assert spoken_prompt(play) == [("user", "One."), ("user", "Two.")]
    assert play.metrics.stops_s == []
    assert play.llm.running == 0


@virtual
async def test_a_noise_before_the_first_word_does_not_cost_the_answer() -> None:
    """The caller coughs while we think: the question still stands, so it is answered."""
    play = Play(llm=WordyLlm(ttft_s={"a": 0.7, "b": 0.7}), stt=ScriptedStt(deque(["One.", ""])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(0.3)
        await caller.say(0.2)
    assert spoken_prompt(play) == [("user", "One.")]


@virtual
async def test_a_reply_that_may_not_be_interrupted_is_heard_to_its_end() -> None:
    """interrupt_response=false: speech over the reply is a turn that is answered after it."""
    play = Play(stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(interrupt_response=False))
        await interrupt(caller, after_s=1.0)
        await caller.listen("response.done", 2)
    first, second = caller.of("response.done")
    assert [first["response"]["status"], second["response"]["status"]] == ["completed", "completed"]
    assert spoken_prompt(play) == [("user", "One."), ("assistant", ANSWER), ("user", "Two.")]
    assert second["rejoinder"]["unattributed_ms"] <= 5


# -- endpointing -------------------------------------------------------------------------------------------------------


@virtual
async def test_resumed_speech_drops_all_of_the_half_sentence() -> None:
    """A pause that was no end: the transcript job is cancelled, nothing of it reaches the wire, and the final
    transcript covers the whole utterance."""
    play = Play(turn=ScriptedTurn(deque([0.3, 0.98])), stt=ScriptedStt(delay_s=0.6))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.hush(0.4)
        await caller.say(1.0)
    assert play.stt.cancelled == 1
    assert len(caller.of("input_audio_buffer.speech_started")) == 1
    assert len(caller.of("input_audio_buffer.committed")) == 1
    assert len(caller.of("response.created")) == 1
    seconds = len(play.stt.jobs[0].pcm) / 32_000
    assert seconds == pytest.approx(1.0 + 0.4 + 1.0 + 0.096, abs=0.1)


@virtual
async def test_an_unfinished_sentence_is_waited_for() -> None:
    """A low probability waits longer than the fallback, up to the configured maximum."""
    play = Play(turn=ScriptedTurn(deque([0.02])))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert 1.8 < caller.at("input_audio_buffer.committed") - spoke < 2.0


@virtual
async def test_a_verdict_that_hangs_leaves_the_fallback_silence() -> None:
    """The turn model has 400 ms; then 500 ms of silence decide, and the hanging call is cancelled."""
    play = Play(turn=ScriptedTurn(deque([None])))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - spoke == pytest.approx(0.5, abs=0.04)
    assert play.metrics.counts["backend turn_detector"] == 1


@virtual
async def test_words_that_turn_out_to_be_none_are_not_answered() -> None:
    """An empty transcript leaves no response on the wire, and the next turn is answered."""
    play = Play(stt=ScriptedStt(deque(["", "What time is it?"])))
    async with play.call() as caller:
        await caller.speak(0.5)
        await caller.hush(3.0)
        assert not caller.of("response.created")
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert spoken_prompt(play) == [("user", "What time is it?")]


@pytest.mark.parametrize("silence_ms", [200, 500, 700, 1500])
@virtual
async def test_server_vad_commits_after_exactly_its_silence(silence_ms: int) -> None:
    """speech_stopped comes when the silence is over, whatever the turn model would have said, and says so."""
    play = Play(turn=ScriptedTurn(deque([0.0])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=silence_ms))
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.speech_stopped")
    # Speech ends with the window that holds its last sample: up to 32 ms later.
    assert 0 <= caller.at(TURN[1]) - spoke - silence_ms / 1000 <= 0.032 + 1e-6
    assert 0 <= caller.of(TURN[1])[0]["audio_end_ms"] - 1000 - silence_ms <= 32


@virtual
async def test_server_vad_commits_when_the_client_stops_sending() -> None:
    """A muted client sends nothing: the wall clock takes the turn in time."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=500))
        await caller.speak(1.0)
        await caller.hush(0.2)
        muted = asyncio.get_running_loop().time()
        await caller.until("response.done")
    assert caller.at("input_audio_buffer.committed") - muted == pytest.approx(0.3, abs=0.04)


@virtual
async def test_server_vad_answers_what_comes_faster_than_real_time() -> None:
    """Two questions in one message of ten seconds: two turns, the second over the first's answer."""
    play = Play(stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=500))
        await caller.until("session.updated")
        caller.pour(2.0, 3.0, 2.0, 3.0)
        done = await caller.until("response.done")
        await asyncio.sleep(20)
    assert done["response"]["status"] == "completed"
    assert len(caller.of("input_audio_buffer.committed")) == 2
    assert [event["audio_end_ms"] for event in caller.of(TURN[1])] == [
        pytest.approx(2500, abs=32),
        pytest.approx(7500, abs=32),
    ]
    assert len(caller.of("response.done")) == 1
    assert spoken_prompt(play) == [("user", "One."), ("user", "Two.")]


@virtual
async def test_semantic_vad_answers_several_seconds_in_one_message() -> None:
    """Message size means nothing: the same turn as at real time, only sooner."""
    play = Play()
    async with play.call() as caller:
        caller.pour(3.0, 1.0)
        await caller.until("response.done")
        caller.pour(2.0, 1.0)
        done = await caller.until("response.done", 2)
    assert done["response"]["status"] == "completed"
    assert [round(len(job.pcm) / 32_000) for job in play.stt.jobs] == [3, 2]


@virtual
async def test_an_endless_utterance_becomes_turns() -> None:
    """At max_utterance_s what was said so far is a turn; the caller, still speaking, begins the next."""
    play = Play()
    async with play.call() as caller:
        await caller.speak(40)
        await caller.listen("response.done")
    assert len(caller.of("input_audio_buffer.committed")) == 2
    assert [round(len(job.pcm) / 32_000) for job in play.stt.jobs] == [30, 10]


# -- who commits and who asks ------------------------------------------------------------------------------------------


@virtual
async def test_without_turn_detection_the_client_commits_and_asks() -> None:
    """turn_detection null: no speech events; commit makes the item, response.create the answer."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=detection(None))
        await caller.until("session.updated")
        await caller.speak(1.0)
        await caller.hush(2.0)
        assert caller.types == ["session.created", "session.updated"]
        await caller.ask(type="input_audio_buffer.commit")
        await caller.ask(type="response.create")
        done = await caller.until("response.done")
    assert not caller.of("input_audio_buffer.speech_started")
    assert not caller.of("input_audio_buffer.speech_stopped")
    assert caller.types[2:6] == [*TURN[2:], "response.created"]
    assert done["response"]["status"] == "completed"
    assert spoken_prompt(play) == [("user", "What time is it?")]
    assert len(play.stt.jobs[0].pcm) == 3 * 32_000
    assert done["rejoinder"]["unattributed_ms"] <= 5


@virtual
async def test_a_client_may_end_the_turn_before_the_silence_does() -> None:
    """A commit in a VAD mode takes all audio received, once; the audio behind it is the next utterance."""
    play = Play()
    async with play.call() as caller:
        caller.pour(2.0)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.hush(3.0)
        assert len(caller.of("input_audio_buffer.committed")) == 1
        assert not caller.of("response.created")
        await caller.say()
    assert [round(len(job.pcm) / 32_000, 1) for job in play.stt.jobs] == [2.0, pytest.approx(1.4, abs=0.1)]


@virtual
async def test_create_response_false_leaves_the_answer_to_the_client() -> None:
    """The turn is committed, nothing more; response.create answers it."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=detection({"type": "semantic_vad", "create_response": False}))
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(3)
        assert not caller.of("response.created")
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert spoken_prompt(play) == [("user", "What time is it?")]


@virtual
async def test_cleared_audio_is_not_answered() -> None:
    """input_audio_buffer.clear in the middle of an utterance: no turn of it, and the next is heard from its start."""
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.ask(type="input_audio_buffer.clear")
        await caller.hush(3.0)
        assert caller.types[-1] == "input_audio_buffer.cleared"
        await caller.say(2.0)
    assert [round(len(job.pcm) / 32_000, 1) for job in play.stt.jobs] == [pytest.approx(2.4, abs=0.1)]


@virtual
async def test_an_idle_caller_is_spoken_to() -> None:
    """server_vad's idle_timeout_ms: counted from the end of playback, the silence is committed and answered."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(idle_timeout_ms=5000))
        await caller.say()
        triggered = await caller.listen("input_audio_buffer.timeout_triggered")
        done = await caller.listen("response.done", 2)
    spoken_s = sum(map(len, play.tts.texts[:2])) * CHUNK_SAMPLES / 24_000
    heard = caller.at("response.output_audio.delta") + spoken_s
    assert caller.at("input_audio_buffer.timeout_triggered") - heard == pytest.approx(5.0, abs=0.05)
    assert triggered["audio_end_ms"] - triggered["audio_start_ms"] == pytest.approx(5000, abs=40)
    assert done["response"]["status"] == "completed"
    assert spoken_prompt(play)[-1] == ("user", "(silence)")


@virtual
async def test_an_idle_timeout_ends_with_the_first_word() -> None:
    """A caller who speaks in time is not asked again."""
    async with Play().call() as caller:
        await caller.ask(type="session.update", session=server_vad(idle_timeout_ms=5000))
        await caller.say()
        await caller.hush(4)
        await caller.speak(12)
        assert not caller.of("input_audio_buffer.timeout_triggered")


# -- what is told of it ------------------------------------------------------------------------------------------------


@virtual
async def test_transcripts_are_told_to_those_who_ask() -> None:
    """Transcription events come only when configured, for the item of the turn, with its length."""
    play = Play(stt=ScriptedStt(deque(["One.", "Two."])))
    async with play.call() as caller:
        await caller.say()
        await caller.hush(8)
        transcription = {"model": "whisper-1"}
        await caller.ask(
            type="session.update", session={"type": "realtime", "audio": {"input": {"transcription": transcription}}}
        )
        await caller.say(2.0)
    (told,) = caller.of("conversation.item.input_audio_transcription.completed")
    assert told["transcript"] == "Two."
    assert told["item_id"] == caller.of("input_audio_buffer.committed")[1]["item_id"]
    assert told["usage"]["seconds"] == pytest.approx(2.4, abs=0.05)


@virtual
async def test_a_long_answer_that_hits_its_limit_is_incomplete() -> None:
    """max_output_tokens: what was generated is spoken, the response says why it ends."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "max_output_tokens": 5})
        done = await caller.say()
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert caller.transcript == "It is noon. The sun"
    assert done["response"]["output"][0]["status"] == "incomplete"


@virtual
async def test_audio_runs_ahead_of_the_listener_by_the_configured_lead() -> None:
    """No sample leaves more than playout_lead_ms before it is heard, and the listener never waits."""
    play = Play(tts=ToneTts(delay_s=0.02))
    async with play.call() as caller:
        await caller.say()
    began = caller.at("response.output_audio.delta")
    sent = 0.0
    for at, event in caller.events:
        if event["type"] == "response.output_audio.delta":
            assert sent >= at - began - 1e-6, "the listener ran dry"
            sent += len(event["delta"]) / 48_000
            assert sent - (at - began) <= 0.320 + 1e-6


@virtual
async def test_an_answer_without_words_is_complete() -> None:
    """A model that says nothing leaves a completed response without audio, and the next turn is held."""
    play = Play(llm=WordyLlm(answer=""))
    async with play.call() as caller:
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        assert done["response"]["output"][0]["content"] == []
        play.llm.answer = ANSWER
        await caller.say()
    assert caller.transcript == ANSWER
