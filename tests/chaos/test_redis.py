"""Tests of a cluster whose head keeps its tables in Redis: the head dies and starts again, and Redis is away.

Every node is a machine in namespaces. The head runs no host and no stage.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psutil
import pytest

from tests.chaos.system import System, settings
from tests.system.harness.served import Served
from tests.system.harness.watching import wait_until
from tests.system.machines.cluster_nodes import NodeCluster, node_cluster, serving_on, with_seats
from tests.system.machines.machines import Network

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.netns,
    pytest.mark.models,
    pytest.mark.timeout(400),
    pytest.mark.redis,
]

PORT = 6400
AWAY_S = 10.0
HEAD = ["--num-cpus=1"]


@dataclass
class Redis:
    """A Redis server on this computer, which the machines reach."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, net: Network) -> Mapping[str, str]:
        """Start the server, and return the environment variables with which Ray's head uses it."""
        command = ["redis-server", "--bind", net.address, "--port", str(PORT), "--save", "", "--protected-mode", "no"]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return {"RAY_REDIS_ADDRESS": f"{net.address}:{PORT}", "RAY_external_storage_namespace": "chaos"}

    def stop(self) -> None:
        """Kill the server."""
        for process in self.processes:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Backed:
    """The cluster, its Redis, and the system on it."""

    cluster: NodeCluster
    redis: psutil.Process
    system: System

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes with this name on the head's machine."""
        family = psutil.Process(self.cluster.head.process).children(recursive=True)
        return [process for process in family if process.name() == name]


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory, question: bytes) -> Iterator[Backed]:
    folder, redis = tmp_path_factory.mktemp("redis"), Redis()
    args = settings(hosts=1, replicas=2)
    args["host"]["resources"] = {"num_cpus": 0.05, "custom": {"seat": 1}}
    for stage in ("stt", "llm", "tts", "turn_detector"):
        args[stage]["resources"] = {"num_cpus": 0.05, "label_selector": {"group": "worker"}}
    with contextlib.ExitStack() as stack:
        stack.callback(redis.stop)
        options = [*with_seats(1), "--labels=group=worker"]
        cluster = stack.enter_context(
            node_cluster("head", "worker", options=options, head_options=HEAD, visible=[folder], prepare=redis.start)
        )
        served = stack.enter_context(serving_on(cluster, folder, args))
        entry = cluster.entry("worker")
        system = System(Served(entry, served.process), question, hosts=1, replicas=2)
        wait_until(lambda: _whole(system), 90, "all replicas")
        yield Backed(cluster, psutil.Process(redis.processes[0].pid), system)


def _whole(system: System) -> bool:
    with contextlib.suppress(Exception):
        return len(system.served.census()) == 8
    return False


async def test_calls_go_on_while_redis_is_away(backed: Backed) -> None:
    """While Redis does not answer for AWAY_S, no call is lost, and new calls are answered."""
    found = await backed.system.observe(backed.redis.suspend, AWAY_S + 6, (AWAY_S, backed.redis.resume))
    print("Redis away", found)
    assert (found.cut, found.unanswered, found.recovery_s) == (0, 0, 0.0)
    assert found.silence_s < 2


async def test_calls_go_on_while_the_head_starts_again(backed: Backed) -> None:
    """The head's GCS is killed, the head is stopped and started again: calls on other nodes go on, and new ones too.

    Afterwards a replica that dies is replaced.
    """

    def strike() -> None:
        for process in backed.processes("gcs_server"):
            process.kill()

    def restart() -> None:
        backed.cluster.stop("head")
        began = time.monotonic()
        backed.cluster.start_head(HEAD)
        print(f"the head started again in {time.monotonic() - began:.1f} s")

    found = await backed.system.observe(strike, 40, (5, restart))
    print("head restarted", found)
    assert (found.cut, found.unanswered, found.recovery_s) == (0, 0, 0.0)
    assert found.silence_s < 2
    stt = next(replica for replica in backed.system.served.replicas("stt"))
    worker = psutil.Process(backed.cluster.machine("worker").process)
    victims = [process for process in worker.children(recursive=True) if _inner_pid(process) == int(stt["pid"])]
    assert len(victims) == 1
    victims[0].kill()
    wait_until(lambda: _whole(backed.system), 90, "the replacement")


def _inner_pid(process: psutil.Process) -> int:
    """Return the id of a process in its own machine."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status, contextlib.suppress(StopIteration):
        return int(next(line for line in status if line.startswith("NSpid")).split()[-1])
    return os.getpid()
