"""Tests of the turn detection modes: whether the client or the server ends a turn and requests the reply."""

from __future__ import annotations

import pytest

from tests.actors.asking import TURN, detection, prompts, server_vad
from tests.actors.fakes import CHUNK_SAMPLES
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


@virtual
async def test_without_turn_detection_the_client_commits_and_asks() -> None:
    """Without turn detection no speech events are sent. input_audio_buffer.commit creates the item, and response.create
    the reply.
    """
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
    assert prompts(play)[-1] == [("user", "What time is it?")]
    assert len(play.stt.jobs[0].pcm) == 3 * 32_000
    assert done["rejoinder"]["unattributed_ms"] <= 5


@virtual
async def test_a_client_may_end_the_turn_before_the_silence_does() -> None:
    """If the client commits while the server detects turns, all audio received so far becomes one turn.

    Later audio belongs to the next utterance.
    """
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
    """With create_response=false the server commits the turn. It replies only after the client's response.create."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=detection({"type": "semantic_vad", "create_response": False}))
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.hush(3)
        assert not caller.of("response.created")
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert prompts(play)[-1] == [("user", "What time is it?")]


@virtual
async def test_cleared_audio_is_not_answered() -> None:
    """After input_audio_buffer.clear during an utterance, this audio becomes no turn, and the next utterance is
    complete.
    """
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.ask(type="input_audio_buffer.clear")
        await caller.hush(3.0)
        assert caller.types[-1] == "input_audio_buffer.cleared"
        await caller.say(2.0)
    assert [round(len(job.pcm) / 32_000, 1) for job in play.stt.jobs] == [pytest.approx(2.35, abs=0.1)]


@virtual
async def test_an_idle_caller_is_spoken_to() -> None:
    """server_vad's idle_timeout_ms counts from the end of playback. When it is over, the silence is committed as a turn
    and answered.
    """
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
    assert prompts(play)[-1][-1] == ("user", "(silence)")


@virtual
async def test_an_idle_timeout_ends_with_the_first_word() -> None:
    """If the caller speaks before the idle timeout of 5 s, it does not fire, even if the caller speaks for 12 s."""
    async with Play().call() as caller:
        await caller.ask(type="session.update", session=server_vad(idle_timeout_ms=5000))
        await caller.say()
        await caller.hush(4)
        await caller.speak(12)
        assert not caller.of("input_audio_buffer.timeout_triggered")


@virtual
async def test_audio_that_waits_for_its_decision_holds_the_commit_back() -> None:
    """While received audio waits for a slow voice activity detection, silence by the clock does not end a turn.

    Speech in that audio continues the utterance, which becomes a single turn.
    """
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=500))
        await caller.until("session.updated")
        await caller.speak(1.0)
        await caller.hush(0.44)
        play.vad.delay_s = 0.3
        await caller.speak(1.0)
        await caller.hush(0.8)
        play.vad.delay_s = 0.0
        await caller.listen("response.done")
        stops = [event["audio_end_ms"] for event in caller.of("input_audio_buffer.speech_stopped")]
    assert stops == [pytest.approx(2940, abs=64)]
    assert len(play.stt.jobs[-1].pcm) / 32_000 == pytest.approx(2.5, abs=0.1)
