"""Guesses where the voice dips, and drafts that begin with them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from actors.stages.ports import ANYWHERE, Priority, SttJob, Transcript
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import EndpointingSettings, InterimTranscriptSettings, Settings
from tests.actors.fakes import ScriptedStt, ScriptedTurn
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

# Words decide nothing, and a turn model in doubt asks for half a second of silence.
PATIENT = EndpointingSettings(finished_probability=0, pause_ms=272)
AT_DIPS = Settings(endpointing=PATIENT, interim_transcripts=InterimTranscriptSettings(every_ms=5000))
BY_THE_CLOCK = AT_DIPS.model_copy(
    update={"interim_transcripts": InterimTranscriptSettings(every_ms=5000, at_dips=False)}
)


@dataclass
class Listener(ScriptedStt):
    """Guesses `guesses` in turn (the last for ever), each in `guess_s`; `doubted`: and is not sure of it."""

    guesses: deque[str] = field(default_factory=lambda: deque(["What time is it?"]))
    guess_s: float = 0.05
    doubted: bool = False
    fails: bool = False

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        if job.priority is not Priority.PARTIAL:
            return await super().transcribe(job, avoid=avoid)
        self.partials.append(job)
        await asyncio.sleep(self.guess_s)
        if self.fails:
            raise BackendError("gone.", stage="stt")
        text = self.guesses.popleft() if len(self.guesses) > 1 else self.guesses[0]
        heard = Transcript(
            text, audio_ms=len(job.pcm) / 32, queue_ms=0.0, decode_ms=self.guess_s * 1000, avg_logprob=-0.2
        )
        return replace(heard, doubted=self.doubted)


def scene(settings: Settings = AT_DIPS, stt: ScriptedStt | None = None) -> Play:
    return Play(settings=settings, turn=ScriptedTurn(deque([0.5])), stt=stt or Listener())


async def say(caller: Caller) -> float:
    """Speak with a falling voice; returns when the last sound was sent."""
    await caller.hush(0.5)
    await caller.speak(1.0)
    await caller.murmur(0.12)
    return asyncio.get_running_loop().time()


@virtual
async def test_a_guess_is_taken_where_the_voice_dips() -> None:
    """By the clock none would be due; it has all that was said, and only one is taken a dip."""
    for settings, expected in ((AT_DIPS, 1), (BY_THE_CLOCK, 0)):
        play = scene(settings)
        async with play.call() as caller:
            await say(caller)
            assert len(play.stt.partials) == expected
            await caller.listen("response.done")
        assert len(play.stt.partials) == expected


@virtual
async def test_the_draft_begins_with_the_guess() -> None:
    """With the soft end, and not 150 ms later with the transcript; its words were read ahead, and they are all."""
    asked: dict[str, float] = {}
    for name, settings in (("with it", AT_DIPS), ("behind", BY_THE_CLOCK)):
        play = scene(settings)
        async with play.call() as caller:
            ended = await say(caller)
            while not play.llm.requests:
                await caller.hush(0.02)
            asked[name] = asyncio.get_running_loop().time() - ended
            done = await caller.listen("response.done")
        assert done["rejoinder"]["drafted"] is True
        assert done["rejoinder"]["unattributed_ms"] <= 1
        assert done["rejoinder"]["stages_ms"]["stt"] == pytest.approx(150 if name == "behind" else 0, abs=1)
        assert len(play.llm.requests) == 1
        assert play.llm.running == 0
        if settings is AT_DIPS:
            newest = play.llm.prefills[-1]
            assert newest.whole
            assert newest.messages == play.llm.requests[0][1].messages
    assert asked["with it"] == pytest.approx(asked["behind"] - 0.15, abs=0.02)


@virtual
async def test_a_guess_that_is_under_way_at_the_soft_end_is_waited_for() -> None:
    """It comes before the transcript does: the draft begins with it."""
    play = scene(stt=Listener(guess_s=0.15))
    async with play.call() as caller:
        await say(caller)
        await caller.hush(0.12)
        assert [request.messages[-1].content for _, request in play.llm.requests] == ["What time is it?"]
        assert not play.stt.jobs, "the transcript was there already"
        await caller.listen("response.done")
    assert play.metrics.counts["draft kept"] == 1


@virtual
async def test_a_dip_soon_behind_a_guess_is_not_missed() -> None:
    """A guess by the clock has just ended; the rest that is due is put off."""
    play = scene(AT_DIPS.model_copy(update={"interim_transcripts": InterimTranscriptSettings(every_ms=1000)}))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.16)
        assert len(play.stt.partials) == 1
        await caller.murmur(0.08)
        assert len(play.stt.partials) == 2
        await caller.listen("response.done")


@virtual
async def test_dips_one_after_another_take_no_more_than_the_share() -> None:
    """Twenty dips in 3.6 s, and guesses of 200 ms for 40% of that time: the rest is put off, and not forgotten."""
    play = scene(stt=Listener(guess_s=0.2))
    async with play.call() as caller:
        await caller.hush(0.5)
        for _ in range(20):
            await caller.speak(0.1)
            await caller.murmur(0.08)
        assert 6 <= len(play.stt.partials) <= 8
        await caller.listen("response.done")


@virtual
async def test_a_last_guess_that_fails_is_the_last() -> None:
    """Behind a soft end nobody guesses at silence, however long the transcript takes."""
    stt = Listener(guess_s=0.15, delay_s=1.0)
    play = scene(
        AT_DIPS.model_copy(update={"interim_transcripts": InterimTranscriptSettings(every_ms=200, share=1)}), stt
    )
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        stt.fails = True
        await caller.murmur(0.12)
        await caller.hush(0.1)
        guessed = len(stt.partials)
        await caller.hush(0.8)
        assert len(stt.partials) == guessed
        await caller.listen("response.done")


@virtual
async def test_words_that_were_misheard_are_answered_anew() -> None:
    """The transcript has others: the client hears one reply, to these."""
    play = scene(stt=Listener(texts=deque(["What time is it in Rome?"])))
    async with play.call() as caller:
        await say(caller)
        done = await caller.listen("response.done")
    asked = [request.messages[-1].content for _, request in play.llm.requests]
    assert asked == ["What time is it?", "What time is it in Rome?"]
    assert len(caller.of("response.created")) == 1
    assert done["rejoinder"]["drafted"] is True
    assert play.metrics.counts["draft renewed"] == play.metrics.counts["draft kept"] == 1
    assert (play.llm.running, play.tts.running) == (0, 0)


@virtual
async def test_another_mark_at_the_end_is_no_other_turn() -> None:
    """The transcript ends with a comma: the draft is kept, and the conversation has the transcript."""
    play = scene(stt=Listener(guesses=deque(["Tell me the time."]), texts=deque(["tell me the time,"])))
    async with play.call() as caller:
        await say(caller)
        await caller.listen("response.done")
        assert caller.session.conversation.messages()[0].content == "tell me the time,"
    assert len(play.llm.requests) == 1
    assert play.metrics.counts["draft renewed"] == 0
    assert play.metrics.counts["draft kept"] == 1


@virtual
async def test_noise_that_was_taken_for_words_is_not_answered() -> None:
    """The guess had words and the transcript has none."""
    play = scene(stt=Listener(texts=deque([""])))
    async with play.call() as caller:
        await say(caller)
        await caller.hush(3)
    assert caller.of("response.created") == []
    assert (play.llm.running, play.tts.running) == (0, 0)


@pytest.mark.parametrize(
    "stt",
    [
        Listener(doubted=True),
        Listener(fails=True),
        Listener(guesses=deque([""])),
    ],
    ids=["doubted", "failed", "empty"],
)
@virtual
async def test_a_guess_that_is_worth_nothing_is_not_believed(stt: Listener) -> None:
    """The reply begins with the transcript, as without it."""
    play = scene(stt=stt)
    async with play.call() as caller:
        await say(caller)
        await caller.hush(0.1)
        assert play.llm.requests == []
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    assert done["rejoinder"]["stages_ms"]["stt"] == pytest.approx(150, abs=1)


@virtual
async def test_a_transcript_that_is_late_is_not_replaced_by_a_guess() -> None:
    """The turn is taken before speech-to-text has confirmed the guess: the reply waits for the words."""
    play = scene(stt=Listener(texts=deque(["What time is it in Rome?"]), delay_s=1.0))
    async with play.call() as caller:
        await say(caller)
        await caller.listen("response.done")
    assert play.llm.requests[-1][1].messages[-1].content == "What time is it in Rome?"
    assert len(caller.of("response.created")) == 1
