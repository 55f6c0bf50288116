"""SIGSTOP of a language model replica while it holds a reply: nobody is left in silence, and it comes back by itself.

A stopped process is worse than a dead one: its connections stay open, so nothing fails and nothing is heard.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.system.harness.served import Served, kill_holder, metric, serving
from tests.system.harness.wire_caller import calling

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

SILENT_S = 1.5
BACK_S = 30.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # A filler would be heard as well: what is measured here is the answer.
    with serving(tmp_path_factory.mktemp("stop"), {"conversation": {"filler_after_ms": 0}}) as running:
        yield running


async def _asked(served: Served, question: bytes) -> None:
    """One whole turn of a call of its own."""
    async with calling(served.url) as caller:
        caller.say(question)
        await caller.until("response.done")


def _answered(replicas: list[dict[str, str]]) -> int:
    """How many of the replicas have answered something."""
    return sum(
        metric(replica["target"], "rejoinder_requests_total", stage="llm", end="done") > 1 for replica in replicas
    )


def _breakers(served: Served, outcome: str) -> float:
    (host,) = served.replicas("host")
    return metric(host["target"], "rejoinder_breaker_transitions_total", outcome=outcome)


async def test_a_stopped_replica_silences_nobody_and_comes_back(served: Served, question: bytes) -> None:
    """Audible within 1.5 s of the stop; others are served meanwhile; after SIGCONT a probe closes the circuit."""
    replicas = await asyncio.to_thread(served.wait_for, "llm", 2)
    for _ in range(8):  # a conversation keeps its replica: several, until both have served one
        await _asked(served, question)
        if await asyncio.to_thread(_answered, replicas) == len(replicas):
            break
    async with calling(served.url) as caller:
        caller.say(question)
        pid, stopped = await asyncio.to_thread(kill_holder, replicas, 30.0, signal.SIGSTOP)
        try:
            await caller.spoken()
            spoken = time.monotonic()
            done = await caller.until("response.done")
            audible = caller.audible_after(max(stopped, spoken))
            print(f"audible {audible:.2f} s after the stop (or the caller's last word)")
            assert done["response"]["status"] == "completed", done
            assert "Paris" in caller.said()
            assert audible is not None
            assert audible < SILENT_S
            assert await asyncio.to_thread(_breakers, served, "opened") >= 1
            began = time.monotonic()
            await _asked(served, question)
            print(f"the next call was answered in {time.monotonic() - began:.1f} s")
        finally:
            os.kill(int(pid), signal.SIGCONT)
    deadline = time.monotonic() + BACK_S
    while await asyncio.to_thread(_breakers, served, "closed") < 1:
        assert time.monotonic() < deadline, "the replica never came back"
        await asyncio.sleep(0.5)
    assert pid in {replica["pid"] for replica in await asyncio.to_thread(served.wait_for, "llm", 2)}
