"""Tests of a cluster of three nodes whose hosts get full: a caller is refused only if every host is full.

Each node is a machine in namespaces with its own HAProxy and one session host, which has PLACES places. Speech to text,
language model and text to speech are emulated. An API key is required.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from actors.host import CALLS_S
from cluster.environment import REDISPATCH
from cluster.haproxy import METRICS_HOST
from rejoinder.core.resilience.redispatch import RETRIES
from tests.system.harness.growing import emulated
from tests.system.harness.served import Served, metric
from tests.system.harness.watching import wait_until
from tests.system.harness.wire_caller import realtime_url
from tests.system.machines.cluster_nodes import (
    HTTP_PORT,
    NodeCluster,
    host_targets,
    node_cluster,
    serving_on,
    with_seats,
)

pytestmark = [pytest.mark.ray, pytest.mark.netns, pytest.mark.models, pytest.mark.timeout(240)]

NAMES = ("alpha", "beta", "gamma")
PLACES = 2
KEY = "alpha"
ATTEMPTS = 1 + int(REDISPATCH[RETRIES])
HINT_S = 3
REFUSED = "rejoinder_sessions_refused_total"
HAPROXY = 9101
ENVIRONMENT = {
    "REJOINDER_API_KEYS": KEY,
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(HAPROXY),
    METRICS_HOST: "0.0.0.0",  # all addresses of a node's own network namespace, so that this process reaches them
}
# Prints the new calls per second that the hosts report to the autoscaling, summed over the hosts.
ARRIVALS = """
import asyncio, sys, ray
from ray import serve
from deployments.serving.compat import broadcast
async def main():
    hosts = serve.get_deployment_handle("SessionHost", "rejoinder")
    print(sum(host["arrivals_per_s"] for host in await broadcast(hosts, "record_autoscaling_stats", 10)))
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
asyncio.run(main())
"""
ONE_PER_NODE: dict[str, Any] = {"min_replicas": 3, "max_replicas": 3}
ARGS: dict[str, Any] = {
    "host": {
        "autoscaling": ONE_PER_NODE,
        "resources": {"num_cpus": 0.1, "custom": {"seat": 1}},
        "max_sessions": PLACES,
        "retry_after_s": HINT_S,
    },
    "admission": {"enabled": False},
    "turn_detector": {"resources": {"num_cpus": 0.1}},
    "stt": emulated(60, 8),
    "llm": emulated(120, 8),
    "tts": emulated(80, 8),
}


@dataclass(frozen=True)
class Hosts:
    """The cluster, the application on it, and the metrics ports of the hosts (HOST:PORT) by the name of the node."""

    cluster: NodeCluster
    served: Served
    targets: dict[str, str]

    def calls(self) -> dict[str, int]:
        """Return the number of calls of each host."""
        return {name: round(metric(target, "rejoinder_sessions_live")) for name, target in self.targets.items()}

    def refused(self) -> int:
        """Return the number of handshakes that the hosts have refused."""
        return round(sum(metric(target, REFUSED, reason="full") for target in self.targets.values()))

    def counted(self, name: str, **labels: str) -> int:
        """Return a counter of HAProxy, summed over all nodes and all samples with these labels."""
        return round(sum(metric(f"{self.cluster.machine(node).address}:{HAPROXY}", name, **labels) for node in NAMES))

    def failed(self) -> int:
        """Return the number of requests that HAProxy has answered with a status from 500."""
        return self.counted("haproxy_frontend_http_responses_total", proxy="http_frontend", code="5xx")

    def retried(self) -> int:
        """Return the number of requests that HAProxy has sent again."""
        return self.counted("haproxy_backend_retry_warnings_total")

    def arrivals(self) -> float:
        """Return the number of new calls that the hosts have reported to the autoscaling for the last CALLS_S."""
        done = self.cluster.run("alpha", sys.executable, "-c", ARRIVALS, self.cluster.address)
        assert done.returncode == 0, done.stderr
        return float(done.stdout.split()[-1]) * CALLS_S

    async def connect(self, entry: str, key: str = KEY) -> websockets.ClientConnection:
        """Call through the HAProxy of a node. Raise InvalidStatus if the call is refused."""
        headers = {"Authorization": f"Bearer {key}"}
        return await websockets.connect(realtime_url(self.cluster.entry(entry)), additional_headers=headers)

    async def refusal(self, entry: str, key: str = KEY) -> tuple[int, str | None]:
        """Call through the HAProxy of a node, which must refuse. Return the status and Retry-After."""
        with pytest.raises(InvalidStatus) as refused:
            await self.connect(entry, key)
        return refused.value.response.status_code, refused.value.response.headers.get("Retry-After")

    @asynccontextmanager
    async def filled(self, leaving: str | None = None) -> AsyncIterator[None]:
        """Take all places while the block runs, except for one of the host on the node `leaving`, if it is given."""
        newest: dict[str, websockets.ClientConnection] = {}
        async with AsyncExitStack() as stack:
            for number in range(PLACES * len(NAMES)):
                before = self.calls()
                socket = await stack.enter_async_context(await self.connect(NAMES[number % len(NAMES)]))
                newest |= {name: socket for name, calls in self.calls().items() if calls > before[name]}
            if leaving:
                await newest[leaving].close()
            await asyncio.to_thread(wait_until, lambda: self.calls() == _full(leaving), 5, "taken places")
            yield
        await asyncio.to_thread(wait_until, lambda: not any(self.calls().values()), 5, "free places")


def _full(leaving: str | None) -> dict[str, int]:
    return {name: PLACES - (name == leaving) for name in NAMES}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("served")
    with (
        node_cluster(*NAMES, options=with_seats(1), environment=ENVIRONMENT, visible=[folder]) as cluster,
        serving_on(cluster, folder, ARGS) as running,
    ):
        served = replace(running, headers={"Authorization": f"Bearer {KEY}"})

        def whole() -> bool:
            healthy = [httpx2.get(f"{cluster.entry(name)}/healthz", timeout=5).status_code for name in NAMES]
            return len(host_targets(cluster, served)) == len(NAMES) and healthy == [200] * len(NAMES)

        wait_until(whole, 60, "a host on every node")
        yield Hosts(cluster, served, host_targets(cluster, served))


@pytest.mark.parametrize("free", NAMES)
async def test_a_call_reaches_the_only_host_with_a_free_place(hosts: Hosts, free: str) -> None:
    """While two hosts are full, each call through each entry is admitted by the third host.

    The full hosts refuse some of the handshakes, which the callers do not notice.
    """
    async with hosts.filled(leaving=free):
        refused = hosts.refused()
        for entry in NAMES * 2:
            async with await hosts.connect(entry):
                assert hosts.calls() == _full(None)
            await asyncio.to_thread(wait_until, lambda: hosts.calls() == _full(free), 5, "a free place")
        assert hosts.refused() > refused


async def test_callers_are_refused_if_every_host_is_full(hosts: Hosts) -> None:
    """While all hosts are full, a caller gets 503, with Retry-After in whole seconds.

    Each refused caller counts at the hosts once per attempt, and at the HAProxies as one answer of class 5xx.
    """
    async with hosts.filled():
        refused, failed, retried = hosts.refused(), hosts.failed(), hosts.retried()
        for entry in NAMES:
            status, hint = await hosts.refusal(entry)
            assert status == 503
            assert HINT_S <= int(str(hint)) <= 60
        assert hosts.refused() - refused == ATTEMPTS * len(NAMES)
        assert hosts.failed() - failed == len(NAMES)
        assert hosts.retried() - retried == (ATTEMPTS - 1) * len(NAMES)


async def test_the_autoscaling_gets_the_number_of_callers(hosts: Hosts) -> None:
    """While all hosts are full, 12 refused callers are reported as 12 new calls, not as one call for each attempt.

    Otherwise hosts would be started for callers who do not exist.
    """
    async with hosts.filled():
        await asyncio.sleep(CALLS_S + 1)
        for entry in NAMES * 4:
            await hosts.refusal(entry)
        assert await asyncio.to_thread(hosts.arrivals) == pytest.approx(12, abs=0.1)


async def test_other_refusals_are_final(hosts: Hosts) -> None:
    """A caller with an unknown key gets 401 and a malformed handshake gets 400, both after one attempt.

    They are not counted as refused for lack of places either.
    """
    retried, refused = hosts.retried(), hosts.refused()
    for entry in NAMES:
        assert (await hosts.refusal(entry, "unknown"))[0] == 401
        assert await _malformed(hosts.cluster.machine(entry).address) == 400
    assert (hosts.retried(), hosts.refused()) == (retried, refused)


async def _malformed(address: str) -> int:
    """Send a handshake whose key is not base64 to the HAProxy at `address`, and return the status of the answer."""
    reader, writer = await asyncio.open_connection(address, HTTP_PORT)
    fields = ["Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines = ["GET /v1/realtime HTTP/1.1", *fields, f"Sec-WebSocket-Key: {'!' * 22}==", f"Authorization: Bearer {KEY}"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = await reader.readline()
    writer.close()
    return int(status.split()[1])
