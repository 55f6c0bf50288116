"""Nodes of a real Ray cluster on this machine, started with `ray start` in a prepared environment."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.environment import SINGLE_MACHINE, free_port, node_environment
from cluster.haproxy import write_launcher
from tests.system.harness.watching import wait_until

ROOT = Path(__file__).parents[3]
RAY = str(Path(sys.executable).with_name("ray"))
STOP_S = 30.0
# Size of each node's object store: half of `cluster.launch.OBJECT_STORE_BYTES`, because nodes share one memory.
OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class Node:
    """A running node of a Ray cluster, the process `ray start --block`.

    Attributes:
        address: Address of the cluster, HOST:PORT.
        dashboard: URL of the cluster's dashboard.
        environment: The environment variables with which the node was started.
    """

    address: str
    dashboard: str
    environment: Mapping[str, str]


@contextmanager
def head(options: Sequence[str] = (), *, dashboard: bool = False) -> Iterator[Node]:
    """Run the head node of a new cluster until the block ends.

    Args:
        options: Further options of `ray start`.
        dashboard: Whether to start the dashboard, which `serve deploy` needs. That takes some seconds.
    """
    port, dashboard_port = free_port(), free_port()
    own = ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}"]
    own += [f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={dashboard_port}", *options]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _start(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}", own, token) as node:
        yield node


@contextmanager
def worker(joined: Node, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> Iterator[Node]:
    """Run one more node of a cluster, whose HTTP proxy has its own port, until the block ends.

    Args:
        joined: A node of the cluster.
        environment: Further environment variables.
        options: Further options of `ray start`.
    """
    token = {name: joined.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    own = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(free_port()), **token, **(environment or {})}
    with _start(joined.address, joined.dashboard, [f"--address={joined.address}", *options], own) as node:
        yield node


@contextmanager
def _start(address: str, dashboard: str, options: list[str], environment: Mapping[str, str]) -> Iterator[Node]:
    # Ray creates Unix sockets in this directory, and their paths may not exceed 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="rjn-", dir="/tmp"))
    write_launcher(directory)
    full = {**os.environ, "PYTHONPATH": str(ROOT), **node_environment(directory), **SINGLE_MACHINE, **environment}
    command = [RAY, "start", "--block", "--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    command += ["--num-cpus=2", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--dashboard-agent-listen-port={free_port()}", *options]
    if "--head" in options:
        command.append(f"--temp-dir={directory}")
    log = directory / "start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=full, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_started(process, log)
        yield Node(address, dashboard, full)
    finally:
        _kill(process)
        shutil.rmtree(directory, ignore_errors=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the node and its child processes. An orderly end of `ray start --block` would take half a minute."""
    if process.poll() is not None:
        return  # the process has ended already: the node did not start
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(tree, STOP_S)
    process.wait()


def _await_started(process: subprocess.Popen[bytes], log: Path) -> None:
    def started() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"`ray start` failed:\n{log.read_text(encoding='utf-8')[-4000:]}")
        return "This command will now block" in log.read_text(encoding="utf-8")

    wait_until(started, 60, "`ray start`")
