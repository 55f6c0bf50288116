"""Tests of the stages of a benchmark's host: a language model with given replies, and repeated speech synthesis."""

from __future__ import annotations

import asyncio

from actors.stages.ports import LlmRequest, TtsRequest
from deployments.local.real_engines import RepeatingTts, ScriptedLlm
from rejoinder.core.reply.prompt_window import ChatMessage
from tests.actors.fakes import ToneTts, WordyLlm
from tests.actors.virtual_time import virtual

QUESTION = (ChatMessage("user", "Why?"),)


async def _answer(llm: ScriptedLlm, request: LlmRequest) -> tuple[str, str | None]:
    async with llm.open(request) as stream:
        deltas = [delta async for delta in stream]
    return "".join(delta.text for delta in deltas), deltas[-1].finish


@virtual
async def test_a_script_replaces_the_answer_and_not_the_prefill() -> None:
    """While `script` is set, requests are answered with its words and the finish reason "stop".

    Prefills, and requests after `script` is cleared, go to the model.
    """
    model = WordyLlm()
    llm = ScriptedLlm(model)
    own = await _answer(llm, LlmRequest(QUESTION))
    llm.script = "Because it is so."
    assert await _answer(llm, LlmRequest(QUESTION)) == ("Because it is so.", "stop")
    assert await _answer(llm, LlmRequest(QUESTION, prefill=True)) != ("Because it is so.", "stop")
    llm.script = ""
    assert await _answer(llm, LlmRequest(QUESTION)) == own


@virtual
async def test_a_text_is_synthesized_once_and_repeated_with_the_same_delays() -> None:
    """A second request for the same text gets the same chunks after the same delays, without a call of the engine."""
    clock = asyncio.get_running_loop().time
    engine = ToneTts(delay_s=0.3)
    port = RepeatingTts(engine, clock)

    async def hears() -> tuple[list[bytes], float]:
        began = clock()
        async with port.open(TtsRequest("Hello there.")) as chunks:
            return [chunk async for chunk in chunks], round(clock() - began, 6)

    first, second = await hears(), await hears()
    assert first == second
    assert first[1] >= 0.3


@virtual
async def test_an_interrupted_synthesis_is_not_repeated() -> None:
    """If a stream was closed before its end, its audio is not repeated: the next request is synthesized."""
    port = RepeatingTts(ToneTts(), asyncio.get_running_loop().time)
    async with port.open(TtsRequest("A longer text.")) as chunks:
        await anext(chunks)
    async with port.open(TtsRequest("A longer text.")) as chunks:
        assert len([chunk async for chunk in chunks]) > 1
