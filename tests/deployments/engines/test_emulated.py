"""Emulated engines as deployments, in virtual time: slots, queues, refusals and what a cancellation frees."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from actors.stages.ports import LlmRequest, SttJob, TtsRequest
from deployments.engines.emulated import EmulatedLlm, EmulatedStt, EmulatedTts
from rejoinder.core.audio.pcm import WIRE_RATE, pcm16_to_float, rms_dbfs
from rejoinder.core.errors import Overloaded
from rejoinder.core.measuring import audio_watermark as marking
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.turns.transcript_ending import TranscriptEnding, ending
from tests.actors.virtual_time import virtual

QUESTION = (ChatMessage("user", "What is the capital of France?"),)
JOB = SttJob(bytes(32_000))


def settings(stage: str, max_queue: int = 16, **emulation: Any) -> Settings:
    return parse_settings({stage: {"engine": "emulated", "max_queue": max_queue, "emulation": emulation}})


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_slots_bound_what_is_served_at_once() -> None:
    """Five transcripts of 100 ms through two slots end at 100, 100, 200, 200 and 300 ms, and each knows its wait."""
    stt = EmulatedStt(settings("stt", slots=2, curve={"median_ms": 100}))
    began = now()

    async def ask() -> tuple[float, float]:
        heard = await stt.transcribe(JOB)
        return round(now() - began, 3), round(heard.queue_ms)

    assert sorted(await asyncio.gather(*(ask() for _ in range(5)))) == [
        (0.1, 0),
        (0.1, 0),
        (0.2, 100),
        (0.2, 100),
        (0.3, 200),
    ]


@virtual
@pytest.mark.parametrize(("full_stop", "ends"), [(False, TranscriptEnding.DOUBTFUL), (True, TranscriptEnding.FINISHED)])
async def test_an_emulated_transcript_decides_a_turn_only_if_asked_to(full_stop: bool, ends: TranscriptEnding) -> None:
    """No word was heard, so the text leaves doubt and the turn model decides, unless the emulation says otherwise."""
    heard = await EmulatedStt(settings("stt", full_stop=full_stop)).transcribe(JOB)
    assert ending(heard.text) is ends


@virtual
async def test_a_full_queue_refuses() -> None:
    """One slot, one place to wait: the third request is refused at once, naming the setting."""
    stt = EmulatedStt(settings("stt", max_queue=1, slots=1))
    first, second = (asyncio.create_task(stt.transcribe(JOB)) for _ in range(2))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded, match="slots are taken"):
        await stt.transcribe(JOB)
    await asyncio.gather(first, second)


@pytest.mark.parametrize(("ignore", "free_after"), [(False, 0.0), (True, 4.0)])
@virtual
async def test_cancelling_frees_the_slot_unless_the_engine_ignores_it(ignore: bool, free_after: float) -> None:
    """A stream that is closed after one second of five gives its slot back at once, or when it would have ended."""
    options = settings("llm", slots=1, curve={"median_ms": 5000}, tokens=1, ignore_cancellation=ignore)
    llm = EmulatedLlm(options, "a")

    async def read() -> None:
        async with aclosing(llm.stream(LlmRequest(QUESTION))) as deltas:
            async for _ in deltas:
                pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(1)
    reading.cancel()
    await asyncio.wait({reading})
    await asyncio.sleep(max(0.0, free_after - 0.01))
    assert llm.active == int(ignore)
    await asyncio.sleep(0.02)
    assert llm.active == 0


@virtual
async def test_tokens_come_at_the_profile_s_pace() -> None:
    """The first after the drawn time, the last after the others' pace, and the usage counts them."""
    llm = EmulatedLlm(settings("llm", curve={"median_ms": 200}, tokens=21, tokens_per_s=100), "a")
    began = now()
    deltas = [(now() - began, delta) async for delta in llm.stream(LlmRequest(QUESTION))]
    assert deltas[0][0] == pytest.approx(0.2)
    assert deltas[-1][0] == pytest.approx(0.4)
    usage = deltas[-1][1].usage
    assert usage
    assert usage.completion_tokens == sum(delta.tokens for _, delta in deltas) == 21


@virtual
async def test_an_answer_goes_on_behind_its_prefix() -> None:
    """After a failover the rest follows: both parts together are the whole answer."""

    async def answer(request: LlmRequest) -> str:
        llm = EmulatedLlm(settings("llm", tokens=12), "a")
        return "".join([delta.text async for delta in llm.stream(request)])

    whole = await answer(LlmRequest(QUESTION))
    begin = " ".join(whole.split()[:5])
    assert f"{begin} {await answer(LlmRequest(QUESTION, prefix=begin))}" == whole


@virtual
async def test_a_voice_is_audible_and_as_long_as_its_words() -> None:
    """Thirty characters are two seconds; every chunk sounds, no chunk is longer than asked, and none clicks."""
    tts = EmulatedTts(settings("tts", curve={"median_ms": 80}, speed=4))
    began = now()
    chunks = [(now() - began, pcm) async for pcm in tts.synthesize(TtsRequest("x" * 30))]
    audio = b"".join(pcm for _, pcm in chunks)
    assert len(audio) == 2 * WIRE_RATE * 2
    assert chunks[0][0] == pytest.approx(0.08)
    assert chunks[-1][0] == pytest.approx(0.08 + 1.8 / 4)
    assert all(rms_dbfs(pcm) > -25 for _, pcm in chunks)
    assert np.abs(np.diff(pcm16_to_float(audio))).max() < 0.05


@virtual
async def test_a_marked_answer_names_what_it_answers_in_every_segment_and_sample() -> None:
    """What was heard last decides words and pitch, in every window of the sound; without a number both are as ever."""
    told = (
        *QUESTION,
        ChatMessage("assistant", "Heard 1.0 seconds."),
        ChatMessage("user", marking.transcript(3.42, ".")),
    )
    llm = EmulatedLlm(settings("llm", tokens=6, marked=True), "a")
    text = "".join([delta.text async for delta in llm.stream(LlmRequest(told))])
    assert text == "Heard 3.4 seconds. Heard 3.4 seconds."
    tts = EmulatedTts(settings("tts", marked=True))
    audio = b"".join([pcm async for pcm in tts.synthesize(TtsRequest("Heard 3.4 seconds."))])
    assert set(marking.read(audio)) == {34}
    unmarked = "".join([delta.text async for delta in llm.stream(LlmRequest(QUESTION))])
    assert marking.marks_in(unmarked) == ()
    audio = b"".join([pcm async for pcm in tts.synthesize(TtsRequest(unmarked))])
    assert set(marking.read(audio)) == {None}
