"""A cluster of three nodes on this machine, an application with emulated engines on it, and load for tests of scaling.

Each node has its own HAProxy and its own raylet (Ray's process per node).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.environment import free_port
from loadtest.results.result import RunResult
from loadtest.scenario.scenario import CallerBehavior, Scenario
from tests.system.harness.nodes import Node, head, worker
from tests.system.harness.served import Served, serving

SEATS = ['--resources={"seat": 2}']
QUIET = CallerBehavior(think_s=2.0, muted_between_turns=True)
# The shortest times of autoscaling (in seconds) with which Serve still decides on more than one sample.
FAST: dict[str, Any] = {"metrics_interval_s": 1, "look_back_period_s": 3, "upscale_delay_s": 1, "downscale_delay_s": 5}


@contextlib.contextmanager
def three_nodes() -> Iterator[Node]:
    """Run a cluster of three nodes with room for two hosts each. Yield the head node; stop all at the block's end."""
    with head(SEATS) as first, worker(first, options=SEATS), worker(first, options=SEATS):
        yield first


def served_on(nodes: Node, folder: Path, args: dict[str, Any]) -> contextlib.AbstractContextManager[Served]:
    """Return a context manager that runs `rejoinder serve` on a cluster until its block ends.

    Args:
        nodes: A node of the cluster.
        folder: Folder for the configuration and the log.
        args: The settings of the application.
    """
    address, environment = nodes.address, nodes.environment
    return serving(folder, args, address=address, environment=environment, port=free_port())


def emulated(ms: float, slots: int, most: int = 1, **other: Any) -> dict[str, Any]:
    """Return the settings of an emulated stage.

    Args:
        ms: Median service time in milliseconds.
        slots: Requests that a replica works on at once.
        most: Maximum number of replicas.
        **other: Further settings of the emulation.
    """
    scaling = {**FAST, "min_replicas": 1, "max_replicas": most, "target_ongoing_requests": 4, "queue_delay_ms": 50}
    engine = {"curve": {"median_ms": ms}, "slots": slots, "tokens_per_s": 200, **other}
    return {"engine": "emulated", "emulation": engine, "autoscaling": scaling}


def hosts(least: int, most: int, target: float, max_sessions: int = 60) -> dict[str, Any]:
    """Return the settings of session hosts that are placed at most two on a node.

    Args:
        least: Minimum number of hosts.
        most: Maximum number of hosts.
        target: Calls per host at which Serve adds another host.
        max_sessions: Maximum number of calls per host.
    """
    scaling = {**FAST, "min_replicas": least, "max_replicas": most, "target_ongoing_requests": target, "headroom": 0}
    resources = {"num_cpus": 0.1, "custom": {"seat": 1}}
    return {"max_sessions": max_sessions, "autoscaling": scaling, "resources": resources}


def scenario(served: Served, sessions: int, for_s: float, **other: Any) -> Scenario:
    """Return a load test with this many calls for `for_s` seconds. `other` has further fields of Scenario."""
    url = served.url.replace("http", "ws") + "/v1"
    return Scenario(url, sessions, for_s, ramp_s=3, warm_up_s=2, drain_s=25, behavior=QUIET, **other)


def kept(found: RunResult) -> bool:
    """Return True if no call was refused, failed or dropped and every turn was answered or interrupted.

    A result without turns gives False.
    """
    counts = found.counts
    lost = counts.sessions_refused + counts.sessions_failed + counts.sessions_dropped
    return not lost and counts.turns > 0 and counts.turns == counts.answered + counts.interrupted
