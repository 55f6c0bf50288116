"""A node that a rendered script starts for real: it has its labels, and opens only the ports of the description."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.description.launch_description import LaunchDescription, parse_description
from cluster.description.ports import PortPlan
from cluster.environment import free_port
from cluster.rendering.rendered_file import write_files
from cluster.rendering.targets import render_files
from tests.cluster.launching.rendering import launch

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

PORTS = [name for name, ports in PortPlan().ranges() if len(ports) == 1]
TOKEN = "0123456789abcdef" * 4
START_S = 60.0


def description(folder: Path) -> LaunchDescription:
    """Return a description of this machine alone, with free ports and with its files in `folder`."""
    single = {name: free_port() for name in PORTS}
    # Ports of which most are free: a worker tries the next one. They are below those of Serve's replicas.
    first = max(single.values()) + 1 if max(single.values()) < 29_700 else min(single.values()) - 201
    head = {
        "name": "head",
        "role": "head",
        "addresses": ["127.0.0.1"],
        "cpus": 16,
        "memory_gb": 16,
        "gpu": {"type": "L4"},
        "labels": {"group": "cpu"},
    }
    machines = {
        "checkout": str(folder),
        "virtualenv": sys.prefix,
        "state": str(folder / "s"),
        "secrets_file": str(folder / "secrets.env"),
        "object_store_mb": 100,
    }
    ports = {**single, "workers": f"{first}-{first + 200}"}
    document = {"name": "here", "region": "test", "groups": [head], "ports": ports, "machines": machines}
    return parse_description(document)


@contextmanager
def started(script: Path, folder: Path) -> Iterator[psutil.Process]:
    """Run the start script of a node in the foreground until the block ends; yield its process."""
    log = folder / "log"
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    with log.open("wb") as output:
        process = psutil.Popen([script, "--block"], stdout=output, stderr=subprocess.STDOUT, env=environment)
    family: list[psutil.Process] = [process]
    try:
        deadline = time.monotonic() + START_S
        while "This command will now block" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield process
    finally:
        # A process that has ended by itself has failed above, with its log as the reason.
        with suppress(psutil.NoSuchProcess):
            family = [*process.children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):  # it may have ended with its parent
                member.kill()
        psutil.wait_procs(family, 30)


def test_a_started_node_opens_only_the_ports_of_the_description() -> None:
    """Ray accepts the rendered command. Every port that its processes open to other machines is in `ports`.

    The node has the labels of its group, the GPUs and cores that the description declares, and requires the token.
    """
    folder = Path(tempfile.mkdtemp(prefix="rjl-", dir="/tmp"))
    try:
        plan = description(folder)
        (folder / "secrets.env").write_text(f"RAY_AUTH_TOKEN={TOKEN}\n", encoding="utf-8")
        document = plan.model_dump(mode="json", exclude_unset=True)
        write_files(render_files(launch(document), "bare", folder), folder)
        with started(folder / "nodes" / "head-1" / "start-ray.sh", folder) as process:
            node = _node(plan, folder)
            opened = _listening(process)
        assert node["labels"] | {"group": "cpu", "region": "test", "ray.io/accelerator-type": "L4"} == node["labels"]
        assert (node["resources"]["CPU"], node["resources"]["GPU"]) == (16, 1)
        allowed = [ports for _, ports in plan.ports.ranges()]
        outside = {port for port in opened if not any(one.first <= port <= one.last for one in allowed)}
        assert outside == set()
        assert {plan.ports.gcs, plan.ports.node_manager, plan.ports.object_manager, plan.ports.metrics} <= opened
    finally:
        shutil.rmtree(folder)


def _node(plan: LaunchDescription, folder: Path) -> dict[str, Any]:
    """Return the labels and resources of the only node, asked by a driver with the token.

    A driver without the token is refused.
    """
    ask = (
        "import json, ray\n"
        f"ray.init(address='127.0.0.1:{plan.ports.gcs}', log_to_driver=False, logging_level='ERROR')\n"
        "(node,) = ray.nodes()\n"
        "print(json.dumps({'labels': node['Labels'], 'resources': node['Resources']}))\n"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [sys.executable, "-c", ask],
        env={**environment, "RAY_AUTH_TOKEN": TOKEN[::-1]},
        capture_output=True,
        check=False,
    )
    assert refused.returncode != 0
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _listening(process: psutil.Process) -> set[int]:
    """Return the TCP ports on which a process or one of its descendants accepts connections from other machines."""
    ports = set()
    for member in (process, *process.children(recursive=True)):
        for connection in member.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in ("127.0.0.1", "::1"):
                ports.add(connection.laddr.port)
    return ports
