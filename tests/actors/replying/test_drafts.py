"""Tests of speculative replies (drafts): the time that they save, and that nothing is sent before the commit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from actors.stages.ports import ANYWHERE, LlmRequest, LlmStream, SttJob, Transcript
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import BargeInSettings, EndpointingSettings, Settings, SpeculationSettings
from tests.actors.asking import server_vad
from tests.actors.fakes import ScriptedStt, ScriptedTurn, ToneTts, WordyLlm
from tests.actors.stage_play import APOLOGY_PCM, SOUND_DECIDES, Caller, Play
from tests.actors.virtual_time import run_virtual, virtual

# A turn detector that returns 0.5 requires half a second of silence.
EAGER = Settings(endpointing=EndpointingSettings(table=SOUND_DECIDES, patience_ms=500))
NO_DRAFTS = EAGER.model_copy(update={"speculation": SpeculationSettings(enabled=False)})


def hesitant(settings: Settings = EAGER) -> Play:
    """Return a test scenario whose turn detector returns 0.5, so that half a second of silence ends a turn."""
    return Play(settings=settings, turn=ScriptedTurn(deque([0.5])))


@virtual
async def test_a_draft_overlaps_the_wait_and_its_audio_comes_with_the_commit() -> None:
    """A draft works during the half second of silence, so its audio is sent when the turn is committed.

    Without drafts, the audio comes about 0.17 s later: first token (80 ms), segment (40 ms) and first audio (50 ms).
    """
    waits: dict[bool, float] = {}
    for settings in (EAGER, NO_DRAFTS):
        play = hesitant(settings)
        async with play.call() as caller:
            await caller.hush(0.5)
            done = await caller.say(1.0)
        stopped, audible = caller.at("input_audio_buffer.speech_stopped"), caller.at("response.output_audio.delta")
        waits[settings is EAGER] = audible - stopped
        assert done["rejoinder"]["drafted"] is (settings is EAGER)
        assert (play.llm.running, play.tts.running) == (0, 0)
    assert waits[True] == pytest.approx(0, abs=0.001)
    assert waits[False] == pytest.approx(0.17, abs=0.03)


@virtual
async def test_a_held_draft_waits_for_the_decision_alone() -> None:
    """If a draft is ready before the commit, its wait for the end of the silence counts for the stage ENDPOINT.

    Delivery takes at most 1 ms.
    """
    play = hesitant()
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    stages = done["rejoinder"]["stages_ms"]
    assert stages["stt"] == pytest.approx(150, abs=1)
    assert stages["llm_first_token"] == pytest.approx(10 + 80, abs=1)  # 10 ms for the prefill, 80 ms for the token
    assert stages["endpoint"] == pytest.approx(500 - 64 - 150 - 80 - 40 - 50, abs=40)
    assert stages["delivery"] <= 1
    assert done["rejoinder"]["unattributed_ms"] <= 1
    assert sum(stages.values()) == pytest.approx(done["rejoinder"]["server_ms"], abs=1.5)


@virtual
async def test_resumed_speech_discards_the_draft_and_stops_its_engines() -> None:
    """If the caller continues, the draft is discarded: no event, no text in the conversation, no running engine."""
    play = hesitant()
    play.stt = ScriptedStt(deque(["I would like", "I would like a taxi."]))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.35)  # long enough for the draft to have audio
        assert play.tts.texts, "the draft had no time to speak"
        done = await caller.say(0.5)
    assert len(caller.of("response.created")) == 1
    assert done["response"]["status"] == "completed"
    said = [request.messages[-1].content for _, request in play.llm.requests]
    assert said == ["I would like", "I would like a taxi."]
    assert play.metrics.counts["draft begun"] == 2
    assert play.metrics.counts["draft discarded"] == play.metrics.counts["draft discarded_ready"] == 1
    assert play.metrics.counts["draft kept"] == 1
    assert (play.llm.running, play.tts.running) == (0, 0)


@virtual
async def test_a_draft_that_is_discarded_before_its_audio_is_not_counted_as_ready() -> None:
    """A draft that is discarded before its first audio counts as discarded, and not as ready."""
    play = hesitant()
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.15)  # long enough for the transcript, and not for the draft's audio
        await caller.say(0.5)
    assert play.metrics.counts["draft discarded"] == 1
    assert play.metrics.counts["draft discarded_ready"] == 0


@virtual
async def test_only_the_first_segment_of_a_draft_is_spoken_before_the_commit() -> None:
    """Before the commit only the first segment of a draft is synthesized."""
    play = hesitant()
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.4)
        assert len(play.tts.texts) == 1
        await caller.listen("response.done")
    assert len(play.tts.texts) > 1


@virtual
async def test_a_draft_with_outdated_instructions_is_discarded() -> None:
    """If the instructions change before the commit, the draft is discarded and the reply uses the new instructions."""
    play = hesitant()
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.35)
        await caller.ask(type="session.update", session={"type": "realtime", "instructions": "Speak like a pirate."})
        done = await caller.listen("response.done")
    assert done["rejoinder"]["drafted"] is False
    assert play.llm.requests[-1][1].messages[0].content == "Speak like a pirate."
    assert play.metrics.counts["draft discarded"] == 1


@virtual
async def test_silence_after_noise_is_not_drafted() -> None:
    """For a noise, whose transcript is empty, the language model is not called, neither before nor after the commit."""
    play = hesitant()
    play.stt = ScriptedStt(deque([""]))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(0.5)
        await caller.hush(3)
    assert play.llm.requests == []
    assert caller.of("response.created") == []


@virtual
async def test_a_draft_that_fails_says_so_only_after_the_commit() -> None:
    """If text-to-speech fails twice during a draft, the draft still becomes the completed answer after the commit."""
    play = hesitant()
    play.tts = ToneTts(failures=2)
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    assert done["response"]["status"] == "completed"
    assert done["rejoinder"]["drafted"] is True


@virtual
async def test_a_draft_waits_behind_an_apology_that_is_being_spoken() -> None:
    """If an apology for failing voice activity detection is being spoken, the draft's response begins after it.

    The apology is a separate response.
    """
    play = Play(settings=EAGER, stt=ScriptedStt(delay_s=0.02), apology=APOLOGY_PCM * 4)
    play.llm = WordyLlm(ttft_s={"a": 0.02, "b": 0.02}, gap_s=0.001)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(0.3)
        play.vad.fault = BackendError("gone.", stage="vad")
        await caller.speak(0.9)
        play.vad.fault = None
        await caller.listen("response.done", 2)
    statuses = [done["response"]["status"] for done in caller.of("response.done")]
    assert statuses == ["completed", "completed"]


@virtual
async def test_server_vad_is_drafted_too_and_keeps_its_silence() -> None:
    """With server_vad too, a draft is made, and its answer is sent exactly when the configured silence is over."""
    play = hesitant()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(silence_duration_ms=700))
        await caller.hush(0.5)
        await caller.say(1.0)
    stopped = caller.of("input_audio_buffer.speech_stopped")[0]
    assert stopped["audio_end_ms"] == pytest.approx(500 + 1000 + 700, abs=40)
    delay = caller.at("response.output_audio.delta") - caller.at("input_audio_buffer.speech_stopped")
    assert delay == pytest.approx(0, abs=0.001)


# -- random pauses -----------------------------------------------------------------------------------------------------


@dataclass
class CountingStt:
    """Fake speech-to-text whose transcript states the number of audible 20 ms frames in its audio."""

    delays: random.Random
    jobs: list[SttJob] = field(default_factory=list)

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        await asyncio.sleep(self.delays.uniform(0.02, 0.4))
        self.jobs.append(job)
        return Transcript(
            f"I spoke {loud_frames(job.pcm)} frames and", audio_ms=0.0, queue_ms=0.0, decode_ms=0.0, avg_logprob=-0.2
        )


def loud_frames(pcm: bytes) -> int:
    """Return the number of 20 ms frames that are not silent; frames of quiet speech count."""
    frames = np.frombuffer(pcm[: len(pcm) // 640 * 640], "<i2").reshape(-1, 320)
    return int((np.abs(frames).max(axis=1) > 300).sum())


@dataclass
class EchoLlm(WordyLlm):
    """Fake language model that repeats the caller's words, so that a reply shows which revision it answers."""

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        self.answer = f"You said: {request.messages[-1].content} you see."
        async with super().open(request, avoid=avoid, strict=strict, only=only) as stream:
            yield stream


async def _wander(caller: Caller, rng: random.Random) -> None:
    """Speak and pause at random in 20 rounds, then be silent for 20 s. Some pauses are long enough for drafts."""
    await caller.hush(0.5)
    for _ in range(20):
        for _ in range(rng.randint(1, 4)):
            await caller.speak(rng.uniform(0.2, 1.2))
            await caller.murmur(rng.choice([0, rng.uniform(0.03, 0.5)]))
            await caller.hush(rng.choice([0, rng.uniform(0.06, 0.6)]))
        await caller.hush(rng.uniform(0.2, 4.0))
    await caller.hush(20)


@pytest.mark.parametrize("seed", range(50))
def test_no_word_of_a_discarded_revision_reaches_the_client(seed: int) -> None:
    """With random pauses, every answer that is sent answers the whole turn and not only the words before a pause."""
    counts = run_virtual(_answers_are_whole(seed))
    assert counts["draft discarded"] > 0, "nobody went on after a pause: nothing was tried"


@pytest.mark.parametrize("seed", range(50, 70))
def test_no_word_of_a_wrong_interim_transcript_reaches_the_client(seed: int) -> None:
    """Also if drafts begin with wrong interim transcripts, every answer that is sent answers the final words of its
    turn.
    """
    counts = run_virtual(_answers_are_whole(seed))
    assert counts["draft renewed"] > 0, "no guess was wrong"


async def _answers_are_whole(seed: int) -> Counter[str]:
    rng = random.Random(seed)
    # The fake language model repeats the caller's words. Without this setting they would count as an echo of the reply.
    play = hesitant(EAGER.model_copy(update={"barge_in": BargeInSettings(echo_guard=False)}))
    play.turn = ScriptedTurn(deque([rng.choice([0.3, 0.5, 0.7, 0.9, None]) for _ in range(100)]), delay_s=0.05)
    play.stt = CountingStt(random.Random(seed + 1))  # type: ignore[assignment]
    play.llm = EchoLlm()
    async with play.call() as caller:
        await caller.ask(
            type="session.update",
            session={"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}},
        )
        await _wander(caller, rng)
    heard = {
        event["item_id"]: event["transcript"]
        for event in caller.of("conversation.item.input_audio_transcription.completed")
    }
    answers = Counter[str]()
    for done in caller.of("response.done"):
        item_id = done["rejoinder"].get("item_id")
        if item_id is None:
            continue  # this reply was cancelled before it was audible
        answers[item_id] += 1
        said = "".join(part["transcript"] for part in done["response"]["output"][0]["content"])
        if done["response"]["status"] == "completed":
            assert said == f"You said: {heard[item_id]} you see."
        else:
            assert f"You said: {heard[item_id]} you see.".startswith(said)
    assert not answers or max(answers.values()) == 1
    return play.metrics.counts
