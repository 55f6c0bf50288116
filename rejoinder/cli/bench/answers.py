"""`rejoinder bench answers`: the share of sane answers to spoken questions, and the latency, of language models."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from actors.stages.ports import LlmRequest
from deployments.llm import LlmEngine, open_engine
from loadtest.benches.answers.questions import AnswerQuestion
from loadtest.results.spread import Spread, spread
from rejoinder.core.measuring.answer_rules import AnswerFault
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings

SPOKEN_WORDS = 7
"""Number of words of an answer after which the first segment for speech synthesis is complete in any case."""
WARM_UP = "Hello, can you hear me?"


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer of a model.

    Attributes:
        question: The question, with the rule that judges the answer.
        text: The answer.
        fault: What the rule found wrong with the answer; None if it is right.
        cut_off: True if the answer reached the limit of tokens.
        first_token_ms: Milliseconds until the first token.
        words_ms: Milliseconds until SPOKEN_WORDS (7) words, or until the end of a shorter answer.
    """

    question: AnswerQuestion
    text: str
    fault: AnswerFault | None
    cut_off: bool
    first_token_ms: float
    words_ms: float

    def document(self) -> dict[str, Any]:
        """Return the answer as the dict that `--json` writes."""
        return {
            "category": self.question.category,
            "ask": [message.content for message in self.question.turns],
            "answer": self.text,
            "fault": self.fault,
            "cut_off": self.cut_off,
            "first_token_ms": round(self.first_token_ms, 1),
            "words_ms": round(self.words_ms, 1),
        }


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """All answers of one model.

    Attributes:
        engine: Name of the engine and its model.
        answers: The answers, in the order of the questions.
    """

    engine: str
    answers: Sequence[ModelAnswer]

    @property
    def share(self) -> float:
        """Share of the right answers, 0 to 1."""
        return sum(answer.fault is None for answer in self.answers) / len(self.answers)

    @property
    def foreign(self) -> int:
        """Number of answers in a wrong language."""
        return sum(answer.fault is AnswerFault.LANGUAGE for answer in self.answers)

    def shares(self) -> dict[str, tuple[int, int]]:
        """Return (number of right answers, number of questions) of each category, in the order of the questions."""
        counts: dict[str, tuple[int, int]] = {}
        for answer in self.answers:
            right, asked = counts.get(answer.question.category, (0, 0))
            counts[answer.question.category] = (right + (answer.fault is None), asked + 1)
        return counts

    def latency(self) -> dict[str, Spread]:
        """Return statistics of the milliseconds to the first token and to the first seven words, by name."""
        return {
            "first token": spread([answer.first_token_ms for answer in self.answers]),
            f"{SPOKEN_WORDS} words": spread([answer.words_ms for answer in self.answers]),
        }

    def holds(self, bar: float) -> bool:
        """Return True if the share of right answers is at least `bar` (0 to 1) and no answer is in a wrong language."""
        return self.share >= bar and not self.foreign

    def document(self) -> dict[str, Any]:
        """Return the results as the dict that `--json` writes."""
        return {
            "engine": self.engine,
            "share": round(self.share, 4),
            "wrong_language": self.foreign,
            "cut_off": sum(answer.cut_off for answer in self.answers),
            "categories": {name: right / asked for name, (right, asked) in self.shares().items()},
            "latency_ms": {name: {"p50": s.median_ms, "p95": s.p95_ms} for name, s in self.latency().items()},
            "answers": [answer.document() for answer in self.answers],
        }


def measure(settings: Settings, questions: Sequence[AnswerQuestion]) -> ModelAnswers:
    """Load the language model of `settings` in this process and ask it every question, one after another."""
    return asyncio.run(_ask_all(open_engine(settings), settings, questions))


async def _ask_all(engine: LlmEngine, settings: Settings, questions: Sequence[AnswerQuestion]) -> ModelAnswers:
    rules = settings.conversation
    instructions = ChatMessage("system", rules.instructions)

    def request(turns: Sequence[ChatMessage], session: str) -> LlmRequest:
        return LlmRequest((instructions, *turns), rules.max_reply_tokens, rules.temperature, session=session)

    await _answer(engine, request([ChatMessage("user", WARM_UP)], "warm-up"))
    answers = []
    for number, question in enumerate(questions):
        text, cut_off, first_s, words_s = await _answer(engine, request(question.turns, f"question-{number}"))
        answers.append(
            ModelAnswer(
                question,
                text=text,
                fault=question.rule.fault(text),
                cut_off=cut_off,
                first_token_ms=first_s * 1000,
                words_ms=words_s * 1000,
            )
        )
    return ModelAnswers(engine.name, answers)


async def _answer(engine: LlmEngine, request: LlmRequest) -> tuple[str, bool, float, float]:
    """Return (text, whether the limit of tokens cut it off, seconds to the first token, seconds to seven words)."""
    began, text, cut_off = time.perf_counter(), "", False
    first_s = words_s = 0.0
    async with aclosing(engine.stream(request)) as deltas:
        async for delta in deltas:
            passed_s = time.perf_counter() - began
            text += delta.text
            first_s = first_s or (passed_s if text else 0.0)
            # The last word may be incomplete, so seven words are known only when the eighth has begun.
            words_s = words_s or (passed_s if len(text.split()) > SPOKEN_WORDS else 0.0)
            cut_off = delta.finish == "length"
    whole_s = time.perf_counter() - began
    return text.strip(), cut_off, first_s or whole_s, words_s or whole_s


def share_table(found: Sequence[ModelAnswers]) -> Table:
    """Return a table with the share of right answers by category and overall, and the latency, of each model."""
    rows = Table("category", *(model.engine for model in found), title="right answers")
    counts: dict[str, list[str]] = defaultdict(list)
    for model in found:
        for category, (right, asked) in model.shares().items():
            counts[category].append(f"{right}/{asked}")
    for category, cells in counts.items():
        rows.add_row(category, *cells)
    rows.add_section()
    rows.add_row("all", *(f"{model.share:.0%}" for model in found))
    rows.add_row("wrong language", *(str(model.foreign) for model in found))
    rows.add_row("cut off at the token limit", *(str(sum(a.cut_off for a in model.answers)) for model in found))
    for name in found[0].latency():
        spreads = [model.latency()[name] for model in found]
        rows.add_row(f"{name}, p50 / p95 ms", *(f"{s.median_ms:.0f} / {s.p95_ms:.0f}" for s in spreads))
    return rows


def failures_table(model: ModelAnswers) -> Table:
    """Return a table of a model's wrong answers: category, question, fault and answer."""
    rows = Table("category", "question", "fault", "answer", title=f"wrong answers of {model.engine}")
    for answer in model.answers:
        if answer.fault:
            rows.add_row(answer.question.category, answer.question.text, answer.fault.value, answer.text)
    return rows
