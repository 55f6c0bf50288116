"""Tests of scaling on three nodes with emulated engines: even load and autoscaling without lost calls."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from loadtest.generator.run import run
from loadtest.results.result import RunResult
from tests.system.harness.growing import FAST, emulated, hosts, kept, scenario, served_on, three_nodes
from tests.system.harness.nodes import Node
from tests.system.harness.served import Served, metric
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(420)]

DEPLOYED = ("host", "turn_detector", "stt", "llm", "tts")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Node]:
    """Return the head of a cluster of three nodes, on which each test serves its own application."""
    with three_nodes() as first:
        yield first


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


def test_hosts_share_calls_evenly_and_a_new_host_loses_none(nodes: Node, tmp_path: Path) -> None:
    """Three hosts on several nodes hold 18 calls evenly, within 20%.

    Nine more calls are spread evenly too. They make Serve add a fourth host, and no call is lost.
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
            base = in_background(lambda: run(scenario(served, 4, 55)))
            crowd = in_background(lambda: run(scenario(served, 16, 28, seed=2)))
            homes = served.wait_for("host", 3)
            # These calls go to the two new hosts. Whichever two of the three leave, at least one of them holds calls.
            late = in_background(lambda: run(scenario(served, 4, 40, seed=3)))
            served.wait_for("host", 1, timeout_s=90)
            stayed = {home["target"] for home in served.replicas("host")}
            leaving = live([home for home in homes if home["target"] not in stayed])
            found = [run.result() for run in (base, crowd, late)]
            wait_until(lambda: census.look() == dict.fromkeys(DEPLOYED, 1), 120, f"one replica each of {census.most}")
    assert all(kept(one) for one in found), [(one.counts, one.notes) for one in found]
    assert leaving > 0, "no removed host held calls"
    assert all(census.most[stage] >= 2 for stage in DEPLOYED), census.most
