"""Tests of failing stages: the turn is still answered, nothing is spoken twice, and an apology breaks the silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.settings.settings import ConversationSettings, EndpointingSettings, Settings
from tests.actors.fakes import ANSWER, ScriptedStt, ToneTts, WordyLlm, open_words, voice
from tests.actors.stage_play import APOLOGY_PCM, SOUND_DECIDES, Caller, Play
from tests.actors.virtual_time import virtual

APOLOGY = ConversationSettings().apology
FAILURE = ConversationSettings().failure
GIVES_UP_SOON = Settings(conversation=ConversationSettings(give_up_after_s=5))
GONE = BackendError("gone.", stage="any", replica="any-1")
BUG = ZeroDivisionError("a bug in a stage")

Break = Callable[[Play, Exception | None], None]


def break_stt(play: Play, fault: Exception | None) -> None:
    play.stt.fault = fault


def break_llm(play: Play, fault: Exception | None) -> None:
    play.llm.fault = fault


def break_tts(play: Play, fault: Exception | None) -> None:
    play.tts.fault = fault


def break_vad(play: Play, fault: Exception | None) -> None:
    play.vad.fault = fault


def break_turn(play: Play, fault: Exception | None) -> None:
    play.turn.fault = fault


STAGES = {"stt": break_stt, "llm": break_llm, "tts": break_tts, "vad": break_vad, "turn_detector": break_turn}
BEHIND_THE_COMMIT = {name: STAGES[name] for name in ("stt", "llm", "tts")}


def now() -> float:
    return asyncio.get_running_loop().time()


def statuses(caller: Caller) -> list[str]:
    return [event["response"]["status"] for event in caller.of("response.done")]


def sound(play: Play) -> bytes:
    """Return the synthesized audio of all segments that were requested, in order; a repeated segment counts once."""
    return b"".join(voice(text) for text in dict.fromkeys(play.tts.texts))


@virtual
async def test_a_transcript_that_fails_once_is_asked_again_elsewhere() -> None:
    """If a transcription fails once, it is repeated on another replica, and the turn is answered normally."""
    play = Play(stt=ScriptedStt(failures=1))
    async with play.call() as caller:
        await caller.say()
    assert statuses(caller) == ["completed"]
    assert caller.transcript == ANSWER
    assert play.stt.avoided == [frozenset(), frozenset({"stt-1"})]
    assert play.metrics.counts["backend stt"] == 1


@pytest.mark.parametrize("name", BEHIND_THE_COMMIT)
@virtual
async def test_a_failing_stage_is_apologised_for_and_awaited(name: str) -> None:
    """If a stage fails, an apology is audible within 1.5 s after the question.

    When the stage works again, the same response continues with the answer.
    """
    play = Play()
    async with play.call() as caller:
        await caller.hush(0.5)
        STAGES[name](play, GONE)
        await caller.speak(1.0)
        spoke = now()
        await caller.listen("response.output_audio.delta")
        assert now() - spoke <= 1.5
        assert caller.transcript == APOLOGY
        await caller.hush(3.0)
        STAGES[name](play, None)
        done = await caller.listen("response.done")
    assert statuses(caller) == ["completed"]
    assert caller.transcript == f"{APOLOGY} {ANSWER}"
    assert caller.audio == APOLOGY_PCM + sound(play)
    assert done["response"]["output"][0]["content"][0]["transcript"] == ANSWER
    # The measured turn lasts until the first audio of the answer, and not of the apology.
    assert done["rejoinder"]["server_ms"] > 3000
    assert done["rejoinder"]["unattributed_ms"] <= 5


@virtual
async def test_another_replica_answers_for_a_dead_one() -> None:
    """If replica a is dead, replica b answers, without an apology."""
    play = Play(llm=WordyLlm(dead={"a"}))
    async with play.call() as caller:
        await caller.say()
    assert caller.transcript == ANSWER
    assert [replica for replica, _ in play.llm.requests] == ["a", "b"]


@pytest.mark.parametrize("words", range(1, 16))
@virtual
async def test_a_broken_answer_is_continued_elsewhere(words: int) -> None:
    """If replica a fails after any number of words, replica b continues after the received text. No word is repeated or
    lost.
    """
    play = Play(llm=WordyLlm(break_after={"a": words}))
    async with play.call() as caller:
        done = await caller.say()
    assert statuses(caller) == ["completed"]
    assert caller.transcript == ANSWER
    assert caller.audio == sound(play)
    (first, asked), (second, resumed) = play.llm.requests
    assert (first, second) == ("a", "b")
    assert resumed.prefix == " ".join(ANSWER.split()[:words]) + " "
    assert resumed.max_tokens == asked.max_tokens - words
    assert done["response"]["usage"]["output_tokens"] == 16 - words


@pytest.mark.parametrize("chunks", [0, 1, 5, 10])
@virtual
async def test_a_broken_segment_resumes_where_it_broke(chunks: int) -> None:
    """If the synthesis of a segment fails after some chunks, it is repeated, and no audio is sent twice or lost."""
    play = Play(tts=ToneTts(failures=1, fail_after=chunks))
    async with play.call() as caller:
        await caller.say()
    assert statuses(caller) == ["completed"]
    assert caller.transcript == ANSWER
    assert caller.audio == sound(play)
    assert len(play.tts.texts) == len(set(play.tts.texts)) + 1


@virtual
async def test_a_vad_failure_during_speech_loses_no_audio() -> None:
    """If voice activity detection fails while the caller speaks, an apology is audible within 1.5 s.

    After the failure the turn is answered, and all of its audio is transcribed.
    """
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        play.vad.fault = GONE
        broke = now()
        speaking = asyncio.create_task(caller.speak(1.0))
        await caller.until("response.output_audio.delta")
        assert now() - broke <= 1.5
        await speaking
        await caller.hush(2.0)
        assert not caller.of("input_audio_buffer.committed")
        play.vad.fault = None
        await caller.listen("response.done", 2)
    assert statuses(caller) == ["completed", "completed"]
    assert caller.transcript == APOLOGY + ANSWER
    assert len(play.stt.jobs) == 1
    assert len(play.stt.jobs[0].pcm) / 32_000 == pytest.approx(2.1, abs=0.1)
    assert play.metrics.counts["backend vad"] > 1


@virtual
async def test_a_vad_failure_in_silence_is_not_audible() -> None:
    """If voice activity detection fails while the caller is silent, there is no apology."""
    play = Play()
    async with play.call() as caller:
        play.vad.fault = GONE
        await caller.hush(5.0)
        assert caller.types == ["session.created"]
        play.vad.fault = None
        await caller.say()
    assert statuses(caller) == ["completed"]


@virtual
async def test_speech_during_a_vad_failure_is_answered() -> None:
    """A caller who begins to speak while voice activity detection fails gets an apology, and then an answer."""
    play = Play()
    async with play.call() as caller:
        play.vad.fault = TimeoutError()
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        play.vad.fault = None
        await caller.listen("response.done", 2)
    assert caller.transcript == APOLOGY + ANSWER


@virtual
async def test_a_failing_turn_detector_costs_the_fallback_silence() -> None:
    """If the turn detector fails and no words are known, `fallback_silence_ms` (1 s) of silence ends the turn."""
    play = Play(Settings(endpointing=EndpointingSettings(table=SOUND_DECIDES)), stt=ScriptedStt(delay_s=1.2))
    async with play.call() as caller:
        play.turn.fault = Overloaded("full.")
        await caller.speak(1.0)
        spoke = now()
        await caller.listen("input_audio_buffer.committed")
        assert now() - spoke == pytest.approx(1.0, abs=0.05)
        await caller.until("response.done")
    assert play.metrics.counts["overload turn_detector"] == 1


@pytest.mark.parametrize("fault", [GONE, Overloaded("full.")], ids=["away", "overloaded"])
@pytest.mark.parametrize("name", BEHIND_THE_COMMIT)
@virtual
async def test_a_dead_stage_fails_the_turn_and_not_the_session(name: str, fault: Exception) -> None:
    """If a stage fails for give_up_after_s, the caller hears one apology and then a sentence: the agent cannot answer.

    The response has failed. The next turn is answered.
    """
    play = Play(settings=GIVES_UP_SOON)
    async with play.call() as caller:
        STAGES[name](play, fault)
        await caller.speak(1.0)
        spoke = now()
        failed = await caller.listen("response.done")
        assert 5 <= now() - spoke <= 10
        assert failed["response"]["status_details"]["error"]["code"] == f"{name}_unavailable"
        assert caller.transcript == f"{APOLOGY} {FAILURE}"
        STAGES[name](play, None)
        await caller.hush(4)
        await caller.say()
    assert statuses(caller) == ["failed", "completed"]
    assert caller.transcript.endswith(ANSWER)


@virtual
async def test_a_failed_transcript_is_reported() -> None:
    """If a turn cannot be transcribed, a client that configured transcription gets a transcription.failed event."""
    play = Play(settings=GIVES_UP_SOON)
    async with play.call() as caller:
        transcription = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        await caller.ask(type="session.update", session=transcription)
        play.stt.fault = GONE
        await caller.speak(1.0)
        failed = await caller.listen("conversation.item.input_audio_transcription.failed")
    assert failed["item_id"] == caller.of("input_audio_buffer.committed")[0]["item_id"]


@virtual
async def test_an_answer_that_is_given_up_keeps_what_was_said() -> None:
    """If an answer fails after its first sentence was heard, the next prompt has only this sentence of it."""
    play = Play(settings=GIVES_UP_SOON, llm=WordyLlm(break_after={"a": 5}, gap_s=0.5))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        play.llm.fault = GONE
        failed = await caller.listen("response.done")
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["output"][0]["content"][0]["transcript"] == "It is noon."
        play.llm.fault, play.llm.break_after = None, {}
        await caller.hush(4)
        await caller.say()
    assert play.llm.requests[-1][1].messages[2].content == "It is noon."


@pytest.mark.parametrize("name", STAGES)
@virtual
async def test_a_bug_in_a_stage_does_not_end_the_session(name: str) -> None:
    """An unexpected exception of a stage is counted as an internal error, and the session answers its next turn."""
    play = Play(settings=GIVES_UP_SOON, stt=open_words())
    async with play.call() as caller:
        STAGES[name](play, BUG)
        await caller.speak(1.0)
        await caller.hush(12)
        STAGES[name](play, None)
        await caller.hush(20)
        before = len(caller.of("response.done"))
        await caller.speak(1.0)
        await caller.listen("response.done", before + 1)
    assert statuses(caller)[-1] == "completed"
    assert sum(count for kind, count in play.metrics.counts.items() if kind.startswith("internal")) >= 1


@virtual
async def test_a_transcript_that_fails_is_apologised_for_in_manual_mode_too() -> None:
    """Also if the client commits the turn (no turn detection), a failing transcript causes an apology and then the
    answer.
    """
    play = Play()
    async with play.call() as caller:
        manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        await caller.ask(type="session.update", session=manual)
        await caller.speak(1.0)
        play.stt.fault = GONE
        await caller.ask(type="input_audio_buffer.commit")
        await caller.ask(type="response.create")
        await caller.until("response.output_audio.delta")
        assert caller.transcript == APOLOGY
        play.stt.fault = None
        await caller.until("response.done")
    assert caller.transcript == f"{APOLOGY} {ANSWER}"


@virtual
async def test_an_apology_gives_way_to_the_caller() -> None:
    """Speech over an apology cancels it. Both turns of the caller are answered once the stage works again."""
    play = Play()
    async with play.call() as caller:
        play.llm.fault = GONE
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.speak(0.2)
        silent = len(caller.audio)
        await caller.speak(0.3)
        assert len(caller.audio) == silent
        play.llm.fault = None
        await caller.listen("response.done", 2)
    assert statuses(caller) == ["cancelled", "completed"]
    assert [m.role for m in play.llm.requests[-1][1].messages] == ["system", "user", "user"]


@pytest.mark.parametrize("name", BEHIND_THE_COMMIT)
@virtual
async def test_a_stage_that_hangs_is_a_stage_that_failed(name: str) -> None:
    """A call of a stage that never returns is repeated after `call_timeout_s`.

    The answer is audible less than a second after that.
    """
    hedgeless = Settings.model_validate({"hedging": {"enabled": False}})
    play = Play(hedgeless, stt=ScriptedStt(hangs=name == "stt"), llm=WordyLlm(hangs=name == "llm"))
    play.tts.hangs = int(name == "tts")
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = now()
        await caller.listen("response.done")
    timeout_s = getattr(play.settings, name).call_timeout_s
    assert timeout_s < caller.at("response.output_audio.delta") - spoke < timeout_s + 1
    assert caller.transcript == ANSWER


@pytest.mark.parametrize("name", ["llm", "tts"])
@virtual
async def test_a_stage_slower_than_its_timeout_answers_in_the_end(name: str) -> None:
    """After a timeout, a language model or speech synthesis request is repeated with a longer timeout.

    A stage that takes 1.5 timeouts to its first output therefore answers.
    """
    hedgeless = Settings.model_validate({"hedging": {"enabled": False}, "breaker": {"silence_ms": 60_000}})
    slow_s = 1.5 * getattr(hedgeless, name).call_timeout_s
    play = Play(hedgeless)
    if name == "llm":
        play.llm.ttft_s = {"a": slow_s, "b": slow_s}
    else:
        play.tts.delay_s = slow_s
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.done")
    assert statuses(caller) == ["completed"]
    assert ANSWER in caller.transcript
