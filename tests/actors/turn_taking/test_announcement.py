"""Tests of when the client learns of speech over a reply: at once, or when its words are known to address the agent.

LiveKit's plugin and OpenAI's agents SDKs drop a reply for good at input_audio_buffer.speech_started, so they must not
learn of a backchannel.
"""

from __future__ import annotations

from collections import deque

import pytest

from rejoinder.core.settings.settings import BargeInSettings, Settings
from rejoinder.core.wire.handshake import drops_replies
from tests.actors.asking import RESPONSE_ENDS
from tests.actors.fakes import ScriptedStt, voice
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

QUESTION = "What time is it?"
# The audio of the answer: no sample is missing and none comes twice.
WHOLE = voice("It is noon.") + voice("The sun stands high, and lunch is ready for everyone who wants some.")
WORDS = Settings(barge_in=BargeInSettings(announce="words"))


def scene(over_reply: str) -> Play:
    """Return a scenario in which the caller asks the time, and then says `over_reply` over the reply."""
    return Play(settings=WORDS, stt=ScriptedStt(deque([QUESTION, over_reply]), delay_s=0.05))


@virtual
async def test_the_client_does_not_learn_of_a_backchannel() -> None:
    """A reply is paused by "Mm-hmm." and goes on without any event about the speech, and no sample comes twice."""
    play = scene("Mm-hmm.")
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        heard = len(caller.of("response.output_audio.delta"))
        await caller.speak(0.4)
        assert len(caller.of("response.output_audio.delta")) <= heard + 2, "the reply was not paused"
        await caller.listen("response.done")
        await caller.hush(1.0)
        assert caller.of("response.done")[0]["response"]["status"] == "completed"
        for kind in ("speech_started", "speech_stopped", "committed"):
            assert len(caller.of(f"input_audio_buffer.{kind}")) == 1
        assert not caller.of("input_audio_buffer.cleared")
        assert caller.audio == WHOLE
    assert play.metrics.counts["overheard backchannel"] == 1


@virtual
async def test_the_client_learns_of_a_barge_in_when_its_words_are_known() -> None:
    """Words that address the agent are announced with the start of their speech, and then the reply is cancelled."""
    play = scene("No, what is the weather in Paris?")
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        began = caller.session.audio_input.received / 16
        await caller.speak(1.5)
        await caller.listen("response.done")
        cancelled = caller.of("response.done")[0]["response"]
        assert cancelled["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        started = caller.of("input_audio_buffer.speech_started")[1]
        assert began - 400 <= started["audio_start_ms"] <= began + 50
        order = [event["type"] for _, event in caller.events]
        at = len(order) - 1 - order[::-1].index("input_audio_buffer.speech_started")
        assert order[at + 1 : at + 1 + len(RESPONSE_ENDS)] == RESPONSE_ENDS
        await caller.listen("response.done", 2)
        assert len(caller.of("input_audio_buffer.committed")) == 2


@virtual
async def test_a_client_that_commits_learns_of_the_speech_first() -> None:
    """If the client commits speech that it does not know of, speech_started comes before the turn's other events."""
    async with scene("No, what is the weather?").call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta", 5)
        await caller.speak(0.3)
        assert len(caller.of("input_audio_buffer.speech_started")) == 1
        await caller.ask(type="input_audio_buffer.commit")
        await caller.until("input_audio_buffer.committed", 2)
        assert len(caller.of("input_audio_buffer.speech_started")) == 2


@pytest.mark.parametrize(
    ("headers", "drops"),
    [
        ({"user-agent": "LiveKit Agents"}, True),
        ({"user-agent": "Agents/Python 0.24.0"}, True),
        ({"sec-websocket-protocol": "realtime, openai-agents-sdk.0.20.0"}, True),
        ({"x-openai-agents-sdk": "openai-agents-sdk.0.20.0"}, True),
        ({"user-agent": "OpenAI/Python 3.54.0", "sec-websocket-protocol": "realtime"}, False),
        ({}, False),
    ],
)
def test_clients_that_drop_replies_are_known(headers: dict[str, str], drops: bool) -> None:
    """With the setting "auto" only clients that drop a reply for good learn of speech by its words."""
    assert drops_replies(headers) is drops
    assert BargeInSettings().announces_words(drops_replies(headers)) is drops
    assert not BargeInSettings(announce="speech").announces_words(True)
    assert BargeInSettings(announce="words").announces_words(False)
