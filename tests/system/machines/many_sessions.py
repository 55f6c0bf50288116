"""Hold many calls on six hosts of three machines, while a machine with two more hosts joins and another is drained.

    python -m tests.system.machines.many_sessions --sessions 1000 --for 600 --think 150

All stages are emulated, and clients send audio only while their caller speaks or waits for an answer. So this proves
that the system holds the connections and moves no call, not what it hears and says.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from loadtest.generator.run import run
from loadtest.results.result import RunResult
from loadtest.scenario.scenario import CallerBehavior, Scenario
from tests.system.harness.growing import FAST, emulated
from tests.system.harness.served import Served, metric
from tests.system.harness.watching import wait_until
from tests.system.machines.cluster_nodes import NodeCluster, node_cluster, serving_on, with_seats

FIRST = ("alpha", "beta", "gamma")
ADDED, DRAINED = "delta", "gamma"
NODE = with_seats(2)
HOSTS = 6
MORE_HOSTS = 8
START_S = 120.0
JOIN_S = 120.0
RAMP_S = 60.0


@dataclass(frozen=True)
class Held:
    """What became of the calls.

    Attributes:
        result: Result of the load test.
        spread: Live calls of each host when all callers were connected, by address.
        later: The same when the machine has been drained for a sixth of the time, with the new and the drained hosts.
        cpu: Mean share of this computer's cores in use during the measurement, in [0, 1].
    """

    result: RunResult
    spread: Mapping[str, int]
    later: Mapping[str, int]
    cpu: float


def settings(sessions: int) -> dict[str, Any]:
    """Return the settings of an application whose hosts scale from six to eight if `sessions` callers come."""
    scaling = {**FAST, "min_replicas": HOSTS, "max_replicas": MORE_HOSTS, "headroom": 0}
    target = sessions / (MORE_HOSTS - 0.5)
    return {
        "host": {
            "max_sessions": sessions // 4,
            "autoscaling": {**scaling, "target_ongoing_requests": target},
            "resources": {"num_cpus": 0.1, "custom": {"seat": 1}},
        },
        "admission": {"cold_start_calls": max(1, sessions // 32)},
        "turn_detector": {"resources": {"num_cpus": 0.1}},
        "stt": emulated(80, 64),
        "llm": emulated(120, 64),
        "tts": emulated(80, 64),
    }


def hold(
    folder: Path, sessions: int, *, for_s: float, think_s: float, ramp_s: float = RAMP_S, join_s: float = JOIN_S
) -> Held:
    """Hold the calls, add a machine after a sixth of the time, and drain another one a sixth after it has hosts.

    Args:
        folder: Folder for the configuration and the log.
        sessions: Number of calls.
        for_s: Duration of the measurement in seconds, besides the `join_s`.
        think_s: Median pause of a caller between two turns, in seconds.
        ramp_s: Time in which the callers connect, in seconds.
        join_s: Time that the added machine may take until its hosts accept calls, in seconds.
    """
    with (
        node_cluster(*FIRST, options=NODE, visible=[folder]) as cluster,
        serving_on(cluster, folder, settings(sessions)) as served,
    ):
        wait_until(lambda: len(served.replicas("host")) >= HOSTS, START_S, "six hosts")
        behavior = CallerBehavior(think_s=think_s, muted_between_turns=True)
        url = served.url.replace("http", "ws") + "/v1"
        # The callers do not resume, so the calls of a drained machine stay on its hosts.
        load = Scenario(
            url,
            sessions,
            for_s + join_s,
            ramp_s=ramp_s,
            warm_up_s=5,
            drain_s=30,
            behavior=behavior,
            workers=2,
            owned=True,
            resume=False,
        )
        changes = _Changes(cluster, served, begins_s=ramp_s + 5, for_s=for_s, join_s=join_s)
        changes.start()
        result = run(load)
        changes.join()
        if changes.error is not None:
            raise changes.error
        return Held(result, changes.spread, changes.later, changes.cpu)


class _Changes(threading.Thread):
    """Thread that changes the cluster while the calls go on."""

    def __init__(self, cluster: NodeCluster, served: Served, *, begins_s: float, for_s: float, join_s: float) -> None:
        super().__init__(name="changes")
        self._cluster, self._served = cluster, served
        self._begins_s, self._for_s, self._join_s = begins_s, for_s, join_s
        self.spread: dict[str, int] = {}
        self.later: dict[str, int] = {}
        self.cpu = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._change()
        except (OSError, RuntimeError, subprocess.SubprocessError, AssertionError) as error:
            self.error = error

    def _change(self) -> None:
        time.sleep(self._begins_s)
        psutil.cpu_percent()
        self.spread = self._calls()
        time.sleep(self._for_s / 6)
        self._cluster.add(ADDED, options=NODE)
        wait_until(lambda: len(self._calls()) >= MORE_HOSTS, self._join_s, "two more hosts")
        time.sleep(self._for_s / 6)
        self._cluster.drain(DRAINED, within_s=2 * self._for_s)
        time.sleep(self._for_s / 6)
        self.later = self._calls()
        self.cpu = psutil.cpu_percent() / 100

    def _calls(self) -> dict[str, int]:
        # A host that is drained is no longer listed, but answers until its last call ends.
        targets = {host["target"] for host in self._served.replicas("host")} | self.spread.keys()
        return {target: round(metric(target, "rejoinder_sessions_live")) for target in targets}


def main() -> None:
    """Hold the calls that the command line describes, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1000, help="number of calls")
    parser.add_argument("--for", dest="time", type=float, default=600.0, help="duration in seconds")
    parser.add_argument("--think", type=float, default=150.0, help="median pause between two turns, in seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held = hold(Path(folder), options.sessions, for_s=options.time, think_s=options.think)
    counts, latency = held.result.counts, held.result.latencies.get("voice_to_voice")
    print(f"calls on each host, connected: {sorted(held.spread.values())}; later: {sorted(held.later.values())}")
    print(
        f"calls: {counts.sessions_opened} of {counts.sessions_scheduled} held, {counts.sessions_refused} refused, "
        f"{counts.sessions_failed} failed, {counts.sessions_dropped} dropped"
    )
    print(f"turns: {counts.turns}, {counts.answered} answered, {counts.failed} failed, {counts.unanswered} unanswered")
    if latency:
        print(f"voice to voice: p50 {latency.p50_ms:.0f} ms, p95 {latency.p95_ms:.0f} ms")
    print(f"load test: {held.result.outcome.value}; cores in use: {held.cpu:.0%}")


if __name__ == "__main__":
    main()
