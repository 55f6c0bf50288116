"""Tests of summaries, which replace old turns of a conversation in the prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from actors.stages.ports import ANYWHERE, LlmRequest, LlmStream, LlmUsage, TokenDelta
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ConversationSettings, Settings
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

SUMMED_UP = Settings(conversation=ConversationSettings(context_turns=2, context_drop_turns=2, summary_words=40))
SUMMARY = "The caller wants a taxi."


class _OneDelta:
    """Language model stream with SUMMARY as its only delta."""

    replica = "a"

    def __aiter__(self) -> AsyncIterator[TokenDelta]:
        return self._deltas()

    async def _deltas(self) -> AsyncIterator[TokenDelta]:
        yield TokenDelta(SUMMARY, 5, "stop", LlmUsage(1, 5))


@dataclass
class SummingLlm(WordyLlm):
    """Fake language model that answers each request for a summary with SUMMARY, or fails if `fails` is set.

    `summary_requests` has the requests for summaries.
    """

    fails: bool = False
    summary_requests: list[LlmRequest] = field(default_factory=list)

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        if "Summarize" not in request.messages[0].content:
            async with super().open(request, avoid=avoid, strict=strict, only=only) as stream:
                yield stream
            return
        self.summary_requests.append(request)
        if self.fails:
            raise BackendError("gone.", stage="llm")
        yield _OneDelta()


async def converse(llm: WordyLlm, settings: Settings, turns: int) -> tuple[Play, list[list[str]]]:
    """Have a conversation of `turns` turns. Return the test scenario and, for each prompt, its message texts."""
    play = Play(settings=settings, stt=ScriptedStt(deque(f"Question {at}, please." for at in range(turns))))
    play.llm = llm
    async with play.call() as caller:
        await caller.hush(0.5)
        for _ in range(turns):
            await caller.say(1.0)
            await caller.hush(1.0)
    return play, [[message.content for message in request.messages] for _, request in llm.requests]


@virtual
async def test_a_summary_replaces_the_turns_that_leave() -> None:
    """Before the fourth turn the first two turns are summarized, and the fourth prompt has the summary instead of them.
    Before the sixth turn the summary is extended.
    """
    llm = SummingLlm()
    _, prompts = await converse(llm, SUMMED_UP, 5)
    assert len(llm.summary_requests) == 2
    assert llm.summary_requests[1].messages[1].content.splitlines()[:2] == [
        f"Before: {SUMMARY}",
        "user: Question 2, please.",
    ]
    assert llm.summary_requests[0].messages[1].content.splitlines()[0] == "user: Question 0, please."
    assert any("Question 0" in content for content in prompts[2])
    assert any(SUMMARY in content for content in prompts[3])
    assert not any("Question 0" in content or "Question 1" in content for content in prompts[3])
    assert any("Question 2" in content for content in prompts[3])
    assert prompts[4][:2] == prompts[3][:2]  # an unchanged beginning keeps the engine's KV cache


@virtual
async def test_a_failed_summary_keeps_the_turns() -> None:
    """If a summary fails, the turns stay in the prompt, and the summary is requested again after the next reply."""
    llm = SummingLlm(fails=True)
    play, prompts = await converse(llm, SUMMED_UP, 5)
    assert len(llm.summary_requests) >= 2
    assert any("Question 0" in content for content in prompts[3])
    assert play.metrics.counts["backend llm_summary"] >= 2


@virtual
async def test_summaries_are_off_by_default() -> None:
    """By default no summary is requested."""
    llm = SummingLlm()
    forgetting = Settings(conversation=ConversationSettings(context_turns=2, context_drop_turns=2))
    await converse(llm, forgetting, 5)
    assert llm.summary_requests == []
