"""Speech over a reply that turns out to be none: the reply goes on where it was heard last."""

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
# A millisecond, in which a client says where it stopped.
SLACK_BYTES = 2 * WIRE_RATE // 1000


@dataclass
class Listener:
    """A client as real ones are: it flushes when the server hears speech, and, if it `tells`, says what it played."""

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
    """A call in which an answer begins to be heard."""
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        yield caller


async def overheard(play: Play, over_s: float = 0.4, **behavior: Any) -> tuple[Caller, Listener]:
    """A question, `over_s` of sound two seconds into the answer, and the rest of it."""
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
    """Whether that is the answer's audio, but for so many bytes lost or repeated at one seam."""
    off = len(heard) - len(WHOLE)
    seam = next((at for at in range(0, len(heard), 2) if heard[at : at + 2] != WHOLE[at : at + 2]), len(heard))
    return abs(off) <= slack and heard[seam + max(off, 0) + slack :] == WHOLE[seam + max(off, 0) + slack - off :]


@pytest.mark.parametrize("text", ["", "Mm-hm.", "The sun stands high"], ids=["a noise", "a backchannel", "an echo"])
@virtual
async def test_what_is_no_interruption_leaves_nothing_behind(text: str) -> None:
    """The reply is paused, resumed from the last sample heard, and completed; there is no turn, item or answer of the
    sound, whose end the client hears of.
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
async def test_the_client_is_silent_from_the_first_sound_until_it_is_known_to_be_none() -> None:
    """Two windows of speech pause it; 300 ms of silence behind it resume it."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    caller, _ = await overheard(play, over_s=0.4)
    paused = caller.at("input_audio_buffer.speech_started", 2)
    resumed = caller.at("input_audio_buffer.cleared")
    deltas = [at for at, event in caller.events if event["type"] == "response.output_audio.delta"]
    assert not [at for at in deltas if paused <= at < resumed]
    assert resumed in deltas
    assert resumed - paused == pytest.approx(0.4 - 0.064 + 0.3, abs=0.1)


@virtual
async def test_a_click_costs_no_transcript() -> None:
    """A sound of 60 ms is none by its length: at most three windows, where four are speech."""
    settings = Settings(speech=SpeechSettings(min_speech_ms=128))
    play = Play(settings, stt=ScriptedStt(deque([QUESTION, "Never asked."])))
    caller, listener = await overheard(play, over_s=0.06)
    assert len(play.stt.jobs) == 1
    assert whole(listener.heard(caller.of("response.done")[0]["response"]["output"][0]["id"]))
    assert caller.at("input_audio_buffer.cleared") - caller.at("input_audio_buffer.speech_started", 2) < 0.45


@virtual
async def test_a_client_that_says_where_it_stopped_is_believed() -> None:
    """Its audio comes 150 ms late: what it lacks by that is sent again too, and the whole text stays."""
    play = Play(stt=ScriptedStt(deque([QUESTION, ""])))
    caller, listener = await overheard(play, tells=True, late_s=0.15)
    [done] = caller.of("response.done")
    assert caller.of("conversation.item.truncated")
    assert whole(listener.heard(done["response"]["output"][0]["id"]), SLACK_BYTES)
    assert caller.session.conversation.get(done["response"]["output"][0]["id"]).text == ANSWER


@virtual
async def test_a_sound_in_the_reply_s_last_moment_does_not_cost_its_end() -> None:
    """All audio was sent and is still being heard: the response is open, and goes on like any other."""
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
async def test_a_transcript_that_never_comes_does_not_silence_us() -> None:
    """confirm_timeout_ms after the sound the reply goes on."""
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
async def test_words_that_speech_to_text_is_slow_to_find_are_not_lost() -> None:
    """The stage is busy for three seconds: the reply goes on meanwhile, and then the caller is answered."""
    stt = ScriptedStt(deque([QUESTION, "And tomorrow?"]))
    play = Play(stt=stt)
    async with answering(play) as caller:
        stt.delay_s = 3.0
        await caller.speak(0.5)
        await caller.listen("response.done", 2)
    assert prompts(play)[-1][-1] == ("user", "And tomorrow?")
    assert not caller.of("input_audio_buffer.cleared")


@virtual
async def test_a_caller_does_not_pay_for_a_speech_to_text_stage_that_fails() -> None:
    """Nobody can say what was said: it is taken for a turn, and answered once the stage is back."""
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
async def test_a_noise_that_goes_on_is_spoken_over() -> None:
    """Four seconds of a sound without words: after two the reply is heard again."""
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
    """The engines stop long before the caller does."""
    play = Play(stt=ScriptedStt(deque([QUESTION, "No, I wanted to know the day and the month."])))
    async with answering(play) as caller:
        await caller.hush(1.0)
        await caller.speak(4.0)
        assert caller.of("response.done")[0]["response"]["status"] == "cancelled"
        await caller.listen("response.done", 2)
    assert len(prompts(play)[-1]) == 3


@virtual
async def test_our_echo_is_not_answered_where_nothing_interrupts() -> None:
    """interrupt_response=false: a turn of the caller's is answered behind the reply, our own words are not."""
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
async def test_a_client_that_cancels_a_paused_reply_is_obeyed() -> None:
    """response.cancel while it is paused: it ends, and the sound behind it is no turn."""
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
def test_whatever_is_heard_is_what_was_said(seed: int) -> None:
    """Callers who interrupt at random, with words or without: every completed answer was heard whole, every cancelled
    one to where the history says, and after its end nothing of it is heard.
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
            # A word counts when its share of its segment was played: never more than was heard of the audio.
            assert len(said) * 1920 * 2 <= len(heard) + 2 * 1920 * 2
    return statuses.count("cancelled"), statuses.count("completed")
