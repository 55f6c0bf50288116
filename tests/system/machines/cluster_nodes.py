"""A Ray cluster whose nodes are machines in namespaces, and `rejoinder serve` on it.

Every node has its own address, files, HAProxy and number of CPUs, and runs the environment that `rejoinder doctor
--environment` prints. All nodes listen on the same ports, as on real machines.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.environment import REQUIRED, advised
from cluster.nodes import ClusterNode, NodeState, from_json
from tests.system.harness.nodes import OBJECT_STORE_BYTES, RAY
from tests.system.harness.served import Served, await_health, stop_serving
from tests.system.machines.machines import PERFECT, Link, Machine, Network, network

GCS_PORT = 6379
HTTP_PORT = 8000
START_S = 60.0

NOTICE_SOON = {
    # Ray's head asks each node for its health every 3 s, waits 10 s for an answer, and declares it dead after 5 misses.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
"""Environment of a head that declares a node dead some seconds after its last sign of life."""


@dataclass
class NodeCluster:
    """A running Ray cluster on machines.

    Attributes:
        network: The network of the machines. Every machine of it is a node.
        environment: Environment variables of every node and of every command on it.
        head: The machine with Ray's head.
    """

    network: Network
    environment: dict[str, str]
    head: Machine

    @property
    def address(self) -> str:
        """HOST:PORT of the head, to which nodes and drivers connect."""
        return f"{self.head.address}:{GCS_PORT}"

    def machine(self, name: str) -> Machine:
        """Return the machine of a node."""
        return self.network.machines[name]

    def entry(self, name: str) -> str:
        """Return the base URL of the HAProxy of a node."""
        return f"http://{self.machine(name).address}:{HTTP_PORT}"

    def add(self, *names: str, options: Sequence[str] = (), link: Link = PERFECT) -> None:
        """Add nodes, which start at the same time, and wait until Ray has started on them.

        Args:
            names: Names of the new machines.
            options: Options of `ray start` on each of them, for example its CPUs.
            link: Properties of the cable of each of them.
        """
        for name in names:
            self.network.add(name, link)
        self.start(*names, options=options)

    def start_head(self, options: Sequence[str] = ()) -> None:
        """Start Ray's head on its machine."""
        own = ["--head", f"--port={GCS_PORT}", "--include-dashboard=false", *options]
        _await_start(self.head.name, _starting(self.head, self.environment, own))

    def start(self, *names: str, options: Sequence[str] = ()) -> None:
        """Start Ray on machines of the network as nodes of this cluster."""
        joining = [f"--address={self.address}", *options]
        starting = {name: _starting(self.machine(name), self.environment, joining) for name in names}
        for name, process in starting.items():
            _await_start(name, process)

    def stop(self, name: str) -> None:
        """Stop Ray on a node at once. It does not wait for calls."""
        self.run(name, RAY, "stop", "--force").check_returncode()

    def run(self, name: str, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command on a node with the cluster's environment, and return the ended process with its output."""
        return self.machine(name).run(*words, environment=self.environment, timeout_s=timeout_s)

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes as the head sees them."""
        done = self.run(self.head.name, sys.executable, "-m", "cluster.nodes", self.address)
        if done.returncode:
            raise RuntimeError(f"the head does not answer:\n{done.stderr[-2000:]}")
        return from_json(done.stdout)

    def states(self) -> dict[str, NodeState]:
        """Return the state of each node, by name. A node that was started twice has the state of the newer one."""
        order = [NodeState.DEAD, NodeState.DRAINING, NodeState.ALIVE]
        nodes = sorted(self.nodes(), key=lambda node: order.index(node.state))
        return {node.name: node.state for node in nodes}

    def drain(self, name: str, within_s: float) -> None:
        """Ask Ray to drain a node, which will be stopped in `within_s` seconds. Raise CalledProcessError if it refuses.

        The command is Ray's own, so that a test of ours does not test `cluster.nodes` with itself.
        """
        node = next(node for node in self.nodes() if node.name == name and node.state is NodeState.ALIVE)
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "drained by a test"]
        limit = ["--deadline-remaining-seconds", f"{within_s:.0f}"]
        command = [RAY, "drain-node", f"--address={self.address}", "--node-id", node.node_id, *reason, *limit]
        self.run(self.head.name, *command).check_returncode()


def with_seats(number: int) -> list[str]:
    """Return options of `ray start` for a node with room for `number` session hosts, which need a "seat" each."""
    return ["--num-cpus=2", f'--resources={{"seat": {number}}}']


def host_targets(cluster: NodeCluster, served: Served) -> dict[str, str]:
    """Return HOST:PORT of the metrics of a session host on each node that has one, by the name of the node."""
    names = {machine.address: name for name, machine in cluster.network.machines.items()}
    return {names[host["target"].split(":")[0]]: host["target"] for host in served.replicas("host")}


@contextlib.contextmanager
def node_cluster(
    *names: str,
    options: Sequence[str] = ("--num-cpus=2",),
    environment: Mapping[str, str] | None = None,
    visible: Sequence[Path] = (),
    links: Mapping[str, Link] | None = None,
    head_options: Sequence[str] | None = None,
    prepare: Callable[[Network], Mapping[str, str]] = lambda _: {},
) -> Iterator[NodeCluster]:
    """Run a cluster until the context ends, also after an exception. Nothing of it is left afterwards.

    Args:
        names: Names of the nodes, the head first.
        options: Options of `ray start` on each node.
        environment: Environment variables in addition to those that every node of Rejoinder has.
        visible: Folders of this computer that the nodes see though they are in a private folder such as /tmp.
        links: Properties of the cables by name of the node; a node without an entry has a perfect one.
        head_options: Options of `ray start` on the head, if they are not those of the other nodes.
        prepare: Called with the network before the nodes start. It returns further environment variables of each.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    full = {**REQUIRED, **advised(), **token, **(environment or {})}
    with network(visible) as net:
        full |= prepare(net)
        for name in names:
            net.add(name, (links or {}).get(name, PERFECT))
        cluster = NodeCluster(net, full, net.machines[names[0]])
        cluster.start_head(options if head_options is None else head_options)
        cluster.start(*names[1:], options=options)
        yield cluster


@contextlib.contextmanager
def serving_on(cluster: NodeCluster, folder: Path, args: dict[str, Any]) -> Iterator[Served]:
    """Run `rejoinder serve` on the head until the block ends. The returned URL is that of the head's HAProxy.

    Args:
        cluster: The cluster to deploy on.
        folder: Folder for the configuration and the log, which the head must see.
        args: The settings of the application.
    """
    application = {"name": "rejoinder", "import_path": "deployments.app:build", "args": args}
    document = {"http_options": {"host": "0.0.0.0", "port": HTTP_PORT}, "applications": [application]}
    config, log = folder / "ray_config.yaml", folder / "serve.log"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    words = [sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--address", cluster.address, "--insecure"]
    with log.open("wb") as output:
        command = cluster.head.command(*words, environment=cluster.environment)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = cluster.entry(cluster.head.name)
        await_health(process, url, log)
        yield Served(url, process)
    finally:
        # The machines are killed at the end of the network, and nothing outside of them needs an orderly end.
        stop_serving(process, orderly=False)


def _starting(machine: Machine, environment: Mapping[str, str], options: Sequence[str]) -> subprocess.Popen[str]:
    own = ["--disable-usage-stats", f"--node-ip-address={machine.address}"]
    command = [RAY, "start", *own, f"--object-store-memory={OBJECT_STORE_BYTES}", *options]
    return subprocess.Popen(
        machine.command(*command, environment=environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _await_start(name: str, process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=START_S)
    if process.returncode:
        raise RuntimeError(f"`ray start` failed on {name}:\n{output[-4000:]}")
