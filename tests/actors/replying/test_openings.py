"""Tests of openings, beginnings of answers that are played at once from a prepared clip.

The language model continues the opening.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from actors.host import synthesize_held_clips
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.settings.settings import ConversationSettings, Opening, Settings, SpeculationSettings
from tests.actors.asking import prompts
from tests.actors.fakes import ScriptedStt, WordyLlm, voice
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

OPENING = "Let me check that for you."
CLIP = HeldClip(OPENING, b"\x11\x11" * 36_000)
FILLER = HeldClip("One moment.", b"\x22\x22" * 12_000)
REST = "Your order left the house this morning."


def play(*, drafts: bool = False, ttft_s: float = 1.0, **conversation: Any) -> Play:
    """Return a test scenario with a configured opening, and `ttft_s` seconds to the language model's first token.

    `conversation` are further settings of the conversation.
    """
    opening = {"openings": (Opening(say=OPENING),)}
    settings = Settings(
        conversation=ConversationSettings(**opening | conversation), speculation=SpeculationSettings(enabled=drafts)
    )
    found = Play(settings=settings, phrases=(CLIP,), fillers=(FILLER,))
    found.stt = ScriptedStt(deque(["Where is my order?"]))
    found.llm = WordyLlm(ttft_s={"a": ttft_s, "b": ttft_s}, answer=f"{OPENING} {REST}")
    return found


@pytest.mark.parametrize("drafts", [False, True])
@virtual
async def test_the_opening_is_heard_at_once_and_the_model_goes_on_behind_it(drafts: bool) -> None:
    """The opening is played within 0.2 s of the commit, and the language model gets it as the answer's prefix.

    Opening and continuation are one answer, with and without drafts.
    """
    scene = play(drafts=drafts)
    async with scene.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    report = done["rejoinder"]
    assert report["opened"]
    assert report["drafted"] is drafts
    assert caller.at("response.output_audio.delta") - caller.at("input_audio_buffer.committed") < 0.2
    assert caller.audio.startswith(CLIP.pcm)
    assert caller.transcript == f"{OPENING} {REST}"
    assert scene.llm.requests[0][1].prefix == OPENING
    assert OPENING not in scene.tts.texts
    assert report["stages_ms"]["llm_first_token"] == 0
    assert "llm_first_token" not in report["raw_ms"]
    assert report["answer_from_ms"] == 0


@virtual
async def test_the_opening_is_in_the_history_and_is_not_said_twice() -> None:
    """The next prompt has the whole answer, opening included, and the next answer has no opening."""
    scene = play()
    async with scene.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
        done = await caller.say(1.0)
    assert [text for role, text in prompts(scene)[-1] if role == "assistant"] == [f"{OPENING} {REST}"]
    assert not done["rejoinder"]["opened"]
    assert scene.llm.requests[-1][1].prefix == ""


@virtual
async def test_there_is_never_a_filler_beside_an_opening() -> None:
    """A reply with an opening has no filler, however late the language model is. Without an opening it has one."""
    for openings, fillers in (((Opening(say=OPENING),), 0), ((), 1)):
        scene = play(ttft_s=5.0, openings=openings)
        async with scene.call() as caller:
            await caller.hush(0.5)
            done = await caller.say(1.0)
        assert scene.metrics.counts["filler"] == fillers
        assert (done["rejoinder"]["filler_ms"] is None) is not fillers
        assert done["rejoinder"]["opened"] is not fillers


@virtual
async def test_a_reply_cut_in_its_opening_is_remembered_as_far_as_it_was_heard() -> None:
    """If a reply is cancelled during its opening, the conversation keeps the words that were played, and the language
    model stops.
    """
    scene = play(ttft_s=5.0)
    async with scene.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(0.7)
        await caller.ask(type="response.cancel")
        await caller.until("response.done")
        await caller.hush(1.0)
        assert scene.llm.running == 0
        scene.llm.ttft_s = {"a": 0.1}
        await caller.say(1.0)
    heard = [text for role, text in prompts(scene)[-1] if role == "assistant"]
    assert len(heard) == 1
    assert OPENING.startswith(heard[0])
    assert 0 < len(heard[0]) < len(OPENING)


@virtual
async def test_a_model_that_breaks_behind_the_opening_repeats_nothing() -> None:
    """If the language model fails after the opening, the next attempt continues after all text so far: nothing is
    repeated.
    """
    scene = play(ttft_s=0.1)
    scene.llm.break_after = {"a": 3}
    async with scene.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
    assert caller.transcript == f"{OPENING} {REST}"
    assert scene.llm.requests[-1][1].prefix.startswith(f"{OPENING}")


@virtual
async def test_a_model_with_nothing_to_add_is_asked_for_a_whole_answer() -> None:
    """If the language model adds nothing to the opening, the request is repeated without the opening as prefix."""
    scene = play(ttft_s=0.1)
    scene.llm.answer = OPENING
    async with scene.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
    assert [request.prefix for _, request in scene.llm.requests] == [OPENING, ""]
    assert caller.transcript == f"{OPENING} {OPENING}"


@virtual
async def test_without_openings_and_in_writing_answers_begin_as_ever() -> None:
    """Openings are off by default, and replies in text have none."""
    assert Settings().conversation.openings == ()
    scene = play(ttft_s=0.1)
    async with scene.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
        await caller.hush(0.5)
        done = await caller.say(1.0)
    assert not done["rejoinder"]["opened"]
    assert scene.llm.requests[0][1].prefix == ""


@virtual
async def test_openings_are_held_when_a_host_starts() -> None:
    """Openings are synthesized when the host starts, as prepared clips."""
    scene = play()
    async with scene.open() as host:
        phrases = await synthesize_held_clips(host.services.stages, scene.settings.conversation)
    held = phrases.of(OPENING)
    assert held is not None
    assert held.pcm == voice(OPENING)
