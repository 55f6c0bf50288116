"""Tests that a request to a silent replica is given up soon, and one to a slow replica is not."""

from __future__ import annotations

import asyncio

import pytest

from actors.stages.silence import PING_S, SilenceWatch
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.resilience.silent_replicas import AVOID_S, FIRST_S
from tests.actors.virtual_time import virtual


class Replica:
    """A replica "a" that takes `service_s` seconds for an answer, or is stopped."""

    def __init__(self, service_s: float) -> None:
        self.service_s = service_s
        self.stopped = False
        self.pings = 0
        self.cancelled = 0

    async def answer(self) -> str:
        """Return the answer."""
        try:
            await asyncio.sleep(self.service_s)
            while self.stopped:  # noqa: ASYNC110  # a stopped process does nothing
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "words"

    async def ping(self, name: str) -> None:
        """Answer a ping."""
        self.pings += 1
        assert name == "a"
        while self.stopped:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _watch(replica: Replica) -> SilenceWatch:
    return SilenceWatch("stt", replica.ping, _now)


@virtual
async def test_a_silent_replica_is_given_up_and_avoided() -> None:
    """A stopped replica fails a request after FIRST_S and the ping, is avoided, and is used again after it answered."""
    replica = Replica(0.1)
    watch = _watch(replica)
    replica.stopped = True
    began = _now()
    with pytest.raises(BackendError) as fault:
        await watch.result(replica.answer(), lambda: "a")
    assert (fault.value.stage, fault.value.replica) == ("stt", "a")
    assert _now() - began == pytest.approx(FIRST_S + PING_S)
    assert replica.cancelled == 1
    assert watch.avoid(frozenset({"b"})) == {"a", "b"}
    replica.stopped = False
    assert await watch.result(replica.answer(), lambda: "a") == "words"
    assert watch.avoid(frozenset()) == frozenset()


@virtual
async def test_a_slow_replica_is_waited_for() -> None:
    """A replica that answers pings keeps its request, however long that takes."""
    replica = Replica(20 * AVOID_S)
    assert await _watch(replica).result(replica.answer(), lambda: "a") == "words"
    assert replica.pings > 10


@virtual
async def test_a_request_without_a_replica_waits() -> None:
    """While no replica is chosen, nobody is pinged."""
    replica = Replica(3.0)
    assert await _watch(replica).result(replica.answer(), lambda: "") == "words"
    assert replica.pings == 0


@virtual
async def test_errors_and_cancellation_pass() -> None:
    """What the answer raises is raised, and cancelling the wait cancels the request."""

    async def full() -> str:
        raise Overloaded("full.")

    replica = Replica(60.0)
    watch = _watch(replica)
    with pytest.raises(Overloaded):
        await watch.result(full(), lambda: "a")
    waiting = asyncio.create_task(watch.result(replica.answer(), lambda: "a"))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert replica.cancelled == 1
