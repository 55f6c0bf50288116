"""Tests of the time at which a turn ends.

It depends on resumed speech, the turn detector's verdicts, transcripts and silences, also with audio that arrives
faster than real time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import pytest

from actors.listening.turn_judge import MESSAGE_END_S
from actors.stages.turn_detector_queue import AT_ONCE
from rejoinder.core.settings.settings import EndpointingSettings, Settings
from rejoinder.store.end_of_turn_table import SHIPPED
from tests.actors.asking import TURN, prompts, server_vad
from tests.actors.fakes import ScriptedStt, ScriptedTurn, WordyLlm, open_words
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

PRODUCT = Settings(endpointing=EndpointingSettings(table=str(SHIPPED)))
"""Settings with the product's end-of-turn table, and not that of the tests."""

MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
"""Session whose turns only the client ends."""


@virtual
async def test_resumed_speech_drops_all_of_the_half_sentence() -> None:
    """If the caller continues after a pause in a sentence, the transcript of the first part is cancelled.

    The final transcript covers the whole utterance.
    """
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
    """If the turn detector returns 0.02 and the transcript looks incomplete, the turn ends after almost 2 s of silence.

    The fallback of 1 s does not apply.
    """
    play = Play(turn=ScriptedTurn(deque([0.02])), stt=open_words())
    async with play.call() as caller:
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - last_sound_at == pytest.approx(1.97, abs=0.06)


@virtual
async def test_a_phone_number_in_groups_is_one_turn() -> None:
    """A phone number in four groups with pauses of 0.8 s is one turn.

    The shipped end-of-turn table waits for more digits, although the turn detector's probability is always 0.98.
    """
    number = "My phone number is"
    said = [f"{number},", f"{number} 555,", f"{number} 555, 012.", f"{number} 555 012 3456."]
    play = Play(PRODUCT, turn=ScriptedTurn(deque([0.98] * 8)), stt=ScriptedStt(deque(said)))
    async with play.call() as caller:
        for _ in said[:-1]:
            await caller.speak(0.8)
            await caller.hush(0.8)
        await caller.speak(0.8)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - last_sound_at <= 1.2
    assert len(caller.of("input_audio_buffer.committed")) == 1
    assert len(caller.of("response.created")) <= 1


@virtual
async def test_a_number_that_is_never_completed_is_answered() -> None:
    """After a phone number with only three digits, the turn ends after the longest silence, about 2 s."""
    play = Play(PRODUCT, stt=ScriptedStt(deque(["My phone number is 555."])))
    async with play.call() as caller:
        await caller.speak(0.8)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert 1.5 < caller.at("input_audio_buffer.committed") - last_sound_at <= 2.1


@virtual
async def test_evidence_that_hangs_leaves_the_fallback_silence() -> None:
    """If the turn detector takes over 400 ms, its request is cancelled.

    Without a transcript, 1 s of silence ends the turn.
    """
    play = Play(turn=ScriptedTurn(deque([None])), stt=ScriptedStt(delay_s=1.5))
    async with play.call() as caller:
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - last_sound_at == pytest.approx(1.0, abs=0.04)
    assert play.metrics.counts["backend turn_detector"] == 1


@virtual
async def test_an_empty_transcript_is_not_answered() -> None:
    """For a turn with an empty transcript no response is sent, and the next turn is answered."""
    play = Play(stt=ScriptedStt(deque(["", "What time is it?"])))
    async with play.call() as caller:
        await caller.speak(0.5)
        await caller.hush(3.0)
        assert not caller.of("response.created")
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert prompts(play)[-1] == [("user", "What time is it?")]


@virtual
async def test_a_commit_of_silence_is_not_answered_although_the_client_asks() -> None:
    """If a client commits silence and requests a response, the response is empty, and the model is not called.

    The same holds for a second such commit. Words that are committed later are answered.
    """
    play = Play(stt=ScriptedStt(deque(["", "", "What time is it?"])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=MANUAL)
        for number in (1, 2):
            await caller.hush(1.0)
            await caller.ask(type="input_audio_buffer.commit")
            await caller.ask(type="response.create")
            done = await caller.until("response.done", number)
            assert done["response"]["status"] == "completed"
            assert [item["content"] for item in done["response"]["output"]] == [[]]
        assert play.llm.requests == []
        assert caller.audio == b""
        await caller.speak(1.0)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.ask(type="response.create")
        await caller.until("response.done", 3)
    assert prompts(play) == [[("user", "What time is it?")]]


@virtual
async def test_a_commit_of_silence_is_answered_if_the_request_says_how() -> None:
    """A response.create with its own instructions is carried out, although nobody has spoken."""
    play = Play(stt=ScriptedStt(deque([""])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=MANUAL)
        await caller.hush(1.0)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.ask(type="response.create", response={"instructions": "Greet the caller."})
        await caller.until("response.done")
    assert len(play.llm.requests) == 1
    assert caller.audio


@pytest.mark.parametrize("silence_ms", [200, 500, 700, 1500])
@virtual
async def test_server_vad_commits_after_exactly_its_silence(silence_ms: int) -> None:
    """With server_vad, speech_stopped comes exactly after the configured silence, whatever the turn detector says."""
    play = Play(turn=ScriptedTurn(deque([0.0])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=silence_ms))
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.speech_stopped")
    # Speech ends with the window of its last sample (up to 32 ms later), which arrives with its message (up to 20 ms).
    assert 0 <= caller.at(TURN[1]) - last_sound_at - silence_ms / 1000 <= 0.052 + 1e-6
    assert 0 <= caller.of(TURN[1])[0]["audio_end_ms"] - 1000 - silence_ms <= 32


@virtual
async def test_server_vad_commits_when_the_client_stops_sending() -> None:
    """If a client stops sending audio during the silence, the turn ends by the clock when the silence is over."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=500))
        await caller.speak(1.0)
        await caller.hush(0.2)
        muted = asyncio.get_running_loop().time()
        await caller.until("response.done")
    assert caller.at("input_audio_buffer.committed") - muted == pytest.approx(0.3, abs=0.04)


@virtual
async def test_server_vad_handles_audio_faster_than_real_time() -> None:
    """With server_vad, two questions in one message of ten seconds are two turns. The second turn ends before a
    response to the first is created, so a single response answers both.
    """
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
    assert prompts(play)[-1] == [("user", "One."), ("user", "Two.")]


@virtual
async def test_semantic_vad_answers_several_seconds_in_one_message() -> None:
    """With semantic_vad, an utterance of several seconds in one message is one turn: all of it is transcribed and it is
    answered.
    """
    play = Play()
    async with play.call() as caller:
        caller.pour(3.0, 1.0)
        await caller.until("response.done")
        caller.pour(2.0, 1.0)
        done = await caller.until("response.done", 2)
    assert done["response"]["status"] == "completed"
    assert [round(len(job.pcm) / 32_000) for job in play.stt.jobs] == [3, 2]


@virtual
async def test_words_that_decide_do_not_wait_for_the_turn_detector() -> None:
    """A transcript that looks complete ends the turn if it arrives before the turn detector's answer.

    The request to the turn detector is then cancelled.
    """
    turn = ScriptedTurn(deque([0.02]), delay_s=0.35)
    play = Play(turn=turn, stt=ScriptedStt(delay_s=0.25))
    async with play.call() as caller:
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
        await caller.listen("response.done")
    assert caller.at("input_audio_buffer.committed") - last_sound_at == pytest.approx(0.032 + 0.25, abs=0.05)


@virtual
async def test_the_sound_is_weighed_only_together_with_the_words() -> None:
    """Without a transcript, the turn detector's result does not end the turn, even with a probability of 0.99."""
    play = Play(turn=ScriptedTurn(deque([0.99]), delay_s=0.04), stt=ScriptedStt(deque(["And then the"]), delay_s=0.35))
    async with play.call() as caller:
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - last_sound_at > 0.032 + 0.35


@virtual
async def test_later_evidence_ends_a_turn_that_already_waits() -> None:
    """If the transcript is ambiguous, the turn ends as soon as the turn detector returns a high probability.

    Its request starts 200 ms after speech and takes 40 ms.
    """
    play = Play(turn=ScriptedTurn(deque([0.99]), delay_s=0.04), stt=ScriptedStt(deque(["Noon"]), delay_s=0.05))
    async with play.call() as caller:
        await caller.speak(1.0)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    assert caller.at("input_audio_buffer.committed") - last_sound_at == pytest.approx(0.2 + 0.04, abs=0.04)


@virtual
@pytest.mark.parametrize(("end", "silence_s"), [(0.99, 0.2), (0.01, 2.0)])
async def test_the_language_model_is_asked_whether_the_message_ends(end: float, silence_s: float) -> None:
    """If transcript and turn detector are undecided, the language model's probability that the message ends decides.

    The model gets the words without their full stop. `silence_s` is the silence after which the turn ends.
    """
    words = ScriptedStt(deque(["My phone number is."]), delay_s=0.1)
    play = Play(turn=ScriptedTurn(deque([0.5])), stt=words, llm=WordyLlm(message_end=end))
    async with play.call() as caller:
        await caller.speak(0.3)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    judged = [request for request in play.llm.prefills if request.judge_end]
    assert [request.messages[-1].content for request in judged] == ["My phone number is"]
    assert caller.at("input_audio_buffer.committed") - last_sound_at == pytest.approx(silence_s, abs=0.06)


@virtual
async def test_the_language_model_may_be_slow() -> None:
    """If the language model takes over MESSAGE_END_S seconds to judge the message, the turn ends without its result."""
    play = Play(stt=ScriptedStt(delay_s=0.05), llm=WordyLlm(message_end=0.01, prefill_s=5.0))
    async with play.call() as caller:
        await caller.speak(0.3)
        last_sound_at = asyncio.get_running_loop().time()
        await caller.listen("input_audio_buffer.committed")
    waited_s = caller.at("input_audio_buffer.committed") - last_sound_at
    assert waited_s == pytest.approx(0.032 + 0.05 + MESSAGE_END_S, abs=0.04)


@virtual
@pytest.mark.parametrize(("pause_s", "calls"), [(0.12, 1), (0.4, 2)])
async def test_a_short_pause_asks_no_verdict(pause_s: float, calls: int) -> None:
    """A pause shorter than `ask_after_ms` causes no request to the turn detector.

    A longer pause, and the end of the turn, cause one request each.
    """
    turn = ScriptedTurn(deque([0.0, 0.98]) if calls == 2 else deque([0.98]))
    play = Play(turn=turn, stt=ScriptedStt(deque(["What time is it and"]), delay_s=0.5))
    async with play.call() as caller:
        await caller.speak(0.5)
        await caller.hush(pause_s)
        await caller.speak(0.5)
        await caller.listen("response.done")
    assert turn.calls == calls
    assert len(caller.of("input_audio_buffer.committed")) == 1


@virtual
async def test_the_turn_detector_gets_the_silence_too() -> None:
    """The turn detector gets the utterance and the 200 ms of silence before the request (`ask_after_ms`)."""
    turn = ScriptedTurn()
    play = Play(turn=turn, stt=ScriptedStt(delay_s=0.6))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.done")
    (received,) = turn.received
    padding_s = play.settings.speech.prefix_padding_ms / 1000
    assert len(received) / 32_000 == pytest.approx(min(padding_s, 0.02) + 1.0 + 0.2, abs=0.08)


@virtual
async def test_a_host_limits_concurrent_verdicts() -> None:
    """At most AT_ONCE requests of a host to the turn detector run at once; the others wait.

    A waiting request is cancelled if the transcript of its utterance looks complete.
    """
    turn = ScriptedTurn(delay_s=0.12)
    play = Play(turn=turn, stt=ScriptedStt(delay_s=0.3))
    async with play.open() as host, contextlib.AsyncExitStack() as calls:
        callers = [Caller() for _ in range(6)]
        for number, caller in enumerate(callers):
            caller.session = await calls.enter_async_context(host.converse(f"c{number}", caller.take, "rejoinder"))
        await asyncio.gather(*(caller.say(1.0) for caller in callers))
    assert turn.most_at_once <= AT_ONCE
    assert turn.calls < len(callers)
    assert all(len(caller.of("input_audio_buffer.committed")) == 1 for caller in callers)
