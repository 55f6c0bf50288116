"""Tests of overload, and of load generators on several nodes, on a cluster of three nodes with emulated engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.environment import REDISPATCH
from loadtest.generator.run import run
from loadtest.generator.search import recovered
from loadtest.results.result import RunOutcome, RunResult, Verdict
from loadtest.scenario.schedule import plan
from rejoinder.core.resilience.redispatch import RETRIES
from tests.system.harness.growing import emulated, hosts, scenario, served_on, three_nodes
from tests.system.harness.nodes import ROOT, Node
from tests.system.harness.served import metric

REFUSED = "rejoinder_sessions_refused_total"
pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Node]:
    """Return the head node of a cluster of three nodes, on which each test serves its own application."""
    with three_nodes() as first:
        yield first


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
