"""The server that the stock clients call: the real HTTP application, with stages that answer by what is said.

A question is a tone. Its pitch selects its words, so that a transcript does not depend on how often it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from actors.stages.ports import ANYWHERE, LlmRequest, LlmStream, LlmUsage, SttJob, TokenDelta, Transcript
from actors.stages.replica_health import PROBE
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.settings.settings import parse_settings
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play

TIME, WEATHER, STORY, STOP, POEM, HUM, MEMORY = (
    "What time is it?",
    "What is the weather in Paris?",
    "Tell me a story.",
    "Stop, that is enough.",
    "Now say a poem.",
    "Mm-hmm.",
    "What did I ask first?",
)
QUESTIONS = {TIME: 300.0, WEATHER: 450.0, STORY: 600.0, STOP: 750.0, POEM: 900.0, HUM: 1050.0, MEMORY: 1200.0}
"""The pitch of each question in Hz."""
RESULT = "sunny, 21 degrees"
"""What the tool of every driver returns."""
TALE = " ".join(f"Then came fox number {name}." for name in ("one", "two", "three", "four", "five", "six", "seven"))
VERSES = " ".join(f"A verse about number {name}." for name in ("one", "two", "three"))
ANSWERS = {
    TIME: "It is noon.",
    STORY: TALE,
    STOP: "All right.",
    POEM: VERSES,
    MEMORY: "You asked for the time.",
}
FORECAST = "It is sunny in Paris."


def spoken(question: str) -> bytes:
    """Return a question of 1 s, or the sound HUM of 0.4 s, as 24 kHz PCM."""
    radians = (
        np.arange(round(WIRE_RATE * (0.4 if question == HUM else 1.0))) * 2 * np.pi * QUESTIONS[question] / WIRE_RATE
    )
    return float_to_pcm16(0.3 * np.sin(radians))


@dataclass
class PitchStt(ScriptedStt):
    """Fake speech-to-text that returns the question whose pitch is nearest to the loudest one of the audio."""

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        found = await super().transcribe(job, avoid=avoid)
        strengths = np.abs(np.fft.rfft(np.frombuffer(job.pcm, "<i2").astype(np.float64)))
        pitch = float(np.argmax(strengths)) * 16_000 / (len(job.pcm) / 2)
        return replace(found, text=min(QUESTIONS, key=lambda question: abs(QUESTIONS[question] - pitch)))


@dataclass(frozen=True)
class _Calling:
    """A stream with a call of `get_weather`."""

    replica: str = "a"

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        await asyncio.sleep(0.1)
        call = ToolCall("get_weather", '{"city": "Paris"}')
        yield TokenDelta("", 0, "tool_calls", LlmUsage(9, 9), calls=(call,))


@dataclass
class KnowingLlm(WordyLlm):
    """Fake language model: it calls `get_weather` about the weather, speaks its result, and knows the other answers."""

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        last = request.messages[-1]
        if last.role == "user" and last.content == WEATHER and not request.prefill and request.messages != PROBE:
            self.requests.append(("a", request))
            yield _Calling()
            return
        self.answer = FORECAST if last.role == "tool" else ANSWERS.get(last.content, "Hello.")
        async with super().open(request, avoid=avoid, strict=strict, only=only) as stream:
            yield stream


def knowing_play() -> Play:
    """Return a scenario with these stages."""
    settings = parse_settings({"webrtc": {"addresses": ["127.0.0.1"]}})
    return Play(settings=settings, stt=PitchStt(), llm=KnowingLlm())
