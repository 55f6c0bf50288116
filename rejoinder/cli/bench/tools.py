"""`rejoinder bench tools`: the share of requests for which a language model calls the right tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from actors.stages.ports import LlmRequest, SttJob, TtsRequest
from deployments.llm import LlmEngine, open_engine
from deployments.stt import Stt
from deployments.tts import Tts
from loadtest.benches.tools.requests import INSTRUCTIONS, CallFault, ToolRequest
from loadtest.results.spread import spread
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.audio.resample import Resampler
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.reply.tools.written import written_calls
from rejoinder.core.settings.settings import Settings

SILENCE_S = 0.4
"""Silence before and after each spoken request, in seconds."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """A model's answer to one request.

    Attributes:
        request: The request.
        heard: The words that the model got: those of the request, or their transcript.
        calls: The calls that the client would get.
        text: All that the model wrote.
        fault: What is wrong with the calls; None if they are right.
        total_ms: Milliseconds until the end of the answer.
    """

    request: ToolRequest
    heard: str
    calls: tuple[ToolCall, ...]
    text: str
    fault: CallFault | None
    total_ms: float

    def document(self) -> dict[str, Any]:
        """Return the answer as the dict that `--json` writes."""
        return {
            "service": self.request.service,
            "ask": self.request.text,
            "heard": self.heard,
            "tool": self.request.tool,
            "answer": self.text,
            "fault": self.fault.value if self.fault else None,
            "total_ms": round(self.total_ms, 1),
        }


@dataclass(frozen=True, slots=True)
class ToolAnswers:
    """All answers of one model.

    Attributes:
        engine: Name of the engine and its model.
        answers: The answers, in the order of the requests.
    """

    engine: str
    answers: Sequence[ToolAnswer]

    @property
    def needed(self) -> list[ToolAnswer]:
        """The answers to requests that need a tool."""
        return [answer for answer in self.answers if answer.request.tool]

    @property
    def share(self) -> float:
        """Share of the requests that need a tool for which the right tool is called with arguments that fit its schema.

        The values of the arguments may be wrong; `share_of_values` counts those.
        """
        return sum(answer.fault in (None, CallFault.VALUES) for answer in self.needed) / len(self.needed)

    @property
    def share_of_values(self) -> float:
        """Share of the requests that need a tool for which the values of the arguments are right, too."""
        return sum(answer.fault is None for answer in self.needed) / len(self.needed)

    @property
    def needless(self) -> tuple[int, int]:
        """Number of sentences that need no tool and for which one is called, and number of such sentences."""
        talk = [answer for answer in self.answers if not answer.request.tool]
        return sum(answer.fault is CallFault.NEEDLESS for answer in talk), len(talk)

    def document(self) -> dict[str, Any]:
        """Return the results as the dict that `--json` writes."""
        return {
            "engine": self.engine,
            "share": round(self.share, 4),
            "share_of_values": round(self.share_of_values, 4),
            "needless": self.needless[0],
            "answers": [answer.document() for answer in self.answers],
        }


def measure(settings: Settings, requests: Sequence[ToolRequest], *, spoken: bool) -> ToolAnswers:
    """Load the language model of `settings` in this process and send it every request, one after another.

    With `spoken`, the voice speaks each request and speech to text transcribes it before.
    """
    return asyncio.run(_ask_all(settings, requests, spoken=spoken))


async def _ask_all(settings: Settings, requests: Sequence[ToolRequest], *, spoken: bool) -> ToolAnswers:
    heard = await _heard(settings, [request.text for request in requests]) if spoken else None
    engine = open_engine(settings)
    answers = []
    for number, request in enumerate(requests):
        words = heard[number] if heard else request.text
        answers.append(await _answer(engine, settings, request, words, session=f"request-{number}"))
    return ToolAnswers(engine.name, answers)


async def _answer(
    engine: LlmEngine, settings: Settings, request: ToolRequest, words: str, *, session: str
) -> ToolAnswer:
    messages = (ChatMessage("system", INSTRUCTIONS), ChatMessage("user", words))
    rules = settings.conversation
    asked = LlmRequest(messages, rules.max_reply_tokens, rules.temperature, session=session, tools=request.offer)
    began, text, calls = time.perf_counter(), "", tuple[ToolCall, ...]()
    async with aclosing(engine.stream(asked)) as deltas:
        async for delta in deltas:
            text += delta.text
            calls += delta.calls
    total_ms = (time.perf_counter() - began) * 1000
    made = request.offer.accepted(calls) or written_calls(text, request.offer)
    return ToolAnswer(request, heard=words, calls=made, text=text.strip(), fault=request.fault(made), total_ms=total_ms)


async def _heard(settings: Settings, texts: Sequence[str]) -> list[str]:
    """Return the transcript of each text, spoken by the voice of `settings`."""
    voice, recognizer = Tts(settings), Stt(settings)
    await recognizer.check_health()
    heard = []
    for text in texts:
        pcm = b"".join([chunk async for chunk in voice.synthesize(TtsRequest(text))])
        silence = bytes(2 * round(SILENCE_S * STT_RATE))
        clip = silence + Resampler()(pcm) + silence
        heard.append((await recognizer.transcribe(SttJob(clip, deadline_s=60.0))).text)
    return heard


def table(found: ToolAnswers) -> Table:
    """Return a table with the shares and the latency."""
    rows = Table("what", found.engine, title="tool calls")
    rows.add_row("right tool, arguments fit the schema", f"{found.share:.0%} of {len(found.needed)}")
    rows.add_row("values of the arguments right, too", f"{found.share_of_values:.0%}")
    rows.add_row("needless calls", "{} of {}".format(*found.needless))
    spent = spread([answer.total_ms for answer in found.needed])
    rows.add_row("whole answer, p50 / p95 ms", f"{spent.median_ms:.0f} / {spent.p95_ms:.0f}")
    return rows


def faults_table(found: ToolAnswers) -> Table:
    """Return a table of the wrong answers: service, words, fault and answer."""
    rows = Table("service", "words", "fault", "answer", title="wrong calls")
    for answer in found.answers:
        if answer.fault:
            rows.add_row(answer.request.service, answer.heard, answer.fault.value, answer.text)
    return rows
