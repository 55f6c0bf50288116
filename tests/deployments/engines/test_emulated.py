"""Emulated engines in virtual time: slots, queues, refusals and cancellation."""

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
from rejoinder.core.turns.transcript_ending import TranscriptEnding, classify_ending
from tests.actors.virtual_time import virtual

QUESTION = (ChatMessage("user", "What is the capital of France?"),)
JOB = SttJob(bytes(32_000))


def settings(stage: str, max_queue: int = 16, **emulation: Any) -> Settings:
    return parse_settings({stage: {"engine": "emulated", "max_queue": max_queue, "emulation": emulation}})


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_slots_bound_what_is_served_at_once() -> None:
    """Five jobs of 100 ms on two slots end at 100, 100, 200, 200 and 300 ms, and each reports its queue time."""
    stt = EmulatedStt(settings("stt", slots=2, curve={"median_ms": 100}))
    started_at = now()

    async def transcribe() -> tuple[float, float]:
        transcript = await stt.transcribe(JOB)
        return round(now() - started_at, 3), round(transcript.queue_ms)

    assert sorted(await asyncio.gather(*(transcribe() for _ in range(5)))) == [
        (0.1, 0),
        (0.1, 0),
        (0.2, 100),
        (0.2, 100),
        (0.3, 200),
    ]


@virtual
@pytest.mark.parametrize(("full_stop", "ends"), [(False, TranscriptEnding.UNCLEAR), (True, TranscriptEnding.FINISHED)])
async def test_an_emulated_transcript_reads_finished_only_with_full_stop(
    full_stop: bool, ends: TranscriptEnding
) -> None:
    """The transcript reads as a finished sentence only with `full_stop`. Otherwise the turn detector has to decide."""
    transcript = await EmulatedStt(settings("stt", full_stop=full_stop)).transcribe(JOB)
    assert classify_ending(transcript.text) is ends


@virtual
async def test_a_full_queue_refuses() -> None:
    """With one slot and a queue of length one, a third concurrent request is refused at once."""
    stt = EmulatedStt(settings("stt", max_queue=1, slots=1))
    first, second = (asyncio.create_task(stt.transcribe(JOB)) for _ in range(2))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded, match="slots are taken"):
        await stt.transcribe(JOB)
    await asyncio.gather(first, second)


@pytest.mark.parametrize(("ignore", "free_after"), [(False, 0.0), (True, 4.0)])
@virtual
async def test_cancelling_frees_the_slot_unless_the_engine_ignores_it(ignore: bool, free_after: float) -> None:
    """A stream that is cancelled after 1 s of 5 s frees its slot at once; with `ignore_cancellation`, after the 5 s."""
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
async def test_tokens_come_at_the_profiles_rate() -> None:
    """The first token comes after the service time and the others at the token rate. The usage counts all of them."""
    llm = EmulatedLlm(settings("llm", curve={"median_ms": 200}, tokens=21, tokens_per_s=100), "a")
    started_at = now()
    deltas = [(now() - started_at, delta) async for delta in llm.stream(LlmRequest(QUESTION))]
    assert deltas[0][0] == pytest.approx(0.2)
    assert deltas[-1][0] == pytest.approx(0.4)
    usage = deltas[-1][1].usage
    assert usage
    assert usage.completion_tokens == sum(delta.tokens for _, delta in deltas) == 21


@virtual
async def test_an_answer_continues_after_its_prefix() -> None:
    """A request with a prefix of the answer returns the rest, so prefix and rest together are the whole answer."""

    async def answer(request: LlmRequest) -> str:
        llm = EmulatedLlm(settings("llm", tokens=12), "a")
        return "".join([delta.text async for delta in llm.stream(request)])

    whole = await answer(LlmRequest(QUESTION))
    begin = " ".join(whole.split()[:5])
    assert f"{begin} {await answer(LlmRequest(QUESTION, prefix=begin))}" == whole


@virtual
async def test_a_voice_is_audible_and_as_long_as_its_words() -> None:
    """Thirty characters give 2 s of emulated speech. Every chunk is audible, and chunks join without a click."""
    tts = EmulatedTts(settings("tts", curve={"median_ms": 80}, speed=4))
    started_at = now()
    chunks = [(now() - started_at, pcm) async for pcm in tts.synthesize(TtsRequest("x" * 30))]
    audio = b"".join(pcm for _, pcm in chunks)
    assert len(audio) == 2 * WIRE_RATE * 2
    assert chunks[0][0] == pytest.approx(0.08)
    assert chunks[-1][0] == pytest.approx(0.08 + 1.8 / 4)
    assert all(rms_dbfs(pcm) > -25 for _, pcm in chunks)
    assert np.abs(np.diff(pcm16_to_float(audio))).max() < 0.05


@virtual
async def test_a_marked_answer_names_what_it_answers_in_every_segment_and_sample() -> None:
    """With `marked`, the number in the last user message is in every sentence and in every window of the audio.

    If the message has no number, the answer and the audio are unmarked.
    """
    messages = (
        *QUESTION,
        ChatMessage("assistant", "Heard 1.0 seconds."),
        ChatMessage("user", marking.transcript(3.42, ".")),
    )
    llm = EmulatedLlm(settings("llm", tokens=6, marked=True), "a")
    text = "".join([delta.text async for delta in llm.stream(LlmRequest(messages))])
    assert text == "Heard 3.4 seconds. Heard 3.4 seconds."
    tts = EmulatedTts(settings("tts", marked=True))
    audio = b"".join([pcm async for pcm in tts.synthesize(TtsRequest("Heard 3.4 seconds."))])
    assert set(marking.read(audio)) == {34}
    unmarked = "".join([delta.text async for delta in llm.stream(LlmRequest(QUESTION))])
    assert marking.marks_in(unmarked) == ()
    audio = b"".join([pcm async for pcm in tts.synthesize(TtsRequest(unmarked))])
    assert set(marking.read(audio)) == {None}
