"""Tests of the deployment AnswerCache: as an object in the test, and shared by the hosts of a real Ray Serve."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.stages.ports import CachedAnswer
from deployments.answer_cache import AnswerCache
from rejoinder.core.reply.answer_cache import CacheQuestion
from rejoinder.core.settings.settings import AnswerCacheSettings, Settings
from tests.system.harness.served import Served, metric, serving
from tests.system.harness.wire_caller import WireCaller, calling

CACHE = "answer_cache"
COUNTER = "rejoinder_answer_cache_total"
FIRST, AGAIN = "What time do you open?", "When do you open?"


@pytest.mark.models
async def test_answers_are_found_by_text_and_by_similarity() -> None:
    """A stored answer is found for an equal and a similar question, but not for another question.

    A question in another scope (everything else that the answer depends on) does not find it either.
    Cancelled lookups do not affect others. A deleted answer is not found.
    """
    cache = AnswerCache(Settings(answer_cache=AnswerCacheSettings(enabled=True)))
    await cache.store(CachedAnswer(CacheQuestion("s", FIRST), "At nine."))
    exact, similar = (
        await cache.lookup(CacheQuestion("s", "what time do you open")),
        await cache.lookup(CacheQuestion("s", AGAIN)),
    )
    assert exact is not None
    assert similar is not None
    assert (exact.kind, similar.kind, similar.answer) == ("exact", "semantic", "At nine.")
    assert await cache.lookup(CacheQuestion("s", "What time do you close?")) is None
    assert await cache.lookup(CacheQuestion("t", FIRST)) is None
    tasks = [asyncio.create_task(cache.lookup(CacheQuestion("s", f"Where is room {number}?"))) for number in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answer for answer in found if answer is not None and not isinstance(answer, asyncio.CancelledError)] == []
    assert await cache.lookup(CacheQuestion("s", AGAIN)) == similar
    assert await cache.clear() == 1
    assert await cache.lookup(CacheQuestion("s", FIRST)) is None


async def test_without_a_model_only_equal_questions_hit() -> None:
    """With `semantic: false` the cache works without an embedding model and finds only equal questions."""
    cache = AnswerCache(Settings(answer_cache=AnswerCacheSettings(enabled=True, semantic=False)))
    await cache.store(CachedAnswer(CacheQuestion("s", FIRST), "At nine."))
    assert await cache.lookup(CacheQuestion("s", FIRST)) is not None
    assert await cache.lookup(CacheQuestion("s", AGAIN)) is None


# -- Tests with hosts on a real Ray Serve ------------------------------------------------------------------------------


def _args() -> dict[str, Any]:
    emulated = {stage: {"engine": "emulated"} for stage in ("stt", "llm", "tts")}
    two = {"min_replicas": 2, "max_replicas": 2}
    # The emulated answer contains "today", which is time-dependent.
    cache = {"enabled": True, "allow_time_dependent": True, "call_timeout_ms": 1000}
    return emulated | {"host": {"autoscaling": two}, CACHE: cache}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("cached"), _args()) as running:
        yield running


async def _ask(caller: WireCaller, text: str) -> tuple[str, str, float]:
    """Ask a question as text. Return the cache's outcome, such as "miss", the answer, and the seconds to its start."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await caller.send(type="conversation.item.create", item=item)
    asked_at = time.monotonic()
    await caller.send(type="response.create", response={"output_modalities": ["text"]})
    done = await caller.until("response.done")
    first_s = caller.of("response.output_text.delta")[0][0] - asked_at
    response = done["response"]
    assert response["status"] == "completed", done
    return done["rejoinder"]["cache"], response["output"][0]["content"][0]["text"], first_s


async def _kept(served: Served, count: int) -> None:
    """Wait until the hosts have stored `count` answers in the cache."""
    hosts = await asyncio.to_thread(served.replicas, "host")
    async with asyncio.timeout(30):
        while True:
            kept = [metric(host["target"], COUNTER, outcome="stored") for host in hosts]
            if sum(kept) >= count:
                return
            await asyncio.sleep(0.05)


@pytest.mark.ray
@pytest.mark.models
@pytest.mark.timeout(300)
async def test_two_hosts_share_the_answers(served: Served) -> None:
    """The answer that was generated in one call is found in sixteen other calls, which are open at once on two hosts.

    Half of them ask the same question, half ask it in other words.
    """
    async with calling(served.url) as caller:
        outcome, answer, missed_s = await _ask(caller, FIRST)
    assert outcome == "miss"
    await _kept(served, 1)
    first_s: dict[str, list[float]] = {"hit_exact": [], "hit_semantic": []}
    callers = [calling(served.url) for _ in range(16)]
    opened = [await caller.__aenter__() for caller in callers]
    try:
        for number, caller in enumerate(opened):
            text, wanted = (AGAIN, "hit_semantic") if number % 2 else (FIRST, "hit_exact")
            outcome, again, waited_s = await _ask(caller, text)
            assert (outcome, again) == (wanted, answer)
            first_s[wanted].append(waited_s)
        hosts = await asyncio.to_thread(served.replicas, "host")
        kinds = ("hit_exact", "hit_semantic")
        hits = [sum(metric(host["target"], COUNTER, outcome=kind) for kind in kinds) for host in hosts]
        assert len(hits) == 2
        assert min(hits) > 0, "one host held all the calls"
    finally:
        for caller_of in callers:
            await caller_of.__aexit__(None, None, None)
    for kind, waits in first_s.items():
        print(
            f"{kind}: first word {statistics.median(waits) * 1000:.1f} ms after the question (median of {len(waits)})"
        )
    print(f"miss, emulated language model: {missed_s * 1000:.1f} ms")


@pytest.mark.ray
@pytest.mark.models
@pytest.mark.timeout(300)
async def test_a_killed_cache_causes_only_misses(served: Served, tmp_path: Path) -> None:
    """If the only replica of the cache is killed, questions are answered by the language model.

    The replica that replaces it starts empty and is then used.
    """
    (replica,) = await asyncio.to_thread(served.wait_for, CACHE, 1)
    async with calling(served.url) as caller:
        os.kill(int(replica["pid"]), signal.SIGKILL)
        outcome, answer, _ = await _ask(caller, "Do you deliver on Sundays?")
    assert outcome in ("failed", "late")
    assert answer
    await asyncio.to_thread(served.wait_for, CACHE, 1, replica["pid"])
    outcomes: list[str] = []
    async with asyncio.timeout(120):
        while "hit_exact" not in outcomes:
            async with calling(served.url) as caller:
                outcomes.append((await _ask(caller, "Do you deliver on Sundays?"))[0])
    print(f"after the death: {', '.join(outcomes)}")
    assert set(outcomes) <= {"failed", "late", "paused", "miss", "hit_exact"}
