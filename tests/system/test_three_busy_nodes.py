"""Tests on three nodes with emulated engines: scaling, overload, and load generators on several nodes."""

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

import httpx2
import pytest

from cluster.environment import REDISPATCH
from loadtest.generator.run import run
from loadtest.generator.search import recovered
from loadtest.results.result import RunOutcome, RunResult, Verdict
from loadtest.scenario.schedule import plan
from rejoinder.core.resilience.redispatch import RETRIES
from tests.system.harness.growing import FAST, emulated, hosts, kept, scenario, served_on, three_nodes
from tests.system.harness.nodes import ROOT, Node
from tests.system.harness.served import Served, metric
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(420)]

REFUSED = "rejoinder_sessions_refused_total"
DEPLOYED = ("host", "turn_detector", "stt", "llm", "tts")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Node]:
    """Return the head node of a cluster of three nodes, on which each test serves its own application."""
    with three_nodes() as first:
        yield first


class Census:
    """Counter of replicas. While its block runs it samples once a second.

    `most` is the largest number of replicas that each deployment had.
    """

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
        """Return the current number of replicas of each deployment, and update `most`."""
        found = Counter(replica["stage"] for replica in self._served.census())
        counts = {stage: found[stage] for stage in DEPLOYED}
        self.most = {stage: max(count, self.most.get(stage, 0)) for stage, count in counts.items()}
        return counts

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            # While replicas start, a host may be too busy to answer in time. A later sample includes the new replicas.
            with contextlib.suppress(httpx2.HTTPError):
                self.look()


def shares(homes: list[dict[str, str]]) -> list[int]:
    """Return the number of calls that each host has now, 0 for a host that has ended.

    `homes` has the labels of the hosts, as `Served.replicas` returns them.
    """

    def held(home: dict[str, str]) -> int:
        try:
            return round(metric(home["target"], "rejoinder_sessions_live"))
        except httpx2.ConnectError:
            return 0

    return [held(home) for home in homes]


def live(homes: list[dict[str, str]]) -> int:
    """Return the number of calls that these hosts have together now (see `shares`)."""
    return sum(shares(homes))


def in_background(job: Callable[[], RunResult]) -> Future[RunResult]:
    """Start a load test in a thread, and return the future of its result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(job)
    pool.shutdown(wait=False)
    return future


def test_hosts_share_calls_evenly_and_a_new_host_loses_none(nodes: Node, tmp_path: Path) -> None:
    """18 calls are spread evenly over three hosts on at least two nodes: each has 6, within 20%.

    27 calls are spread evenly too: each host has 9, give or take two. They make Serve add a fourth host, which reloads
    HAProxy, and each reload starts again with the first host. No call is lost.
    """
    args = {"host": hosts(3, 4, target=8), "stt": emulated(80, 64), "llm": emulated(100, 64), "tts": emulated(60, 64)}
    with served_on(nodes, tmp_path, args) as served:
        homes = served.wait_for("host", 3)
        assert len({home["node"] for home in homes}) >= 2
        first = in_background(lambda: run(scenario(served, 18, 20)))
        wait_until(lambda: live(homes) == 18, 30, "18 calls")
        even = shares(homes)
        second = in_background(lambda: run(scenario(served, 9, 14, seed=2)))
        wait_until(lambda: live(homes) == 27, 30, "27 calls")
        fuller = shares(homes)
        served.wait_for("host", 4)
        found = [first.result(), second.result()]
    assert all(abs(share - 6) <= 1.2 for share in even), even
    assert all(abs(share - 9) <= 2 for share in fuller), fuller
    assert all(kept(one) for one in found), [(one.counts, one.notes) for one in found]


def test_a_fivefold_ramp_scales_every_deployment_up_and_back(nodes: Node, tmp_path: Path) -> None:
    """If calls increase from 4 to 20 and fall again, every deployment adds a replica and removes it. No call is lost.

    Hosts are removed while they still have calls, which they keep until these end.
    """
    args = {
        "host": hosts(1, 3, target=8),
        # The delay of 200 ms keeps a request in flight most of the time, which Serve counts as load.
        "turn_detector": {
            "autoscaling": {**FAST, "max_replicas": 2, "target_ongoing_requests": 0.5},
            "inject_delay_ms": 200,
        },
        "admission": {"enabled": False},  # the crowd must load the stages until they grow
        "stt": emulated(500, 1, most=2),
        "llm": emulated(400, 1, most=2),
        "tts": emulated(250, 1, most=2, speed=20),
        "endpointing": {"ask_after_ms": 0},  # with 0 ms, every end of speech is sent to the turn detector
    }
    with served_on(nodes, tmp_path, args) as served:
        # Requests to a replica that is still starting wait for it and count as load. Wait until there are none.
        wait_until(lambda: Census(served).look() == dict.fromkeys(DEPLOYED, 1), 60, "one replica each to begin with")
        census = Census(served)
        with census:
            base = in_background(lambda: run(scenario(served, 4, 55)))
            crowd = in_background(lambda: run(scenario(served, 16, 28, seed=2)))
            homes = served.wait_for("host", 3)
            # These calls go to the two new hosts. Serve later removes two of three hosts, so one with calls is removed.
            # A client that resumes moves off a host that is removed. These calls do not, and stay until they end.
            late = in_background(lambda: run(scenario(served, 4, 40, seed=3, resume=False)))
            served.wait_for("host", 1, timeout_s=90)
            stayed = {home["target"] for home in served.replicas("host")}
            leaving = live([home for home in homes if home["target"] not in stayed])
            found = [run.result() for run in (base, crowd, late)]
            wait_until(lambda: census.look() == dict.fromkeys(DEPLOYED, 1), 120, f"one replica each of {census.most}")
    assert all(kept(one) for one in found), [(one.counts, one.notes) for one in found]
    assert leaving > 0, "no removed host held calls"
    assert all(census.most[stage] >= 2 for stage in DEPLOYED), census.most


def test_overload_is_refused_without_harm_to_admitted_calls(nodes: Node, tmp_path: Path) -> None:
    """If 24 calls come to stages that 8 calls may use at first, at most 12 are admitted, the others refused.

    The host itself has room for 60, so the stages decide, and the refusals are counted under their reasons. Every turn
    of the admitted calls is answered, with a median of at most 1.2 times that of 8 calls alone. (The p95 of so few
    turns is the slowest one.) The Good tier's verdicts of the run with 24 calls are PASS or UNDECIDED, not FAIL. After
    the overload, the median voice-to-voice time of 8 calls is at most 10% plus 20 ms longer than before.
    """
    args = {
        "host": hosts(1, 1, target=60),
        "admission": {"cold_start_calls": 4},
        "stt": emulated(100, 2),
        "llm": emulated(150, 2, tokens_per_s=1000),
        "tts": emulated(80, 2),
    }
    with served_on(nodes, tmp_path, args) as served:
        before = run(scenario(served, 8, 12))
        crowd = run(scenario(served, 24, 15, seed=2))
        after = run(scenario(served, 8, 12))  # the schedule of the first run: two slots make latency depend on it
        host = served.replicas("host")[0]["target"]
        refusals = {reason: metric(host, REFUSED, reason=reason) for reason in ("growth", "cold_start", "utilisation")}
    admitted, refused = crowd.counts.sessions_opened, crowd.counts.sessions_refused
    assert admitted + refused == 24
    assert 4 <= admitted <= 12
    # HAProxy sends a refused handshake again, here to the same host.
    attempts = 1 + int(REDISPATCH[RETRIES])
    assert sum(refusals.values()) == attempts * sum(held.counts.sessions_refused for held in (before, crowd, after))
    assert (before.counts.sessions_refused, after.counts.sessions_refused) == (0, 0)
    assert crowd.counts.turns == crowd.counts.answered > 0
    assert crowd.latencies["voice_to_voice"].p50_ms <= 1.2 * before.latencies["voice_to_voice"].p50_ms
    assert {_gate(crowd, name).outcome for name in ("good tier", "end to end p95")} <= {
        RunOutcome.PASS,
        RunOutcome.UNDECIDED,
    }
    assert recovered(before.latencies["voice_to_voice"].p50_ms, after.latencies["voice_to_voice"].p50_ms)


def test_workers_on_other_nodes_hold_one_schedule(nodes: Node, tmp_path: Path) -> None:
    """Two load generators, which are Ray actors on the cluster, together make all calls of one schedule."""
    args = {"stt": emulated(80, 64), "llm": emulated(100, 64), "tts": emulated(60, 64)}
    result = tmp_path / "result.json"
    with served_on(nodes, tmp_path, args) as served:
        load = scenario(served, 8, 10, workers=2, ray_address=nodes.address)
        # The command runs in a new process, because a process reads Ray's token only once, and this one may have read
        # that of another cluster.
        command = [sys.executable, "-m", "rejoinder.cli", "load", "run", "--url", load.url, "--sessions", "8"]
        command += ["--for", "10s", "--json", str(result), "--set", f"ray_address={nodes.address}"]
        for setting in ("workers=2", "ramp_s=3", "warm_up_s=2", "drain_s=25", "behavior.muted_between_turns=true"):
            command += ["--set", setting]
        environment = dict(nodes.environment)
        held = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.exists(), held.stderr
    found = json.loads(result.read_text(encoding="utf-8"))
    assert (found["counts"]["sessions_opened"], found["counts"]["sessions_dropped"]) == (8, 0)
    assert found["counts"]["turns"] == found["counts"]["answered"] > 0
    assert found["schedule_sha256"] == plan(load).sha256


def _gate(found: RunResult, name: str) -> Verdict:
    return next(row for row in found.verdicts if row.name == name)
