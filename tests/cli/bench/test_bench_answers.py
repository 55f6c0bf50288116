"""Tests of `rejoinder bench answers`: what is sent to the model, what is measured, and when the result holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from loadtest.benches.answers.questions import AnswerQuestion
from rejoinder.cli.bench import answers as bench
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.answer_rules import AnswerFault, AnswerRule
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings
from tests.cli.printing import printed_rows

PARIS = AnswerQuestion(
    "facts", (ChatMessage("user", "Capital of France?"),), AnswerRule(all=("paris",)), right=(), wrong=()
)
ROME = AnswerQuestion(
    "facts", (ChatMessage("user", "Capital of Italy?"),), AnswerRule(all=("rome",)), right=(), wrong=()
)


class ParisAlways:
    """Language model that answers everything with Paris, word by word, `delay_s` before each."""

    name, prefills = "paris", False

    def __init__(self, text: str = "The capital is Paris, a city in the north.", delay_s: float = 0.0) -> None:
        self.text = text
        self.delay_s = delay_s
        self.requests: list[LlmRequest] = []

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        self.requests.append(request)
        for word in self.text.split():
            await asyncio.sleep(self.delay_s)
            yield TokenDelta(f"{word} ", 1)
        yield TokenDelta("", 0, "length", LlmUsage(1, 1))

    async def check_health(self) -> None:
        """Do nothing."""


def ask(monkeypatch: pytest.MonkeyPatch, engine: ParisAlways) -> bench.ModelAnswers:
    monkeypatch.setattr(bench, "open_engine", lambda settings: engine)
    return bench.measure(Settings(), [PARIS, ROME])


def test_a_model_is_asked_as_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has the configured instructions, limits and conversation, after one warm-up."""
    engine, rules = ParisAlways(), Settings().conversation
    ask(monkeypatch, engine)
    assert len(engine.requests) == 3
    for request, question in zip(engine.requests[1:], (PARIS, ROME), strict=True):
        assert request.messages == (ChatMessage("system", rules.instructions), *question.turns)
        assert (request.max_tokens, request.temperature) == (rules.max_reply_tokens, rules.temperature)


def test_the_share_counts_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two answers is right; both reached the token limit; the bar decides whether the result holds."""
    found = ask(monkeypatch, ParisAlways())
    assert [answer.fault for answer in found.answers] == [None, AnswerFault.CONTENT]
    assert found.shares() == {"facts": (1, 2)}
    assert found.holds(0.5)
    assert not found.holds(0.51)
    rows = printed_rows(bench.share_table([found]))
    assert ("all", "50%") in [tuple(cells) for cells in rows]
    assert ("cut off at the token limit", "2") in [tuple(cells) for cells in rows]
    assert [cells[1] for cells in printed_rows(bench.failures_table(found))] == ["Capital of Italy?"]


def test_an_answer_in_a_wrong_language_never_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer in another language fails the result, whatever the share is."""
    found = ask(monkeypatch, ParisAlways("La capitale de la France est Paris."))
    assert found.foreign == 2
    assert not found.holds(0.0)


def test_seven_words_end_where_the_eighth_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token takes one word's time, and seven words the time of eight."""
    found = ask(monkeypatch, ParisAlways(delay_s=0.02))
    for answer in found.answers:
        assert answer.first_token_ms >= 20
        assert answer.words_ms >= 7 * answer.first_token_ms * 0.8
        assert answer.words_ms >= 160
    assert set(found.latency()) == {"first token", "7 words"}
    assert found.document()["categories"] == {"facts": 0.5}


def test_a_wrong_model_is_a_typed_error() -> None:
    """A --model that does not name a model is refused with the setting's name."""
    from rejoinder.cli.bench.app import answers

    with pytest.raises(ConfigError, match=r"args\.llm\.model"):
        answers(models=["./relative.gguf"])
