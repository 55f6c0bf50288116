"""Tests of scaling on three nodes with emulated engines: even load, autoscaling and overload without lost calls.

All nodes are on this machine. Each has its own HAProxy and raylet.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cluster.environment import free_port
from loadtest.generator.run import run
from loadtest.generator.search import recovered
from loadtest.results.result import RunOutcome, RunResult, Verdict
from loadtest.scenario.scenario import CallerBehavior, Scenario
from loadtest.scenario.schedule import plan
from tests.system.harness.nodes import ROOT, Node, head, worker
from tests.system.harness.served import Served, metric, serving
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(420)]

SEATS = ['--resources={"seat": 2}']
QUIET = CallerBehavior(think_s=2.0, muted_between_turns=True)
FAST: dict[str, Any] = {"metrics_interval_s": 1, "look_back_period_s": 3, "upscale_delay_s": 1, "downscale_delay_s": 8}
DEPLOYED = ("host", "turn_detector", "stt", "llm", "tts")


@pytest.fixture
def nodes() -> Iterator[Node]:
    """Return the head of a new cluster of three nodes. A shared one would carry load signals to the next test."""
    with head(SEATS) as first, worker(first, options=SEATS), worker(first, options=SEATS):
        yield first


def served_on(nodes: Node, folder: Path, args: dict[str, Any]) -> contextlib.AbstractContextManager[Served]:
    """Serve the application with some `args` on the cluster."""
    address, environment = nodes.address, nodes.environment
    return serving(folder, args, address=address, environment=environment, port=free_port(), orderly=False)


def emulated(ms: float, slots: int, most: int = 1, **other: Any) -> dict[str, Any]:
    """Return the settings of an emulated stage: median service time, requests at once, and most replicas."""
    scaling = {**FAST, "min_replicas": 1, "max_replicas": most, "target_ongoing_requests": 4, "queue_delay_ms": 50}
    engine = {"curve": {"median_ms": ms}, "slots": slots, "tokens_per_s": 200, **other}
    return {"engine": "emulated", "emulation": engine, "autoscaling": scaling}


def hosts(least: int, most: int, target: float, max_sessions: int = 60) -> dict[str, Any]:
    """Return the settings of the hosts, of which at most two fit on a node."""
    scaling = {**FAST, "min_replicas": least, "max_replicas": most, "target_ongoing_requests": target, "headroom": 0}
    resources = {"num_cpus": 0.1, "custom": {"seat": 1}}
    return {"max_sessions": max_sessions, "autoscaling": scaling, "resources": resources}


def scenario(served: Served, sessions: int, for_s: float, **other: Any) -> Scenario:
    """Return a load of some sessions for some seconds."""
    url = served.url.replace("http", "ws") + "/v1"
    return Scenario(url, sessions, for_s, ramp_s=3, warm_up_s=2, drain_s=25, behavior=QUIET, **other)


class Census:
    """The largest number of replicas that each deployment had within the block, sampled once a second."""

    def __init__(self, served: Served) -> None:
        self.most: dict[str, int] = {}
        self._served = served
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._watching.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.join()

    def look(self) -> dict[str, int]:
        """Return the number of replicas of each deployment now."""
        found = Counter(replica["stage"] for replica in self._served.census())
        counts = {stage: found[stage] for stage in DEPLOYED}
        self.most = {stage: max(count, self.most.get(stage, 0)) for stage, count in counts.items()}
        return counts

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            # A host may be too busy to answer in time while others start. A later sample will include them.
            with contextlib.suppress(httpx2.HTTPError):
                self.look()


def shares(homes: list[dict[str, str]]) -> list[int]:
    """Return the number of calls that each host holds now, 0 for a host that is gone."""

    def held(home: dict[str, str]) -> int:
        try:
            return round(metric(home["target"], "rejoinder_sessions_live"))
        except httpx2.ConnectError:
            return 0

    return [held(home) for home in homes]


def live(homes: list[dict[str, str]]) -> int:
    """Return the number of calls that these hosts hold now."""
    return sum(shares(homes))


def in_background(job: Callable[[], RunResult]) -> Future[RunResult]:
    """Run a load in a thread."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(job)
    pool.shutdown(wait=False)
    return future


def kept(found: RunResult) -> bool:
    """Return True if no call was refused, failed or dropped, and every turn was answered or interrupted."""
    counts = found.counts
    lost = counts.sessions_refused + counts.sessions_failed + counts.sessions_dropped
    return not lost and counts.turns > 0 and counts.turns == counts.answered + counts.interrupted


def test_hosts_share_calls_evenly_and_a_new_host_loses_none(nodes: Node, tmp_path: Path) -> None:
    """Three hosts on several nodes hold 18 calls evenly, within 20%.

    Nine more calls are spread evenly too. They make Serve add a fourth host, and no call is lost.
    """
    args = {"host": hosts(3, 4, target=8), "stt": emulated(80, 64), "llm": emulated(100, 64), "tts": emulated(60, 64)}
    with served_on(nodes, tmp_path, args) as served:
        homes = served.wait_for("host", 3)
        assert len({home["node"] for home in homes}) >= 2
        first = in_background(lambda: run(scenario(served, 18, 25)))
        wait_until(lambda: live(homes) == 18, 30, "18 calls")
        even = shares(homes)
        second = in_background(lambda: run(scenario(served, 9, 20, seed=2)))
        wait_until(lambda: live(homes) == 27, 30, "27 calls")
        fuller = shares(homes)
        served.wait_for("host", 4)
        found = [first.result(), second.result()]
    assert all(abs(share - 6) <= 1.2 for share in even), even
    assert all(abs(share - 9) <= 1.8 for share in fuller), fuller
    assert all(kept(one) for one in found), [(one.counts, one.notes) for one in found]


def test_a_fivefold_ramp_scales_every_deployment_up_and_back(nodes: Node, tmp_path: Path) -> None:
    """From 4 to 20 calls and back, every deployment adds a replica and removes it again, and no call is lost.

    Hosts are removed while they hold calls.
    """
    args = {
        "host": hosts(1, 3, target=8),
        # Slow enough to have requests under way most of the time.
        "turn_detector": {
            "autoscaling": {**FAST, "max_replicas": 2, "target_ongoing_requests": 0.5},
            "inject_delay_ms": 200,
        },
        "stt": emulated(500, 1, most=2),
        "llm": emulated(400, 1, most=2),
        "tts": emulated(250, 1, most=2, speed=20),
        "endpointing": {"finished_probability": 0},  # the turn model judges every end of speech
    }
    with served_on(nodes, tmp_path, args) as served:
        # Calls to a replica that still starts wait for it and count as load in Serve: wait until they are over.
        wait_until(lambda: Census(served).look() == dict.fromkeys(DEPLOYED, 1), 60, "one replica each to begin with")
        census = Census(served)
        with census:
            base = in_background(lambda: run(scenario(served, 4, 80)))
            crowd = in_background(lambda: run(scenario(served, 16, 40, seed=2)))
            homes = served.wait_for("host", 3)
            # These calls go to the two new hosts. Whichever two of the three leave, at least one of them holds calls.
            late = in_background(lambda: run(scenario(served, 4, 60, seed=3)))
            served.wait_for("host", 1, timeout_s=90)
            stayed = {home["target"] for home in served.replicas("host")}
            leaving = live([home for home in homes if home["target"] not in stayed])
            found = [run.result() for run in (base, crowd, late)]
            wait_until(lambda: census.look() == dict.fromkeys(DEPLOYED, 1), 120, f"one replica each of {census.most}")
    assert all(kept(one) for one in found), [(one.counts, one.notes) for one in found]
    assert leaving > 0, "no removed host held calls"
    assert all(census.most[stage] >= 2 for stage in DEPLOYED), census.most


def test_overload_is_refused_without_harm_to_admitted_calls(nodes: Node, tmp_path: Path) -> None:
    """Of three times the calls that fit, the surplus is refused, and the admitted calls stay within the Good tier.

    Ten seconds later a small load is as fast as before.
    """
    args = {
        "host": hosts(1, 1, target=8, max_sessions=8),
        "stt": emulated(100, 8),
        "llm": emulated(150, 8, tokens_per_s=1000),
        "tts": emulated(80, 8),
    }
    with served_on(nodes, tmp_path, args) as served:
        before = run(scenario(served, 3, 12))
        crowd = run(scenario(served, 24, 20, seed=2))
        after = run(scenario(served, 3, 12, seed=3))
    assert (crowd.counts.sessions_opened, crowd.counts.sessions_refused) == (8, 16)
    assert crowd.counts.turns == crowd.counts.answered > 0
    assert {_gate(crowd, name).outcome for name in ("good tier", "end to end p95")} <= {
        RunOutcome.PASS,
        RunOutcome.UNDECIDED,
    }
    assert recovered(before.latencies["voice_to_voice"].p50_ms, after.latencies["voice_to_voice"].p50_ms)


def test_workers_on_other_nodes_hold_one_schedule(nodes: Node, tmp_path: Path) -> None:
    """Two generator processes, Ray actors on the cluster, hold all calls of one frozen schedule together."""
    args = {"stt": emulated(80, 64), "llm": emulated(100, 64), "tts": emulated(60, 64)}
    result = tmp_path / "result.json"
    with served_on(nodes, tmp_path, args) as served:
        load = scenario(served, 8, 10, workers=2, ray_address=nodes.address)
        # In its own process: Ray reads its token once, and the test process may have joined another cluster.
        command = [sys.executable, "-m", "rejoinder.cli", "load", "run", "--url", load.url, "--sessions", "8"]
        command += [
            "--for",
            "10s",
            "--set",
            "workers=2",
            "--set",
            f"ray_address={nodes.address}",
            "--json",
            str(result),
        ]
        command += ["--set", "ramp_s=3", "--set", "warm_up_s=2", "--set", "drain_s=25"]
        command += ["--set", "behavior.muted_between_turns=true"]
        environment = dict(nodes.environment)
        held = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.exists(), held.stderr
    found = json.loads(result.read_text(encoding="utf-8"))
    assert (found["counts"]["sessions_opened"], found["counts"]["sessions_dropped"]) == (8, 0)
    assert found["counts"]["turns"] == found["counts"]["answered"] > 0
    assert found["schedule_sha256"] == plan(load).sha256


def _gate(found: RunResult, name: str) -> Verdict:
    return next(row for row in found.verdicts if row.name == name)
