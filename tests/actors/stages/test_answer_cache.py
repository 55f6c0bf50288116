"""Tests of the answer cache in a conversation.

They check which questions it answers, how long lookups take, and which answers are stored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.host import Host
from actors.stages.answer_cache import AnswerCacheClient
from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import ANYWHERE, CachedAnswer, LlmRequest, TokenDelta
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.answer_cache import LATE_IN_A_ROW, NOBODY, AnswerIndex, CacheHit, CacheQuestion, tenant_of
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import AnswerCacheSettings, EndpointingSettings, Settings, SpeculationSettings
from tests.actors.fakes import ANSWER, CountingMetrics, ScriptedStt, ScriptedTurn, ToneTts, WordyLlm
from tests.actors.stage_play import SOUND_DECIDES, Caller, Play
from tests.actors.virtual_time import virtual

RULES = AnswerCacheSettings(enabled=True, semantic=False)
# Without drafts the reply begins at the commit, so the time of a lookup can be measured.
PLAIN = Settings(answer_cache=RULES, speculation=SpeculationSettings(enabled=False))
OPENING = "Where is the main entrance?"
LOOKUP_S = 0.005


@dataclass
class SharedCache:
    """Fake answer cache with the real index. Each call takes `delay_s` seconds and raises `fault`, if it is set."""

    delay_s: float = LOOKUP_S
    fault: Exception | None = None
    index: AnswerIndex = field(default_factory=lambda: AnswerIndex(RULES, 0))
    lookups: int = 0
    cancelled: int = 0

    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        self.lookups += 1
        await self._work()
        return self.index.exact(question, asyncio.get_running_loop().time())

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        await self._work()
        self.index.keep(answered.question, None, answered.answer, asyncio.get_running_loop().time())

    async def _work(self) -> None:
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault:
            raise self.fault


def play_of(cache: SharedCache | None, text: str = OPENING, settings: Settings = PLAIN) -> Play:
    return Play(settings=settings, stt=ScriptedStt(deque([text])), answers=cache)


async def first_answer(play: Play) -> dict[str, Any]:
    """Ask one question in one call, listen to the whole answer, and return its response.done."""
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
        await caller.hush(30)
    return done


def waited_s(caller: Caller) -> float:
    """Return the seconds from the commit of the turn to the first audio of its reply."""
    return caller.at("response.output_audio.delta") - caller.at("input_audio_buffer.committed")


@virtual
async def test_a_hit_never_asks_the_language_model() -> None:
    """A question that was answered on one host gets the stored answer on another, without a language model call.

    Its audio and its item in the conversation are those of the first answer.
    """
    cache = SharedCache()
    first, second = play_of(cache), play_of(cache)
    missed = await first_answer(first)
    hit = await first_answer(second)
    assert [missed["rejoinder"]["cache"], hit["rejoinder"]["cache"]] == ["miss", "hit_exact"]
    assert len(first.llm.requests) == 1
    assert second.llm.requests == []
    assert hit["response"]["output"][0]["content"][0]["transcript"] == ANSWER
    assert hit["response"]["usage"]["output_tokens"] == 0
    assert second.tts.texts == first.tts.texts
    assert first.metrics.counts["cache stored"] == second.metrics.counts["cache hit_exact"] == 1
    assert second.metrics.counts["cache stored"] == 0


@virtual
async def test_a_hit_is_heard_sooner_and_its_time_is_accounted_for() -> None:
    """A hit makes the reply about 120 ms earlier than a miss. Its first token takes as long as the lookup, and at most
    1 ms of the turn is attributed to no stage.
    """
    cache = SharedCache()
    waits, done = {}, {}
    for kind in ("miss", "hit_exact"):
        play = play_of(cache)
        async with play.call() as caller:
            await caller.hush(0.5)
            done[kind] = (await caller.say(1.0))["rejoinder"]
            await caller.hush(30)
        waits[kind] = waited_s(caller)
        assert done[kind]["cache"] == kind
    assert waits["miss"] - waits["hit_exact"] == pytest.approx(0.08 + 0.04, abs=0.03)
    assert done["hit_exact"]["stages_ms"]["llm_first_token"] == pytest.approx(LOOKUP_S * 1000, abs=0.1)
    assert done["hit_exact"]["unattributed_ms"] <= 1
    assert done["hit_exact"]["llm_total_ms"] is None


@virtual
async def test_a_late_cache_costs_its_deadline_and_then_nothing() -> None:
    """If the cache never answers, three turns wait 50 ms (`call_timeout_ms`) each. The next turn makes no lookup."""
    waits: list[float] = []
    silent = SharedCache(delay_s=3600)
    async with play_of(None).call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
    without = waited_s(caller)
    play = play_of(silent)
    async with play.open() as host:
        for _ in range(LATE_IN_A_ROW + 1):
            caller = Caller()
            async with host.converse(f"c{len(waits)}", caller.take, "rejoinder") as session:
                caller.session = session
                await caller.hush(0.5)
                await caller.speak(0.5)
                await caller.listen("response.output_audio.delta")
            waits.append(waited_s(caller) - without)
    assert waits[:LATE_IN_A_ROW] == pytest.approx([RULES.call_timeout_ms / 1000] * LATE_IN_A_ROW, abs=0.011)
    assert waits[-1] == pytest.approx(0, abs=0.011)
    assert (play.metrics.counts["cache late"], play.metrics.counts["cache paused"]) == (LATE_IN_A_ROW, 1)
    assert silent.lookups == silent.cancelled == LATE_IN_A_ROW


@virtual
async def test_a_dead_cache_is_a_miss() -> None:
    """If a lookup fails, the language model answers normally, without an apology."""
    play = play_of(SharedCache(fault=BackendError("gone.", stage="answer_cache")))
    done = await first_answer(play)
    assert done["response"]["status"] == "completed"
    assert done["rejoinder"]["cache"] == "failed"
    assert play.metrics.counts["cache failed"] == 1
    assert play.metrics.counts["cache dropped"] == 1


@virtual
async def test_without_a_cache_nothing_is_counted() -> None:
    """Without a cache no lookup is made and none is counted."""
    play = play_of(None, settings=Settings())
    done = await first_answer(play)
    assert done["rejoinder"]["cache"] is None
    assert not [name for name in play.metrics.counts if name.startswith("cache")]


@pytest.mark.parametrize(
    ("text", "outcome"), [("What is in my basket?", "refused_personal"), ("Are you open today?", "refused_time")]
)
@virtual
async def test_private_questions_are_not_looked_up_or_stored(text: str, outcome: str) -> None:
    """A personal or time-dependent question is answered by the language model without a lookup, and is not stored."""
    cache = SharedCache()
    play = play_of(cache, text)
    done = await first_answer(play)
    assert done["rejoinder"]["cache"] == outcome
    assert cache.lookups == len(cache.index) == 0
    assert play.metrics.counts[f"cache {outcome}"] == 1
    assert len(play.llm.requests) == 1


@virtual
async def test_only_the_opening_of_a_conversation_is_kept() -> None:
    """Only the answer to the first question of a conversation is stored: later ones depend on the turns before."""
    cache = SharedCache()
    play = play_of(cache)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
        await caller.hush(30)
        done = await caller.say(1.0)
        await caller.hush(30)
    assert done["rejoinder"]["cache"] == "refused_context"
    assert len(cache.index) == 1


@virtual
async def test_an_answer_that_was_cut_is_not_kept() -> None:
    """An answer that a barge-in cancelled is not stored, even if the language model had completed it."""
    cache = SharedCache()
    play = play_of(cache)
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(1.0)
        await caller.speak(1.0)
        assert play.llm.running == 0
        assert play.metrics.counts["cache miss"] == 1
        await caller.hush(0.2)
    assert len(cache.index) == 0


@virtual
async def test_an_answer_that_reached_its_limit_is_not_kept() -> None:
    """An answer that reached max_output_tokens is not stored."""
    cache = SharedCache()
    settings = PLAIN.model_copy(update={"conversation": PLAIN.conversation.model_copy(update={"max_reply_tokens": 4})})
    done = await first_answer(play_of(cache, settings=settings))
    assert done["response"]["status"] == "incomplete"
    assert len(cache.index) == 0


@virtual
async def test_an_answer_after_an_apology_is_not_stored() -> None:
    """If an apology was played in the same response before the answer, the answer is not stored in the cache."""
    cache = SharedCache()
    play = play_of(cache)
    play.llm = WordyLlm(fault=BackendError("gone.", stage="llm"))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        play.llm.fault = None
        done = await caller.listen("response.done")
        await caller.hush(30)
    assert done["response"]["status"] == "completed"
    assert len(cache.index) == 0


@virtual
async def test_tenants_and_prompts_do_not_share_answers() -> None:
    """The same question from another API key or with other instructions does not get the stored answer.

    It gets a stored answer only when it is repeated with the same key and instructions.
    """
    cache = SharedCache()
    play = play_of(cache)
    found: list[str] = []
    async with play.open() as host:
        for tenant, instructions in (("a", ""), ("b", ""), ("a", "Be rude."), ("a", ""), ("b", "")):
            found.append(await _outcome(host, tenant_of(tenant), instructions))
    assert found == ["miss", "miss", "miss", "hit_exact", "hit_exact"]


async def _outcome(host: Host, tenant: str, instructions: str) -> str:
    caller = Caller()
    async with host.converse(f"{id(caller)}", caller.take, "rejoinder", tenant) as session:
        caller.session = session
        if instructions:
            await caller.ask(type="session.update", session={"type": "realtime", "instructions": instructions})
        await caller.hush(0.5)
        done = await caller.say(1.0)
        await caller.hush(30)
    return str(done["rejoinder"]["cache"])


# -- drafts ------------------------------------------------------------------------------------------------------------

# A turn detector that returns 0.5 requires half a second of silence.
EAGER = Settings(answer_cache=RULES, endpointing=EndpointingSettings(table=SOUND_DECIDES, patience_ms=500))


def hesitant(cache: SharedCache, *texts: str) -> Play:
    """Return a test scenario in which half a second of silence ends a turn, so drafts are ready before the commit."""
    return Play(settings=EAGER, stt=ScriptedStt(deque(texts)), turn=ScriptedTurn(deque([0.5])), answers=cache)


@virtual
async def test_a_draft_is_answered_from_the_cache_and_a_missed_one_is_kept() -> None:
    """A draft looks up its answer before the commit. After a miss, the generated answer is stored once it was heard."""
    cache = SharedCache()
    for outcome in ("miss", "hit_exact"):
        play = hesitant(cache, OPENING)
        async with play.call() as caller:
            await caller.hush(0.5)
            done = await caller.say(1.0)
            await caller.hush(30)
        assert (done["rejoinder"]["drafted"], done["rejoinder"]["cache"]) == (True, outcome)
        assert waited_s(caller) == pytest.approx(0, abs=0.001)
    assert play.llm.requests == []


@virtual
async def test_nothing_of_a_discarded_draft_is_kept() -> None:
    """The answer of a discarded draft is not stored, and the answer to the complete question is stored."""
    cache = SharedCache()
    play = hesitant(cache, "Where is the", "Where is the side entrance?")
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(1.0)
        await caller.hush(0.35)
        await caller.say(0.5)
        await caller.hush(30)
    assert play.metrics.counts["draft discarded"] == 1
    assert play.metrics.counts["cache stored"] == len(cache.index) == 1


@virtual
async def test_an_unspoken_answer_is_not_stored() -> None:
    """If text-to-speech fails for good, the answer is not stored."""
    cache = SharedCache()
    settings = PLAIN.model_copy(update={"conversation": PLAIN.conversation.model_copy(update={"give_up_after_s": 1.0})})
    play = play_of(cache, settings=settings)
    play.tts = ToneTts(fault=BackendError("gone.", stage="tts"))
    done = await first_answer(play)
    assert done["response"]["status"] == "failed"
    assert len(cache.index) == 0


@virtual
async def test_answers_of_the_small_model_are_not_stored() -> None:
    """Answers of the small model, used while a stage is slow, are not stored. Those of the usual model are."""
    answer_cache = AnswerCacheClient(SharedCache(), RULES, CountingMetrics(), asyncio.get_running_loop().time)

    async def ask() -> AsyncGenerator[TokenDelta, None]:
        yield TokenDelta(ANSWER, finish="stop")

    kept = {}
    for small in (False, True):
        stats = GenerationStats()
        request = LlmRequest((ChatMessage("system", "Be kind."), ChatMessage("user", OPENING)), small=small)
        async for _ in answer_cache.stream(request, NOBODY, stats, ask):
            pass
        kept[small] = stats.question is not None
    assert kept == {False: True, True: False}
