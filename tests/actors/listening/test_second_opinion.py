"""Tests of second opinions: the second recognizer's transcripts of speech whose first transcript has low confidence.

They replace or correct the first transcript. A caller in a language that is not served is told so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from actors.stages.ports import ANYWHERE, Priority, SttJob, Transcript
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ONLY_ENGLISH, ConversationSettings, Settings, SttSettings
from tests.actors.asking import prompts
from tests.actors.fakes import ANSWER, ScriptedStt
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

FIRST, BETTER = "That is a good store.", "That's a good story."
TRANSCRIPTION = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper"}}}}
COMPLETED = "conversation.item.input_audio_transcription.completed"


def words(text: str) -> Transcript:
    """Return a transcript of 1 s of audio with these words, as the second recognizer returns it."""
    return Transcript(text, audio_ms=1000, queue_ms=0, decode_ms=0, avg_logprob=-0.2)


@dataclass
class DoubtfulStt(ScriptedStt):
    """Fake speech-to-text whose first transcript has low confidence. The second opinion takes `second_s` seconds.

    The second opinion is `second`, or "opinion1", "opinion2" ... if `numbered` is set; `second_fault` makes it fail.
    `usable` is False for a first transcript that must not be answered. `withdrawn` counts cancelled second opinions.
    """

    second_s: float = 0.2
    second: Transcript = field(default_factory=lambda: words(BETTER))
    second_fault: Exception | None = None
    usable: bool = True
    numbered: bool = False
    opinions: list[SttJob] = field(default_factory=list)
    withdrawn: int = 0

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        if job.priority is not Priority.SECOND_OPINION:
            transcript = await super().transcribe(job, avoid=avoid)
            if job.priority is Priority.INTERIM:
                return replace(transcript, low_confidence=True)
            return replace(transcript, text=FIRST, low_confidence=True, usable=self.usable)
        self.opinions.append(job)
        number = len(self.opinions)
        try:
            await asyncio.sleep(self.second_s)
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        if self.second_fault:
            raise self.second_fault
        return words(f"opinion{number}") if self.numbered else self.second


async def _turn(play: Play, then: Callable[[Caller], Awaitable[object]] | None = None) -> tuple[Caller, float]:
    """Run one turn with transcription events, and `then` at its end.

    Return the caller, and the seconds from the end of speech to the first audio of the answer.
    """
    async with play.call() as caller:
        await caller.ask(type="session.update", session=TRANSCRIPTION)
        await caller.until("session.updated")
        await caller.speak(1.0)
        ended = asyncio.get_running_loop().time()
        await caller.listen("response.output_audio.delta")
        took_s = asyncio.get_running_loop().time() - ended
        await caller.listen("response.done")
        await caller.listen(COMPLETED)
        if then:
            await then(caller)
    return caller, took_s


@virtual
async def test_a_second_opinion_in_time_is_answered() -> None:
    """A second opinion that is in time replaces the first transcript in the prompt and for the client."""
    stt = DoubtfulStt(second_s=0.2)
    play = Play(stt=stt)
    caller, _ = await _turn(play)
    assert prompts(play)[-1] == [("user", BETTER)]
    assert [event["transcript"] for event in caller.of(COMPLETED)] == [BETTER]
    assert stt.opinions[0].first is not None
    assert stt.opinions[0].first.text == FIRST


@virtual
async def test_a_late_second_opinion_only_corrects_the_item() -> None:
    """If the second opinion is late, the first transcript is answered when the deadline has passed.

    The second opinion then corrects the transcript in a second event for the client, and in the next prompt.
    """

    async def ask_again(caller: Caller) -> None:
        stt.second_s = 0.1
        await caller.say()

    stt = DoubtfulStt(second_s=1.5)
    play = Play(stt=stt)
    caller, took_s = await _turn(play, ask_again)
    prompt_play = prompts(play)
    assert prompt_play[0] == [("user", FIRST)]
    assert prompt_play[-1][0] == ("user", BETTER)
    assert caller.of(COMPLETED)[0]["transcript"] == BETTER
    assert len(caller.of(COMPLETED)) == 2
    waited = Play(stt=DoubtfulStt(second_s=0.0))
    _, at_once_s = await _turn(waited)
    assert took_s - at_once_s <= SttSettings().second_opinion_ms / 1000 + 0.05


@virtual
async def test_a_bad_first_transcript_waits_for_the_second() -> None:
    """If the first transcript is not usable, the answer waits for the second opinion, here for 1.5 s."""
    play = Play(stt=DoubtfulStt(second_s=1.5, usable=False))
    await _turn(play)
    assert prompts(play)[-1] == [("user", BETTER)]


@pytest.mark.parametrize("second_s", [0.1, 1.0])
@virtual
async def test_a_second_opinion_that_fails_costs_nothing(second_s: float) -> None:
    """If the second opinion fails, the first transcript is answered, without an apology or a failure event."""
    stt = DoubtfulStt(second_s=second_s, second_fault=BackendError("gone.", stage="stt"))
    play = Play(Settings(conversation=ConversationSettings(give_up_after_s=3)), stt=stt)
    caller, _ = await _turn(play)
    assert caller.transcript == ANSWER
    assert [event["transcript"] for event in caller.of(COMPLETED)] == [FIRST]


@virtual
async def test_an_empty_correction_keeps_the_first_words() -> None:
    """A late second opinion without words does not change the first transcript, which was already answered."""
    play = Play(stt=DoubtfulStt(second_s=1.0, second=words("")))
    caller, _ = await _turn(play)
    assert [event["transcript"] for event in caller.of(COMPLETED)] == [FIRST]


@virtual
async def test_a_caller_who_continues_withdraws_the_second_opinion() -> None:
    """If the caller continues to speak, the second opinion about the first part is cancelled to free the recognizer."""
    stt = DoubtfulStt(second_s=5.0, usable=False)
    play = Play(stt=stt)
    play.turn.probabilities = deque([0.02])
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.hush(0.4)
        await caller.speak(1.0)
        assert stt.withdrawn == 1


@pytest.mark.parametrize("second_s", [0.1, 1.5], ids=["in time", "correction"])
@virtual
async def test_a_second_opinion_about_long_speech_keeps_its_windows(second_s: float) -> None:
    """Of 40 s of speech, each window and the last piece get their own second opinion.

    The transcript has each second opinion once, in order, also if they arrive late as a correction.
    """
    stt = DoubtfulStt(second_s=second_s, numbered=True)
    play = Play(stt=stt)
    async with play.call() as caller:
        await caller.ask(type="session.update", session=TRANSCRIPTION)
        await caller.speak(40)
        await caller.listen(COMPLETED)
    assert len(stt.opinions) >= 3
    heard = caller.of(COMPLETED)[0]["transcript"].split()
    assert heard == [f"opinion{number}" for number in range(1, len(stt.opinions) + 1)]


GERMAN = replace(words("Guten Tag, wann haben Sie offen?"), language="de")


@virtual
async def test_a_caller_in_another_language_is_told_which_one_is_served() -> None:
    """A caller who speaks German to an English service hears one sentence that says so, and the model is not called.

    The client gets the German transcript with its language.
    """
    play = Play(stt=DoubtfulStt(usable=False, second=GERMAN))
    caller, _ = await _turn(play)
    assert caller.transcript == ONLY_ENGLISH
    assert not play.llm.requests
    (completed,) = caller.of(COMPLETED)
    assert completed["transcript"] == GERMAN.text
    assert completed["rejoinder"] == {"language": "de"}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(stt=SttSettings(language="auto")),
        Settings(conversation=ConversationSettings(other_language="")),
        Settings(stt=SttSettings(language="fr")),
    ],
    ids=["auto", "no sentence", "default sentence is English"],
)
@virtual
async def test_other_languages_are_answered_where_they_are_served(settings: Settings) -> None:
    """The language model answers a caller who speaks German, unless the system says that it serves one language only.

    It does not say that with `stt.language: auto`, with an empty `conversation.other_language`, or with its default, an
    English sentence, if another language is served.
    """
    play = Play(settings, stt=DoubtfulStt(usable=False, second=GERMAN))
    caller, _ = await _turn(play)
    assert caller.transcript == ANSWER
    assert prompts(play)[-1] == [("user", GERMAN.text)]


@virtual
async def test_a_commit_without_voice_activity_detection_is_checked_for_speech() -> None:
    """Speech-to-text jobs have `speech_detected` set only if voice activity detection has found speech.

    That is not so for audio that the client commits with turn detection off.
    """
    play = Play()
    async with play.call() as caller:
        await caller.ask(
            type="session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await caller.until("session.updated")
        await caller.speak(40)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.hush(2)
    assert len(play.stt.jobs) >= 3
    assert not any(job.speech_detected for job in play.stt.jobs)
    detected = Play()
    async with detected.call() as caller:
        await caller.say(40)
    assert all(job.speech_detected for job in detected.stt.jobs)
