"""Tests of interim transcripts at dips (falls of the voice by 20 dB), and of drafts that begin with them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from actors.stages.ports import ANYWHERE, Priority, SttJob, Transcript
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import EndpointingSettings, InterimTranscriptSettings, Settings
from rejoinder.core.turns.transcript_ending import bare_words
from tests.actors.fakes import ScriptedStt, ScriptedTurn
from tests.actors.stage_play import SOUND_DECIDES, Caller, Play
from tests.actors.virtual_time import virtual

# The transcript does not decide the end of turn. A turn detector that returns 0.5 requires half a second of silence.
PATIENT = EndpointingSettings(table=SOUND_DECIDES, patience_ms=500)
AT_DIPS = Settings(endpointing=PATIENT, interim_transcripts=InterimTranscriptSettings(every_ms=5000))
BY_THE_CLOCK = AT_DIPS.model_copy(
    update={"interim_transcripts": InterimTranscriptSettings(every_ms=5000, at_dips=False)}
)


@dataclass
class Listener(ScriptedStt):
    """Fake speech-to-text whose interim transcripts are `guesses` in order (the last is repeated).

    Each interim transcript takes `guess_s` seconds. If `low_confidence` is set, interim transcripts have low
    confidence. If `fails` is set, requests for them fail.
    """

    guesses: deque[str] = field(default_factory=lambda: deque(["What time is it?"]))
    guess_s: float = 0.05
    low_confidence: bool = False
    fails: bool = False

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        if job.priority is not Priority.INTERIM:
            return await super().transcribe(job, avoid=avoid)
        self.partials.append(job)
        await asyncio.sleep(self.guess_s)
        if self.fails:
            raise BackendError("gone.", stage="stt")
        text = self.guesses.popleft() if len(self.guesses) > 1 else self.guesses[0]
        heard = Transcript(
            text, audio_ms=len(job.pcm) / 32, queue_ms=0.0, decode_ms=self.guess_s * 1000, avg_logprob=-0.2
        )
        return replace(heard, low_confidence=self.low_confidence)


def scene(settings: Settings = AT_DIPS, stt: ScriptedStt | None = None) -> Play:
    """Return a test scenario with these settings, whose turn detector always returns a probability of 0.5."""
    return Play(settings=settings, turn=ScriptedTurn(deque([0.5])), stt=stt or Listener())


async def say(caller: Caller) -> float:
    """Send 0.5 s of silence, 1 s of speech and 0.12 s of quiet speech (a dip). Return the time after it in seconds."""
    await caller.hush(0.5)
    await caller.speak(1.0)
    await caller.murmur(0.12)
    return asyncio.get_running_loop().time()


@virtual
async def test_a_dip_causes_an_interim_transcript() -> None:
    """A dip causes one interim transcript before the usual interval is over. With `at_dips=False` it causes none."""
    for settings, expected in ((AT_DIPS, 1), (BY_THE_CLOCK, 0)):
        play = scene(settings)
        async with play.call() as caller:
            await say(caller)
            assert len(play.stt.partials) == expected
            await caller.listen("response.done")
        assert len(play.stt.partials) == expected


@virtual
async def test_a_draft_begins_with_the_interim_transcript() -> None:
    """A draft begins with the interim transcript of a dip as soon as speech tentatively ends.

    It does not wait 150 ms for the final transcript. Its prompt was prefilled.
    """
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
            assert newest.judge_end
            assert newest.messages[:-1] == play.llm.requests[0][1].messages[:-1]
            assert newest.messages[-1].content == bare_words(play.llm.requests[0][1].messages[-1].content)
    assert asked["with it"] == pytest.approx(asked["behind"] - 0.15, abs=0.02)


@virtual
async def test_an_interim_transcript_under_way_at_the_pause_is_awaited() -> None:
    """If a dip's interim transcript is not ready at the tentative end of speech, the draft waits for it.

    The draft does not wait for the final transcript.
    """
    play = scene(stt=Listener(guess_s=0.15))
    async with play.call() as caller:
        await say(caller)
        await caller.hush(0.12)
        assert [request.messages[-1].content for _, request in play.llm.requests] == ["What time is it?"]
        assert not play.stt.jobs, "the transcript was there already"
        await caller.listen("response.done")
    assert play.metrics.counts["draft kept"] == 1


@virtual
async def test_a_dip_right_after_an_interim_transcript_is_not_missed() -> None:
    """A dip right after an interim transcript starts the next one at once, before the usual interval is over."""
    play = scene(AT_DIPS.model_copy(update={"interim_transcripts": InterimTranscriptSettings(every_ms=1000)}))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.16)
        assert len(play.stt.partials) == 1
        await caller.murmur(0.08)
        assert len(play.stt.partials) == 2
        await caller.listen("response.done")


@virtual
async def test_many_dips_keep_the_share_of_time() -> None:
    """With a dip every 0.18 s and 200 ms per interim transcript, 6 to 8 interim transcripts are made in 3.6 s.

    That is about 40% of the time, the configured `share`. A dip starts an interim transcript before its usual interval
    is over, and the rest of this interval is added to the next one.
    """
    play = scene(stt=Listener(guess_s=0.2))
    async with play.call() as caller:
        await caller.hush(0.5)
        for _ in range(20):
            await caller.speak(0.1)
            await caller.murmur(0.08)
        assert 6 <= len(play.stt.partials) <= 8
        await caller.listen("response.done")


@virtual
async def test_no_interim_transcript_starts_after_the_pause() -> None:
    """After a tentative end of speech no interim transcript starts, however long the final transcript takes."""
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
async def test_other_words_in_the_final_transcript_renew_the_draft() -> None:
    """If the final transcript has other words than the interim one, the draft begins again.

    The client gets one reply, which answers the final words.
    """
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
async def test_other_punctuation_keeps_the_draft() -> None:
    """If the final transcript differs from the interim one only in case and punctuation, the draft is kept.

    The conversation has the final transcript.
    """
    play = scene(stt=Listener(guesses=deque(["Tell me the time."]), texts=deque(["tell me the time,"])))
    async with play.call() as caller:
        await say(caller)
        await caller.listen("response.done")
        assert caller.session.conversation.messages()[0].content == "tell me the time,"
    assert len(play.llm.requests) == 1
    assert play.metrics.counts["draft renewed"] == 0
    assert play.metrics.counts["draft kept"] == 1


@virtual
async def test_an_interim_transcript_of_noise_is_not_answered() -> None:
    """If the interim transcript has words and the final transcript is empty, nothing is answered."""
    play = scene(stt=Listener(texts=deque([""])))
    async with play.call() as caller:
        await say(caller)
        await caller.hush(3)
    assert caller.of("response.created") == []
    assert (play.llm.running, play.tts.running) == (0, 0)


@pytest.mark.parametrize(
    "stt",
    [
        Listener(low_confidence=True),
        Listener(fails=True),
        Listener(guesses=deque([""])),
    ],
    ids=["low_confidence", "failed", "empty"],
)
@virtual
async def test_an_unreliable_interim_transcript_starts_no_draft(stt: Listener) -> None:
    """After a failed, empty or low-confidence interim transcript the draft starts with the final transcript."""
    play = scene(stt=stt)
    async with play.call() as caller:
        await say(caller)
        await caller.hush(0.1)
        assert play.llm.requests == []
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    assert done["rejoinder"]["stages_ms"]["stt"] == pytest.approx(150, abs=1)


@virtual
async def test_an_unconfirmed_interim_transcript_is_not_answered() -> None:
    """If the turn ends before the final transcript has confirmed the interim one, the final transcript is answered."""
    play = scene(stt=Listener(texts=deque(["What time is it in Rome?"]), delay_s=1.0))
    async with play.call() as caller:
        await say(caller)
        await caller.listen("response.done")
    assert play.llm.requests[-1][1].messages[-1].content == "What time is it in Rome?"
    assert len(caller.of("response.created")) == 1
