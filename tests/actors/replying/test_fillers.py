"""Tests of prepared clips (held clips), which are played without an engine: greeting, set phrases and fillers."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from rejoinder.core.errors import BackendError
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.settings.settings import ConversationSettings, EndpointingSettings, Settings, SpeculationSettings
from tests.actors.asking import message, prompts, server_vad
from tests.actors.fakes import ANSWER, ScriptedStt, ScriptedTurn, ToneTts, WordyLlm, voice
from tests.actors.stage_play import APOLOGY_PCM, SOUND_DECIDES, Caller, Play
from tests.actors.virtual_time import virtual

FILLER = HeldClip("Let me see.", b"\x11\x11" * 12_000)
GREETING = HeldClip("Hello, how can I help you?", b"\x22\x22" * 24_000)
SURE = HeldClip("Sure.", b"\x33\x33" * 9_600)
BUDGET_S = 1.5


def settings(drafts: bool = False, **conversation: Any) -> Settings:
    return Settings(
        conversation=ConversationSettings(**{"filler_after_ms": BUDGET_S * 1000, **conversation}),
        speculation=SpeculationSettings(enabled=drafts),
    )


def slow(ttft_s: float, **kept: Any) -> Play:
    """Return a test scenario whose language model takes `ttft_s` seconds to its first token.

    `kept` are further arguments of `settings`.
    """
    play = Play(settings=settings(**kept), fillers=(FILLER,))
    play.llm = WordyLlm(ttft_s={"a": ttft_s, "b": ttft_s})
    return play


def filler_at(caller: Caller) -> float:
    """Return how many seconds after the caller's last speech the filler began.

    The caller must have sent half a second of silence and then one second of speech.
    """
    found = next(at for at, event in caller.events if event.get("delta") == FILLER.text)
    return found - (caller.events[0][0] + 1.5)


# -- fillers -----------------------------------------------------------------------------------------------------------


@virtual
async def test_a_late_answer_is_preceded_by_a_filler() -> None:
    """An answer after four seconds is preceded by one filler within `filler_after_ms`, in the same response.

    The filler is not in the conversation. The reported latency is that of the answer's first audio.
    """
    play = slow(4.0)
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
        assert filler_at(caller) == pytest.approx(BUDGET_S - 0.3, abs=0.15)
        assert len(caller.of("response.created")) == 1
        assert caller.audio.startswith(FILLER.pcm)
        assert caller.audio.count(FILLER.pcm) == 1
        assert caller.transcript == f"{FILLER.text} {ANSWER}"
        await caller.hush(30)
        await caller.say(1.0)
    assert [text for role, text in prompts(play)[-1] if role == "assistant"] == [ANSWER]
    report = done["rejoinder"]
    assert report["server_ms"] == pytest.approx(4000 + 64 + 150 + 40 + 50, abs=150)
    assert report["stages_ms"]["llm_first_token"] == pytest.approx(4000, abs=1)
    assert report["filler_ms"] == pytest.approx(filler_at(caller) * 1000, abs=30)
    assert report["answer_from_ms"] == len(FILLER.pcm) // 48
    assert play.metrics.counts["filler"] == 2


@virtual
async def test_an_answer_within_the_budget_has_none() -> None:
    """If the first audio of the answer comes within `filler_after_ms`, no filler is played, even if it is long."""
    play = slow(0.8)
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    assert done["rejoinder"]["filler_ms"] is None
    assert done["rejoinder"]["answer_from_ms"] == 0
    assert play.metrics.counts["filler"] == 0


@virtual
async def test_a_host_that_has_grown_slow_fills_at_once() -> None:
    """After seven answers that took four seconds each, the next one gets a filler within 0.1 s of the end of speech."""
    play = slow(4.0)
    waits = []
    async with play.call() as caller:
        await caller.hush(0.5)
        for number in range(8):
            await caller.say(1.0)
            spoken = [at for at, event in caller.events if event.get("delta") in (FILLER.text, f" {FILLER.text}")]
            waits.append(spoken[number] - caller.at("input_audio_buffer.speech_stopped", number + 1))
            await caller.hush(10)
    assert waits[0] > 0.7
    assert waits[-1] == pytest.approx(0, abs=0.1)


@virtual
async def test_a_noise_is_not_answered_by_a_filler() -> None:
    """A turn without words gets no filler, however late its transcript is."""
    play = slow(0.1)
    play.stt = ScriptedStt(deque([""]), delay_s=3.0)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(8)
    assert caller.of("response.created") == []
    assert play.metrics.counts["filler"] == 0


@virtual
async def test_a_draft_fills_only_after_its_turn_was_taken() -> None:
    """If a draft's answer is late, its filler is played only after the commit of the draft's turn."""
    play = slow(5.0, drafts=True)
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=3000))
        await caller.hush(0.5)
        done = await caller.say(1.0)
        stopped = caller.at("input_audio_buffer.speech_stopped")
        filled = next(at for at, event in caller.events if event.get("delta") == FILLER.text)
    assert done["rejoinder"]["drafted"] is True
    assert filled >= stopped
    assert filled == pytest.approx(stopped, abs=0.05)


@virtual
async def test_a_discarded_draft_leaves_no_filler() -> None:
    """If a draft is discarded, it plays no filler, and at most one filler is played for the reply that follows."""
    play = slow(1.3, drafts=True)
    play.turn = ScriptedTurn(deque([0.0]))
    play.settings = play.settings.model_copy(update={"endpointing": EndpointingSettings(table=SOUND_DECIDES)})
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.6)
        await caller.speak(0.5)
        await caller.listen("response.done")
    assert play.metrics.counts["draft discarded"] >= 1
    assert play.metrics.counts["filler"] <= 1
    assert caller.audio.count(FILLER.pcm) == play.metrics.counts["filler"]


@virtual
async def test_the_caller_interrupts_a_filler() -> None:
    """A barge-in during a filler cancels the reply, and the conversation keeps only the caller's turns."""
    play = slow(30.0)
    play.fillers = (HeldClip(FILLER.text, FILLER.pcm * 8),)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        play.llm.ttft_s = {"a": 0.1, "b": 0.1}
        await caller.speak(1.0)
        await caller.listen("response.done", 2)
    first, second = caller.of("response.done")
    assert first["response"]["status"] == "cancelled"
    assert second["response"]["status"] == "completed"
    assert len(caller.audio) < len(FILLER.pcm * 8) + len(voice(ANSWER))
    assert [role for role, _ in prompts(play)[-1]] == ["user", "user"]


@virtual
async def test_an_apology_is_followed_by_no_filler() -> None:
    """If an apology was played just before an answer, the answer has no filler."""
    play = slow(2.5)
    play.apology = APOLOGY_PCM * 3
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(0.5)
        play.vad.fault = BackendError("gone.", stage="vad")
        await caller.speak(1.0)
        play.vad.fault = None
        await caller.listen("response.done", 2)
    assert caller.audio.startswith(APOLOGY_PCM)
    assert play.metrics.counts["filler"] == 0


@virtual
async def test_the_echo_of_a_filler_is_no_turn() -> None:
    """If the microphone picks up a filler, this echo neither interrupts the reply nor becomes a turn."""
    play = slow(6.0)
    play.stt = ScriptedStt(deque(["What time is it?", "Let me see."]))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.speak(0.6)
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    assert len(caller.of("response.created")) == len(play.llm.requests) == 1


@virtual
async def test_a_failing_stage_apologises_after_a_filler() -> None:
    """If a stage fails after a filler, the apology follows the filler. Each is played once, and they do not overlap."""
    play = slow(0.1)
    play.llm.fault = BackendError("gone.", stage="llm")
    play.settings = settings(apology_after_ms=3000)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(6)
        play.llm.fault = None
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    assert caller.audio.startswith(FILLER.pcm + APOLOGY_PCM)
    assert caller.audio.count(FILLER.pcm) == caller.audio.count(APOLOGY_PCM) == 1


@pytest.mark.parametrize("after_ms", [0])
@virtual
async def test_switched_off_there_is_none(after_ms: float) -> None:
    """With `filler_after_ms=0` no filler is played. A response to a written message has no filler either."""
    play = slow(4.0, filler_after_ms=after_ms)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
    assert play.metrics.counts["filler"] == 0
    asked = slow(4.0)
    async with asked.call() as caller:
        await caller.ask(type="conversation.item.create", item=message("Hello."))
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert asked.metrics.counts["filler"] == 0


# -- set phrases -------------------------------------------------------------------------------------------------------


@virtual
async def test_a_segment_with_the_words_of_a_phrase_is_spoken_from_what_is_held() -> None:
    """A segment with the words of a prepared clip is played from the clip and not synthesized."""
    play = Play(settings=settings(), phrases=(SURE,), llm=WordyLlm("Sure. The train leaves at noon."))
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    assert play.tts.texts == ["The train leaves at noon."]
    assert caller.audio.startswith(SURE.pcm)
    assert caller.transcript == "Sure. The train leaves at noon."
    assert done["rejoinder"]["stages_ms"]["tts_first_audio"] == 0
    assert done["rejoinder"]["unattributed_ms"] <= 1


@virtual
async def test_at_another_speed_it_is_synthesized() -> None:
    """If the client sets another speed, speech is synthesized and not taken from the prepared clips."""
    play = Play(settings=settings(), phrases=(SURE,), llm=WordyLlm("Sure. The train leaves at noon."))
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "audio": {"output": {"speed": 1.2}}})
        await caller.hush(0.5)
        await caller.say(1.0)
    assert play.tts.texts[0] == "Sure."


# -- the greeting ------------------------------------------------------------------------------------------------------


def greeting(**kept: Any) -> Play:
    return Play(settings=settings(greeting=GREETING.text, **kept), phrases=(GREETING,))


@virtual
async def test_a_configured_session_is_greeted_from_what_is_held() -> None:
    """After the first session.update the greeting is played once, as a response that needs no engine.

    The greeting is in the prompt of the next turn.
    """
    play = greeting()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad())
        done = await caller.listen("response.done")
        assert caller.audio == GREETING.pcm
        assert play.tts.texts == []
        assert play.llm.requests == []
        assert done["response"]["output"][0]["content"][0]["transcript"] == GREETING.text
        await caller.hush(2)
        await caller.say(1.0)
        await caller.ask(type="session.update", session=server_vad())
        await caller.hush(2)
    assert prompts(play)[0][0] == ("assistant", GREETING.text)
    assert len(caller.of("response.done")) == 2


@virtual
async def test_a_caller_who_speaks_first_is_greeted_too() -> None:
    """Audio before any session.update starts the greeting, and speech over the greeting cancels it."""
    play = greeting()
    play.phrases = (HeldClip(GREETING.text, GREETING.pcm * 5),)
    async with play.call() as caller:
        await caller.hush(0.3)
        assert len(caller.of("response.created")) == 1
        await caller.speak(1.0)
        await caller.listen("response.done", 2)
    assert [done["response"]["status"] for done in caller.of("response.done")] == ["cancelled", "completed"]


@virtual
async def test_a_conversation_in_writing_or_under_way_is_not_greeted() -> None:
    """A session with replies in text, or whose conversation already has items, gets no greeting."""
    play = greeting()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
        await caller.hush(1)
    assert caller.of("response.created") == []
    async with greeting().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("Hello."))
        await caller.hush(1)
    assert caller.of("response.created") == []


@virtual
async def test_the_greeting_is_off_by_default() -> None:
    """By default there is no greeting."""
    play = Play(tts=ToneTts())
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad())
        await caller.hush(1)
    assert caller.of("response.created") == []
