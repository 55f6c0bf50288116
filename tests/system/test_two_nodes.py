"""Tests of `rejoinder serve` and of Ray's `serve deploy` on a cluster of two nodes that is already running.

Both nodes are on this machine. Each has its own HAProxy, the HTTP proxy of Serve.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from cluster.environment import free_port
from tests.system.harness.lab import LabClient, deploy
from tests.system.harness.nodes import ROOT, Node, head, worker
from tests.system.harness.served import serving
from tests.system.harness.watching import wait_until
from tests.system.harness.wire_caller import calling

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(240)]

SERVE = str(Path(sys.executable).with_name("serve"))
HEALTHY_S = 120.0


@dataclass(frozen=True)
class TwoNodes:
    """The cluster, with another application already on it.

    Attributes:
        head: The first node.
        worker: The second node.
        lab: Client of the other application (see the module `lab`). Its deployment started Serve.
        port: HTTP port of Serve on the first node.
    """

    head: Node
    worker: Node
    lab: LabClient
    port: int

    @property
    def worker_port(self) -> int:
        """HTTP port of Serve on the second node."""
        return int(self.worker.environment["RAY_SERVE_WORKER_PROXY_HTTP_PORT"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    port = free_port()
    with head(dashboard=True) as first, worker(first) as second:
        yield TwoNodes(first, second, deploy(first, f"http://127.0.0.1:{port}", start=True), port)


def _serve_command(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `rejoinder serve` with the address of this node's cluster, and return the ended process with its output."""
    command = [sys.executable, "-m", "rejoinder.cli", "serve", "--address", node.address, *options]
    return subprocess.run(command, env=dict(node.environment), cwd=ROOT, capture_output=True, text=True, timeout=90)


def test_a_port_other_than_that_of_the_running_serve_is_refused(nodes: TwoNodes) -> None:
    """Another --port than that of the running Serve is refused, and the error names the right port.

    Serve cannot change its port after its start.
    """
    refused = _serve_command(nodes.head, "--port", str(free_port()))
    assert refused.returncode == 2
    assert f"--port {nodes.port}" in refused.stderr


def test_what_does_not_fit_is_refused_before_anything_is_deployed(nodes: TwoNodes, tmp_path: Path) -> None:
    """A label that no node has is refused by `serve` within seconds, and `doctor` names it too.

    The doctor compares both nodes: their source code is the same, and each has room on its disk.
    """
    config = tmp_path / "ray_config.yaml"
    args = {"stt": {"resources": {"label_selector": {"group": "nowhere"}}}}
    document = {"http_options": {"port": nodes.port}, "applications": [{"args": args}]}
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    refused = _serve_command(nodes.head, str(config))
    assert refused.returncode == 2
    assert "no node has the label group=nowhere" in " ".join(refused.stderr.split())
    command = [sys.executable, "-m", "rejoinder.cli", "doctor", str(config), "--address", nodes.head.address]
    environment = dict(nodes.head.environment) | {"COLUMNS": "300"}
    doctor = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert doctor.returncode == 1
    assert "args.stt.resources.label_selector" in doctor.stdout
    assert "the same on 2 nodes" in doctor.stdout
    assert "free in /tmp (2 nodes)" in doctor.stdout


def test_a_cluster_with_a_token_is_refused_without_it(nodes: TwoNodes) -> None:
    """If the cluster needs a token that is not set, the command fails and names the variables to set."""
    without = {name: value for name, value in nodes.head.environment.items() if not name.startswith("RAY_AUTH")}
    without["RAY_NUM_REDIS_GET_RETRIES"] = "2"  # by default Ray retries for 20 s
    refused = _serve_command(Node(nodes.head.address, nodes.head.dashboard, without))
    assert refused.returncode == 2
    assert "RAY_AUTH_MODE=token" in refused.stderr


async def test_joining_leaves_the_cluster_unchanged(nodes: TwoNodes, tmp_path: Path, question: bytes) -> None:
    """`rejoinder serve --address` serves a call on the cluster, also after a second one was refused.

    After its end its routes are gone, and the other application has the same replicas as before.
    """
    before = nodes.lab.puppets()
    args = {"llm": {"autoscaling": {"min_replicas": 1, "max_replicas": 1}}}
    joined = serving(tmp_path, args, address=nodes.head.address, environment=nodes.head.environment, port=nodes.port)
    with joined as served:
        second = await asyncio.to_thread(_serve_command, nodes.head, "--port", str(nodes.port))
        assert second.returncode == 2
        assert "the application rejoinder already runs on this cluster" in " ".join(second.stderr.split())
        await _converse(served.url, question)
    assert httpx2.get(f"http://127.0.0.1:{nodes.port}/healthz", timeout=10).status_code == 404
    assert nodes.lab.puppets() == before


def test_stock_serve_deploy_holds_a_conversation(nodes: TwoNodes, tmp_path: Path, question: bytes) -> None:
    """Ray's command `serve deploy` with the repository's ray_config.yaml makes both nodes accept calls.

    Both nodes have replicas. In the file, the port is changed, and the language model is a small one that starts fast.
    """
    document: dict[str, Any] = yaml.safe_load((ROOT / "ray_config.yaml").read_text(encoding="utf-8"))
    document["http_options"]["port"] = nodes.port
    document["applications"][0]["args"]["llm"]["model"] = "smollm2-135m-instruct"
    config = tmp_path / "ray_config.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [SERVE, "deploy", str(config), "--address", nodes.head.dashboard]
    subprocess.run(command, env=dict(nodes.head.environment), cwd=ROOT, check=True, timeout=60)
    urls = [f"http://127.0.0.1:{port}" for port in (nodes.port, nodes.worker_port)]
    wait_until(lambda: all(_healthy(url) for url in urls), HEALTHY_S, f"health at {urls}")
    for url in urls:
        asyncio.run(_converse(url, question))
    targets = httpx2.get(f"http://127.0.0.1:{nodes.port}/metrics/targets", timeout=10).json()
    assert len(targets) == 6
    assert len({target["labels"]["node"] for target in targets}) == 2


def test_a_node_without_haproxy_is_refused(nodes: TwoNodes) -> None:
    """If a node was started without HAProxy, `rejoinder serve` fails with exit status 2.

    The error names the node, the environment variable and the command that fixes it.
    """
    variable = "RAY_SERVE_ENABLE_HA_PROXY"
    with worker(nodes.head, {variable: "0"}):
        refused = _serve_command(nodes.head)
    assert refused.returncode == 2
    assert f"node {socket.gethostname()} runs without {variable}=1" in " ".join(refused.stderr.split())
    assert f"{variable}=1 ray start" in refused.stderr
    assert "Traceback" not in refused.stderr


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


async def _converse(url: str, question: bytes) -> None:
    async with calling(url) as caller:
        caller.say(question)
        await caller.until("response.done")
        assert "Paris" in caller.said()
