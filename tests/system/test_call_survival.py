"""Tests of calls that survive: a host is killed, and its calls go on at another host of the same cluster.

The engines are emulated. The language model answers every question with the same words, so that a word which is said
twice or not at all is found.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from deployments.engines.emulated import WORDS
from tests.system.harness.growing import emulated, hosts
from tests.system.harness.served import Served, serving
from tests.system.harness.surviving import SurvivingCaller
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

CALLS = int(os.environ.get("REJOINDER_SURVIVAL_CALLS", "12"))
"""Number of concurrent calls of the test. About half of them are on the host that is killed."""
TOKENS = 30
ANSWER = " ".join((WORDS * TOKENS)[:TOKENS])
BACK_S = 1.0
GAP_S = 1.5


def _args() -> dict[str, Any]:
    own = hosts(2, 2, target=60)
    own["resources"] = {"num_cpus": 0.1}
    stages = {"stt": emulated(80, 64), "llm": emulated(100, 64, tokens=TOKENS), "tts": emulated(60, 64)}
    return {"host": own, "admission": {"enabled": False}, "conversation": {"max_reply_tokens": 200}, **stages}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("survival"), _args()) as found:
        found.wait_for("host", 2)
        yield found


@asynccontextmanager
async def calls(url: str, count: int) -> AsyncIterator[list[SurvivingCaller]]:
    """Run this many calls until the block ends."""
    callers = [SurvivingCaller(url) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run())
        try:
            for caller in callers:
                await caller.until("session.created")
            yield callers
        finally:
            for caller in callers:
                await caller.hang_up()


async def _answers(caller: SurvivingCaller, questions: int) -> None:
    """Assert that every question has one whole answer, each word once, over all items of the conversation."""
    words: Counter[str] = Counter()
    items = {event["item"]["id"] for event in caller.of("response.output_item.added")}
    for item_id in items:
        words += Counter((await caller.text_of(item_id)).split())
    assert words == Counter({word: count * questions for word, count in Counter(ANSWER.split()).items()})


async def test_calls_go_on_when_their_host_is_killed(served: Served) -> None:
    """Every call of a host that is killed is back within a second (p95), and its answer is said to the end, once.

    The calls of the other host notice nothing.
    """
    victim = served.replicas("host")[0]["pid"]
    async with calls(served.url, CALLS) as callers:
        for caller in callers:
            await caller.ask("How are you?")
        for caller in callers:
            await caller.until("response.done")
        for caller in callers:
            await caller.ask("And now?")
        for caller in callers:
            await caller.until("response.output_audio.delta", len(caller.of("response.output_audio.delta")) + 1)
        await asyncio.sleep(3.0)
        os.kill(int(victim), signal.SIGKILL)
        await asyncio.sleep(2.0)
        cut = [caller for caller in callers if caller.back_s or caller.broke_at]
        assert len(cut) >= CALLS // 4
        for caller in callers:
            await caller.until("response.done", 2)
            await _answers(caller, 2)
        back_s = [seconds for caller in cut for seconds in caller.back_s]
        gaps_s = [seconds for caller in cut for seconds in caller.gaps_s]
        p50_s, p95_s = np.percentile(back_s, [50, 95])
        print(f"{len(cut)} calls cut, {sum(caller.refused for caller in cut)} refused attempts")
        print(f"back after {p50_s:.2f} s (p50), {p95_s:.2f} s (p95), {max(back_s):.2f} s (max)")
        print(f"silence {np.percentile(gaps_s, 50):.2f} s (p50), {max(gaps_s):.2f} s (max)")
        assert len(back_s) == len(gaps_s) == len(cut)
        assert np.percentile(back_s, 95) <= BACK_S
        assert max(gaps_s) <= GAP_S
        for caller in cut:
            assert caller.of("rejoinder.session.resumed")[0]["items"] == 4
            assert caller.of("rejoinder.session.resumed")[0]["response"]["kind"] == "continued"
    wait_until(lambda: len(served.replicas("host")) == 2, 60, "a new host")
