"""Tests of false interruptions: speech over a reply that does not address the agent. The reply resumes after it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.callers.loudspeaker import Loudspeaker
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import BargeInSettings, Settings, SpeechSettings
from tests.actors.asking import prompts, server_vad
from tests.actors.fakes import ANSWER, ScriptedStt, voice
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import run_virtual, virtual

WHOLE = voice("It is noon.") + voice("The sun stands high, and lunch is ready for everyone who wants some.")
QUESTION = "What time is it?"
# Bytes of one millisecond of audio, the resolution of audio_end_ms.
SLACK_BYTES = 2 * WIRE_RATE // 1000


@virtual
async def test_a_hum_does_not_end_a_reply() -> None:
    """An "mm-hmm" that the recognizer writes as "M M M" pauses the reply, which then goes on."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "M M M"])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        await caller.speak(0.4)
        await caller.listen("response.done")
    assert caller.of("response.done")[0]["response"]["status"] == "completed"
    assert len(caller.of("input_audio_buffer.committed")) == 1
    assert play.metrics.counts["overheard backchannel"] == 1


@pytest.mark.parametrize(("agreed", "ended"), [(True, True), (False, False)])
@virtual
async def test_a_short_word_is_believed_if_two_recognizers_agree(agreed: bool, ended: bool) -> None:
    """A short word of low confidence over a reply is a sound, unless both recognizers have heard it."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "Actually."]), logprob=-0.9, agreed=agreed))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        await caller.speak(0.4)
        await caller.listen("response.done")
    assert (caller.of("response.done")[0]["response"]["status"] == "cancelled") is ended


@virtual
async def test_the_first_half_of_a_backchannel_does_not_end_a_reply() -> None:
    """Interim transcripts "I see." and "I see," agree on "I", which addresses the agent. The reply goes on."""
    stt = ScriptedStt(deque([QUESTION, "I see."]), delay_s=0.05)
    play = Play(stt=stt)
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        stt.interims.extend(["I see.", "I see,"])
        await caller.speak(1.2)
        await caller.listen("response.done")
    assert not stt.interims
    assert caller.of("response.done")[0]["response"]["status"] == "completed"


@virtual
async def test_a_television_is_not_answered() -> None:
    """After a turn of the caller, words that are 24 dB quieter are not answered, whatever they are."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "What do you think about that?"])))
    async with play.call() as caller:
        await caller.say(1.0)
        await caller.hush(3.0)
        await caller.murmur(2.0)
        await caller.hush(4.0)
    assert len(caller.of("response.created")) == 1
    assert len(caller.of("input_audio_buffer.committed")) == 1


@pytest.mark.parametrize(("text", "answered"), [("It was the age of wisdom.", 0), ("Could you help me?", 1)])
@virtual
async def test_a_quiet_first_utterance_must_address_the_agent(text: str, answered: int) -> None:
    """Before the caller's level is known, quiet words (-39 dBFS) are answered only if they address the agent."""
    play = Play(stt=ScriptedStt(deque([text])))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.murmur(2.0)
        await caller.hush(6.0)
    assert len(caller.of("response.created")) == answered
    assert len(caller.of("input_audio_buffer.committed")) == answered
    assert play.metrics.counts["overheard background"] == 1 - answered


@virtual
async def test_a_reply_goes_on_while_others_talk() -> None:
    """Quieter talk over a reply does not even pause it, if it is far below the caller's level."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "Did you feed the dog?"])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        await caller.murmur(1.5)
        await caller.listen("response.done")
    assert caller.of("response.done")[0]["response"]["status"] == "completed"
    assert len(caller.of("input_audio_buffer.speech_started")) == 1


@dataclass
class Listener:
    """A client's player, which drops its unplayed audio when the server detects speech.

    With `tells=True` it reports with conversation.item.truncate how much it played, as real clients do. `late_s` is its
    network delay in seconds. `playbacks` maps an item id to the loudspeaker that plays its audio.
    """

    caller: Caller
    tells: bool = False
    late_s: float = 0.0
    playbacks: dict[str, Loudspeaker] = field(default_factory=dict)
    truncations: list[asyncio.Task[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caller.listeners.append(self.take)

    def take(self, event: dict[str, Any], now: float) -> None:
        if event["type"] == "response.output_audio.delta":
            self.playbacks.setdefault(event["item_id"], Loudspeaker()).receive(event["delta"], now + self.late_s)
        elif event["type"] == "input_audio_buffer.speech_started":
            for item_id, playback in self.playbacks.items():
                if playback.playing(now):
                    playback.flush(now)
                    self._tell(item_id, int(playback.played_s(now) * 1000))

    def _tell(self, item_id: str, played_ms: int) -> None:
        if self.tells:
            event = {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0}
            self.truncations.append(asyncio.ensure_future(self.caller.ask(**event, audio_end_ms=played_ms)))

    def heard(self, item_id: str) -> bytes:
        return b"".join(chunk.pcm for chunk in self.playbacks[item_id].heard())


@asynccontextmanager
async def answering(play: Play) -> AsyncIterator[Caller]:
    """Yield a caller who asked a question and has just got the first audio of the answer."""
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        yield caller


async def overheard(play: Play, over_s: float = 0.4, **behavior: Any) -> tuple[Caller, Listener]:
    """Ask, make a sound of `over_s` seconds two seconds after the first audio of the answer, and listen to the rest.

    Return the caller and the player; `behavior` are the player's further arguments.
    """
    async with play.call() as caller:
        listener = Listener(caller, **behavior)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(2.0)
        await caller.speak(over_s)
        await caller.listen("response.done")
        await caller.hush(1.0)
    return caller, listener


def whole(heard: bytes, slack: int = 2) -> bool:
    """Return True if `heard` is all audio of the answer, except at most `slack` bytes lost or repeated at one place."""
    off = len(heard) - len(WHOLE)
    seam = next((at for at in range(0, len(heard), 2) if heard[at : at + 2] != WHOLE[at : at + 2]), len(heard))
    return abs(off) <= slack and heard[seam + max(off, 0) + slack :] == WHOLE[seam + max(off, 0) + slack - off :]


@pytest.mark.parametrize("text", ["", "Mm-hm.", "The sun stands high"], ids=["a noise", "a backchannel", "an echo"])
@virtual
async def test_a_false_interruption_leaves_no_trace(text: str) -> None:
    """After a noise, a backchannel or an echo the reply resumes from the last sample heard, and is completed. The sound
    becomes no turn or item and is not answered, and the client gets speech_stopped for it.
    """
    play = Play(stt=ScriptedStt(deque([QUESTION, text])))
    caller, listener = await overheard(play)
    [done] = caller.of("response.done")
    assert done["response"]["status"] == "completed"
    assert not done["rejoinder"]["interrupted"]
    assert whole(listener.heard(done["response"]["output"][0]["id"]))
    sound = caller.types[caller.types.index("response.output_audio.delta") :]
    at = sound.index("input_audio_buffer.speech_started")
    assert sound[at : at + 4] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.cleared",
        "response.output_audio.delta",
    ]
    assert [(item.role, item.text) for item in caller.session.conversation] == [
        ("user", QUESTION),
        ("assistant", ANSWER),
    ]
    assert len(play.llm.requests) == 1
    assert sum(count for name, count in play.metrics.counts.items() if name.startswith("overheard")) == 1
    assert play.metrics.stops_s == []


@virtual
async def test_a_false_interruption_pauses_the_reply_briefly() -> None:
    """A sound pauses the reply after two voice activity windows (64 ms). The reply resumes after 300 ms of silence."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    caller, _ = await overheard(play, over_s=0.4)
    paused = caller.at("input_audio_buffer.speech_started", 2)
    resumed = caller.at("input_audio_buffer.cleared")
    deltas = [at for at, event in caller.events if event["type"] == "response.output_audio.delta"]
    assert not [at for at in deltas if paused <= at < resumed]
    assert resumed in deltas
    assert resumed - paused == pytest.approx(0.4 - 0.064 + 0.3, abs=0.1)


@virtual
async def test_a_click_is_not_transcribed() -> None:
    """A sound of 60 ms over the reply is not transcribed: it spans at most three voice activity windows.

    Four windows count as speech.
    """
    settings = Settings(speech=SpeechSettings(min_speech_ms=128))
    play = Play(settings, stt=ScriptedStt(deque([QUESTION, "Never asked."])))
    caller, listener = await overheard(play, over_s=0.06)
    assert len(play.stt.jobs) == 1
    assert whole(listener.heard(caller.of("response.done")[0]["response"]["output"][0]["id"]))
    assert caller.at("input_audio_buffer.cleared") - caller.at("input_audio_buffer.speech_started", 2) < 0.45


@virtual
async def test_a_client_may_report_where_it_stopped() -> None:
    """A client with a delay of 150 ms reports where it stopped. The reply resumes from there, and the conversation
    keeps all of its text.
    """
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    caller, listener = await overheard(play, tells=True, late_s=0.15)
    [done] = caller.of("response.done")
    assert caller.of("conversation.item.truncated")
    assert whole(listener.heard(done["response"]["output"][0]["id"]), SLACK_BYTES)
    assert caller.session.conversation.get(done["response"]["output"][0]["id"]).text == ANSWER


@virtual
async def test_a_sound_after_the_last_delta_keeps_the_end() -> None:
    """If a sound comes after the last delta while its audio still plays, the unheard end is sent again."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    async with play.call() as caller:
        listener = Listener(caller)
        await caller.speak(1.0)
        while len(caller.audio) < len(WHOLE):
            await caller.hush(0.02)
        await caller.speak(0.2)
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    assert whole(listener.heard(done["response"]["output"][0]["id"]))
    assert len(caller.audio) > len(WHOLE)


@virtual
async def test_a_missing_transcript_resumes_the_reply() -> None:
    """A sound over the reply that gets no transcript stops the reply until `confirm_timeout_ms` (2 s) after its end."""
    stt = ScriptedStt(deque([QUESTION]))
    play = Play(stt=stt)
    async with answering(play) as caller:
        stt.hangs = 9
        await caller.speak(0.4)
        await caller.listen("response.done")
        assert not caller.of("input_audio_buffer.cleared")
    assert caller.of("response.done")[0]["response"]["status"] == "completed"
    paused = caller.at("input_audio_buffer.speech_started", 2)
    resumed = min(at for at, event in caller.events if event["type"] == "response.output_audio.delta" and at > paused)
    assert resumed - paused == pytest.approx(0.4 + 2.0, abs=0.1)


@virtual
async def test_words_of_slow_speech_to_text_are_answered() -> None:
    """If speech-to-text takes three seconds for speech over the reply, the reply resumes meanwhile.

    When the transcript arrives with words, they are answered.
    """
    stt = ScriptedStt(deque([QUESTION, "And tomorrow?"]))
    play = Play(stt=stt)
    async with answering(play) as caller:
        stt.delay_s = 3.0
        await caller.speak(0.5)
        await caller.listen("response.done", 2)
    assert prompts(play)[-1][-1] == ("user", "And tomorrow?")
    assert not caller.of("input_audio_buffer.cleared")


@virtual
async def test_failing_speech_to_text_counts_a_sound_as_a_turn() -> None:
    """If speech-to-text fails, a sound over the reply counts as a turn. It is answered once the stage works again."""
    stt = ScriptedStt(deque([QUESTION, "And tomorrow?"]))
    play = Play(stt=stt)
    async with answering(play) as caller:
        stt.fault = BackendError("gone.", stage="stt")
        await caller.speak(0.5)
        await caller.listen("response.done")
        stt.fault = None
        await caller.listen("response.done", 2)
    assert [done["response"]["status"] for done in caller.of("response.done")] == ["cancelled", "completed"]
    assert prompts(play)[-1][-1] == ("user", "And tomorrow?")


@virtual
async def test_the_reply_resumes_over_a_long_noise() -> None:
    """During a sound of four seconds without words, the reply resumes about two seconds after speech_started."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    async with answering(play) as caller:
        await caller.hush(1.0)
        await caller.speak(4.0)
        await caller.listen("response.done")
    started = caller.at("input_audio_buffer.speech_started", 2)
    resumed = next(at for at, event in caller.events if at > started and event["type"].endswith("audio.delta"))
    assert resumed - started == pytest.approx(2.2, abs=0.4)
    assert caller.of("response.done")[0]["response"]["status"] == "completed"


@virtual
async def test_words_end_the_reply_while_the_caller_goes_on() -> None:
    """Words in an interim transcript cancel the reply before the caller has stopped speaking."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "No, I wanted to know the day and the month."])))
    async with answering(play) as caller:
        await caller.hush(1.0)
        await caller.speak(4.0)
        assert caller.of("response.done")[0]["response"]["status"] == "cancelled"
        await caller.listen("response.done", 2)
    assert len(prompts(play)[-1]) == 3


@virtual
async def test_an_echo_is_not_answered_without_interruption() -> None:
    """With interrupt_response=false the caller's turn is answered after the reply, but an echo of the reply is not."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "The sun stands high and lunch", "And tomorrow?"])))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(interrupt_response=False))
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(2.0)
        await caller.speak(0.5)
        await caller.hush(1.0)
        await caller.speak(0.5)
        await caller.listen("response.done", 2)
        await caller.hush(3.0)
    assert [text for _, text in prompts(play)[-1]] == [QUESTION, ANSWER, "And tomorrow?"]
    assert len(play.llm.requests) == 2


@virtual
async def test_a_caller_who_goes_on_with_the_words_of_the_reply_is_heard() -> None:
    """A reply has just begun when the caller, who had only paused, goes on with the same words. It is no echo: it is
    longer than what was played of the reply. It becomes a turn and is answered.
    """
    play = Play(stt=ScriptedStt(deque([QUESTION, "The sun"])))
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(0.2)
        await caller.speak(1.5)
        await caller.hush(3.0)
    assert [text for _, text in prompts(play)[-1]][-1] == "The sun"
    assert caller.of("response.done")[0]["response"]["status"] == "cancelled"


@virtual
async def test_a_client_that_cancels_a_paused_reply_is_obeyed() -> None:
    """response.cancel ends a paused reply, and the sound that paused it becomes no turn."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    async with answering(play) as caller:
        await caller.hush(1.0)
        await caller.speak(0.2)
        await caller.ask(type="response.cancel")
        await caller.hush(3.0)
    [done] = caller.of("response.done")
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert len(play.llm.requests) == 1


WORDS = ("No, wait.", "And what about tomorrow?", "I meant the other one.", "Tell me more about lunch.")
SOUNDS = ("", "Mm-hm.", "Yeah, okay.", "")


@pytest.mark.parametrize("seed", range(20))
def test_random_interruptions_keep_audio_and_history_consistent(seed: int) -> None:
    """With random interruptions, all audio of a completed answer was heard, and of a cancelled answer at least the
    words that the conversation keeps. No audio of a response is sent after its end.
    """
    cancelled, completed = run_virtual(_interrupt_at_random(seed))
    assert cancelled + completed >= 4


async def _interrupt_at_random(seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    texts = [QUESTION, *(rng.choice(rng.choice((WORDS, SOUNDS))) for _ in range(12)), QUESTION]
    play = Play(Settings(barge_in=BargeInSettings(echo_guard=rng.random() < 0.5)), stt=ScriptedStt(deque(texts)))
    async with play.call() as caller:
        listener = Listener(caller, tells=rng.random() < 0.5)
        for _ in range(12):
            await caller.speak(rng.uniform(0.06, 2.5))
            await caller.hush(rng.uniform(0.1, 8.0))
        await caller.hush(25.0)
    statuses = []
    for done in caller.of("response.done"):
        [item] = done["response"]["output"]
        statuses.append(done["response"]["status"])
        heard = listener.heard(item["id"]) if item["id"] in listener.playbacks else b""
        if statuses[-1] == "completed":
            assert abs(len(heard) - len(WHOLE)) <= 8 * SLACK_BYTES
        else:
            said = "".join(part["transcript"] for part in item["content"])
            assert ANSWER.startswith(said)
            # A character is 1,920 samples of 2 bytes. At most two characters more than were heard are kept.
            assert len(said) * 1920 * 2 <= len(heard) + 2 * 1920 * 2
    return statuses.count("cancelled"), statuses.count("completed")
