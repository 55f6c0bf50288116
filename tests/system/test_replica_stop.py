"""Test of a language model replica that is stopped (SIGSTOP) while it generates a reply.

A stopped process is harder to notice than a dead one: its connections stay open, so requests to it do not fail and are
not answered.
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

pytestmark = [pytest.mark.timed, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

SILENT_S = 1.5
BACK_S = 30.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # No fillers, because the test measures the time to the first audio, which must be that of the answer.
    with serving(tmp_path_factory.mktemp("stop"), {"conversation": {"filler_after_ms": 0}}) as running:
        yield running


async def _asked(served: Served, question: bytes) -> None:
    """Ask the question in a new call, and wait for the end of the reply."""
    async with calling(served.url) as caller:
        caller.say(question)
        await caller.until("response.done")


def _answered(replicas: list[dict[str, str]]) -> int:
    """Return how many of these language model replicas have completed at least two requests."""
    return sum(
        metric(replica["target"], "rejoinder_requests_total", stage="llm", end="done") > 1 for replica in replicas
    )


def _breakers(served: Served, outcome: str) -> float:
    """Return how often the circuit breakers of the only host made the transition `outcome`, for example "opened"."""
    (host,) = served.replicas("host")
    return metric(host["target"], "rejoinder_breaker_transitions_total", outcome=outcome)


async def test_a_stopped_replica_is_avoided_and_used_again(served: Served, question: bytes) -> None:
    """A turn whose replica is stopped (SIGSTOP) is answered by the other replica.

    Its audio comes within 1.5 s of the stop or, if later, of the caller's last word. The next call is answered too.
    After SIGCONT, a probe finds the replica alive and its circuit breaker closes.
    """
    replicas = await asyncio.to_thread(served.wait_for, "llm", 2)
    for _ in range(8):  # each call stays on one replica, so it takes several until both were used
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
            started_at = time.monotonic()
            await _asked(served, question)
            print(f"the next call was answered in {time.monotonic() - started_at:.1f} s")
        finally:
            os.kill(int(pid), signal.SIGCONT)
    deadline = time.monotonic() + BACK_S
    while await asyncio.to_thread(_breakers, served, "closed") < 1:
        assert time.monotonic() < deadline, "the circuit breaker did not close"
        await asyncio.sleep(0.5)
    assert pid in {replica["pid"] for replica in await asyncio.to_thread(served.wait_for, "llm", 2)}
