"""Tests of a cluster of three nodes that loses one: callers of the remaining nodes notice little.

Every node is a machine in namespaces with its own address and HAProxy. Speech to text, language model and text to
speech are emulated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from cluster.nodes import NodeState
from tests.system.harness.growing import emulated
from tests.system.harness.served import Served, metric
from tests.system.harness.watching import wait_until
from tests.system.harness.wire_caller import WireCaller, calling
from tests.system.machines.cluster_nodes import (
    NOTICE_SOON,
    NodeCluster,
    host_targets,
    node_cluster,
    serving_on,
    with_seats,
)

pytestmark = [pytest.mark.ray, pytest.mark.netns, pytest.mark.models, pytest.mark.timeout(240)]

NAMES = ("alpha", "beta", "gamma")
# Maximum seconds from the start of the question to the end of the answer. It takes about four; a stage that was on the
# lost node is asked a second time.
ANSWER_S = 30.0
# Maximum seconds until a new call through a remaining entry is accepted. HAProxy may first try a host that is gone.
CONNECT_S = 8.0
RECOVERY_S = 60.0

TWO: dict[str, Any] = {"min_replicas": 2, "max_replicas": 2}
THREE: dict[str, Any] = {"min_replicas": 3, "max_replicas": 3}
# A host on every node, and two replicas of each stage, so that one is left whichever node is lost.
ARGS: dict[str, Any] = {
    "host": {"autoscaling": THREE, "resources": {"num_cpus": 0.1, "custom": {"seat": 1}}},
    "turn_detector": {"autoscaling": TWO, "resources": {"num_cpus": 0.1}},
    "stt": {**emulated(60, 8), "autoscaling": TWO},
    "llm": {**emulated(120, 8), "autoscaling": TWO},
    "tts": {**emulated(80, 8), "autoscaling": TWO},
}


@dataclass(frozen=True)
class Trio:
    """The cluster of the nodes NAMES, and the application on it."""

    cluster: NodeCluster
    served: Served

    def host_target(self, name: str) -> str | None:
        """Return HOST:PORT of the metrics of the session host on a node, None if there is none."""
        return host_targets(self.cluster, self.served).get(name)

    def calls_on(self, name: str) -> int:
        """Return the number of calls that the host on a node has now."""
        target = self.host_target(name)
        return round(metric(target, "rejoinder_sessions_live")) if target else 0

    def whole(self) -> bool:
        """Return whether every node has a host, and every entry reaches one."""
        return all(self.host_target(name) and _healthy(self.cluster.entry(name)) for name in NAMES)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    folder = tmp_path_factory.mktemp("served")
    with (
        node_cluster(*NAMES, options=with_seats(1), environment=NOTICE_SOON, visible=[folder]) as cluster,
        serving_on(cluster, folder, ARGS) as served,
    ):
        made = Trio(cluster, served)
        wait_until(made.whole, RECOVERY_S, "a host on every node")
        yield made


async def test_a_call_through_each_entry_is_answered(trio: Trio, question: bytes) -> None:
    """All three nodes are alive in the cluster view, and a call through the HAProxy of each is answered."""
    assert trio.cluster.states() == dict.fromkeys(NAMES, NodeState.ALIVE)
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(calling(trio.cluster.entry(name))) for name in NAMES]
        assert await asyncio.gather(*(_answered(caller, question) for caller in callers)) == [True] * 3


async def test_calls_go_on_when_a_node_is_cut_off(trio: Trio, question: bytes) -> None:
    """If the cable of a node is unplugged, the calls on other hosts are answered, and new ones are accepted.

    The cluster view says that the node is dead. When the cable is plugged in and Ray is started again, the node is
    alive, has a host, and its entry accepts calls.
    """
    gamma = trio.cluster.machine("gamma")
    await _lose(trio, "gamma", gamma.cut_off, question)
    gamma.restore()
    trio.cluster.stop("gamma")  # some of its processes do not end by themselves
    trio.cluster.start("gamma", options=with_seats(1))
    wait_until(trio.whole, RECOVERY_S, "a host on every node")
    assert trio.cluster.states()["gamma"] is NodeState.ALIVE
    async with calling(trio.cluster.entry("gamma")) as caller:
        assert await _answered(caller, question)


async def test_calls_go_on_when_a_node_is_killed(trio: Trio, question: bytes) -> None:
    """If all processes of a node die at once, the calls on other hosts are answered, and new ones are accepted.

    The cluster view says that the node is dead.
    """
    await _lose(trio, "beta", trio.cluster.machine("beta").kill, question)


async def _lose(trio: Trio, victim: str, lose: Callable[[], None], question: bytes) -> None:
    """Hold three calls, lose the node `victim` by calling `lose`, and check what callers and the head see of it."""
    left = [name for name in NAMES if name != victim]
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(calling(trio.cluster.entry(left[0]))) for _ in NAMES]
        on_host = {name: trio.calls_on(name) for name in NAMES}
        assert sum(on_host.values()) == len(held)
        lose()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(_answered(caller, question)) for caller in held]
            for name in left:
                async with _connected(trio.cluster.entry(name)) as caller:
                    print(f"{time.monotonic() - began:.1f} s after the loss {name} had accepted a call")
                    assert await _answered(caller, question)
                    print(f"{time.monotonic() - began:.1f} s after the loss it was answered")
        assert sum(answer.result() for answer in answers) >= len(held) - on_host[victim]
        for caller in held:
            caller.vanish()  # the closing handshake with a lost host would not end
    wait_until(lambda: trio.cluster.states()[victim] is NodeState.DEAD, RECOVERY_S, f"{victim} is dead")
    print(f"the head knew after {time.monotonic() - began:.1f} s")
    assert [trio.cluster.states()[name] for name in left] == [NodeState.ALIVE] * 2


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[WireCaller]:
    """Call the server, which must accept the call within CONNECT_S seconds."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(CONNECT_S):
            caller = await stack.enter_async_context(calling(url))
        yield caller


async def _answered(caller: WireCaller, question: bytes) -> bool:
    """Ask a question, and return whether its answer is complete in time."""
    before = len(caller.of("response.done"))
    caller.say(question)
    try:
        await caller.until("response.done", before + 1, ANSWER_S)
    except TimeoutError:
        return False
    return bool(caller.of("response.done")[-1][1]["response"]["status"] == "completed")


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False
