"""Tests of calls that survive: a host is killed, and its calls go on at another host of the same cluster.

The engines are emulated. The language model answers every question with the same words, so that a word which is said
twice or not at all is found.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import websockets
import yaml

from cluster.environment import free_port
from deployments.engines.emulated import WORDS
from tests.system.harness.growing import emulated, hosts, served_on
from tests.system.harness.nodes import ROOT, Node, head, worker
from tests.system.harness.served import Served, metric, serving
from tests.system.harness.surviving import SurvivingCaller
from tests.system.harness.watching import wait_until
from tests.system.harness.wire_caller import realtime_url

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

CALLS = int(os.environ.get("REJOINDER_SURVIVAL_CALLS", "12"))
"""Number of concurrent calls of the test. About half of them are on the host that is killed."""
TOKENS = 30
ANSWER = " ".join((WORDS * TOKENS)[:TOKENS])
BACK_S = 1.0
GAP_S = 1.5
NODE_GAP_S = 5.0
"""Longest silence if a whole node is lost. Its stage replicas die too, and a request to one of them is repeated only
after an error or a time-out. One call of four was silent for 2.6 s.
"""


def _args(replicas: int = 1) -> dict[str, Any]:
    """Return the settings: two hosts, or `replicas` hosts and as many replicas of each stage."""
    own = hosts(max(2, replicas), max(2, replicas), target=60)
    own["resources"] = {"num_cpus": 0.1}
    stages = {"stt": emulated(80, 64), "llm": emulated(100, 64, tokens=TOKENS), "tts": emulated(60, 64)}
    for stage in stages.values():
        stage["autoscaling"] = {"min_replicas": replicas, "max_replicas": replicas}
    return {"host": own, "admission": {"enabled": False}, "conversation": {"max_reply_tokens": 200}, **stages}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("survival"), _args()) as found:
        found.wait_for("host", 2)
        yield found


@asynccontextmanager
async def calls(url: str, count: int) -> AsyncIterator[list[SurvivingCaller]]:
    """Run this many calls until the block ends."""
    callers = [SurvivingCaller(url) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run())
        try:
            for caller in callers:
                await caller.until("session.created")
            yield callers
        finally:
            for caller in callers:
                await caller.hang_up()


def _judge(cut: list[SurvivingCaller], gap_s: float = GAP_S) -> None:
    """Print and check how long the calls that were cut off had no connection, and how long they heard nothing."""
    back_s = [seconds for caller in cut for seconds in caller.back_s]
    gaps_s = [seconds for caller in cut for seconds in caller.gaps_s]
    assert len(back_s) == len(gaps_s) == len(cut)
    p50_s, p95_s = np.percentile(back_s, [50, 95])
    print(f"{len(cut)} calls cut, {sum(caller.refused for caller in cut)} refused attempts")
    print(f"back after {p50_s:.2f} s (p50), {p95_s:.2f} s (p95), {max(back_s):.2f} s (max)")
    print(f"silence {np.percentile(gaps_s, 50):.2f} s (p50), {max(gaps_s):.2f} s (max)")
    assert p95_s <= BACK_S
    assert max(gaps_s) <= gap_s


async def _answers(caller: SurvivingCaller, questions: int) -> None:
    """Assert that every question has one whole answer, each word once, over all items of the conversation."""
    words: Counter[str] = Counter()
    items = {event["item"]["id"] for event in caller.of("response.output_item.added")}
    for item_id in items:
        words += Counter((await caller.text_of(item_id)).split())
    assert words == Counter({word: count * questions for word, count in Counter(ANSWER.split()).items()})


async def test_calls_go_on_when_their_host_is_killed(served: Served) -> None:
    """Every call of a host that is killed is back within a second (p95), and its answer is said to the end, once.

    The calls of the other host notice nothing.
    """
    victim = served.replicas("host")[0]["pid"]
    async with calls(served.url, CALLS) as callers:
        for caller in callers:
            await caller.ask("How are you?")
        for caller in callers:
            await caller.until("response.done")
        for caller in callers:
            await caller.ask("And now?")
        for caller in callers:
            await caller.until("response.output_audio.delta", len(caller.of("response.output_audio.delta")) + 1)
        await asyncio.sleep(3.0)
        os.kill(int(victim), signal.SIGKILL)
        await asyncio.sleep(2.0)
        cut = [caller for caller in callers if caller.back_s or caller.broke_at]
        assert len(cut) >= CALLS // 4
        for caller in callers:
            await caller.until("response.done", 2)
            await _answers(caller, 2)
        _judge(cut)
        for caller in cut:
            assert caller.of("rejoinder.session.resumed")[0]["items"] == 4
            assert caller.of("rejoinder.session.resumed")[0]["response"]["kind"] == "continued"
    wait_until(lambda: len(served.replicas("host")) == 2, 60, "a new host")


async def test_the_older_of_two_connections_on_two_hosts_is_closed(served: Served) -> None:
    """If a client resumes while its connection is still open, the older host is told, and closes with code 4409."""
    await asyncio.to_thread(served.wait_for, "host", 2)
    async with calls(served.url, 1) as (first,):
        first.ended = True  # the older connection does not resume by itself
        await asyncio.sleep(0.2)
        async with websockets.connect(f"{realtime_url(served.url)}&resume_token={first.token}") as second:
            kinds = [json.loads(await second.recv())["type"] for _ in range(2)]
            assert kinds == ["session.created", "rejoinder.session.resumed"]
            error = await first.until("error", timeout_s=2.0)
            assert error["error"]["code"] == "session_resumed_elsewhere"


async def _until_all_get_calls(served: Served, targets: list[str]) -> None:
    """Wait until HAProxy sends calls to every host. It learns of a host some time after the host has started."""
    async with asyncio.timeout(30):
        while True:
            async with calls(served.url, CALLS):
                live = [await asyncio.to_thread(metric, target, "rejoinder_sessions_live") for target in targets]
            if all(live):
                return
            await asyncio.sleep(0.5)


async def test_calls_go_on_when_the_node_of_their_host_is_lost(tmp_path: Path) -> None:
    """On three nodes, all processes of a node are killed. Its calls are back within a second (p95) with every word."""
    with head() as first, worker(first), ExitStack() as lost:
        lost.enter_context(worker(first))
        with served_on(first, tmp_path, _args(replicas=3)) as served:
            hosts_now = await asyncio.to_thread(served.wait_for, "host", 3)
            assert len({replica["node"] for replica in hosts_now}) == 3
            await _until_all_get_calls(served, [replica["target"] for replica in hosts_now])
            async with calls(served.url, CALLS) as callers:
                await asyncio.gather(*(caller.ask("How are you?") for caller in callers))
                await asyncio.gather(*(caller.until("response.output_audio.delta") for caller in callers))
                await asyncio.sleep(3.0)
                await asyncio.to_thread(lost.close)
                await asyncio.gather(*(caller.until("response.done") for caller in callers))
                for caller in callers:
                    await _answers(caller, 1)
                cut = [caller for caller in callers if caller.back_s]
                assert cut
                _judge(cut, NODE_GAP_S)


def _deployed(node: Node, folder: Path, port: int, args: dict[str, Any]) -> None:
    """Deploy the application with these settings with Ray's `serve deploy`, which does not wait."""
    config = folder / "ray_config.yaml"
    entry = {"name": "rejoinder", "import_path": "deployments.app:build", "route_prefix": "/", "args": args}
    document = {"http_options": {"host": "127.0.0.1", "port": port}, "proxy_location": "EveryNode"}
    config.write_text(yaml.safe_dump(document | {"applications": [entry]}), encoding="utf-8")
    serve = str(Path(sys.executable).with_name("serve"))
    command = [serve, "deploy", str(config), "--address", node.dashboard]
    subprocess.run(command, env=dict(node.environment), cwd=ROOT, check=True, timeout=60)


def _pids(url: str) -> set[str]:
    """Return the process ids of the hosts that answer; empty if the server does not answer."""
    try:
        entries = httpx2.get(f"{url}/metrics/targets", timeout=5).json()
        return {entry["labels"]["pid"] for entry in entries if entry["labels"]["stage"] == "host"}
    except (httpx2.HTTPError, ValueError, TypeError):
        return set()


async def test_a_new_version_is_deployed_during_calls(tmp_path: Path) -> None:
    """`serve deploy` with other settings replaces both hosts. No call is lost and every question is answered.

    Each call is asked to move between two turns. A call that stays, because its client does not know the request, is
    served by its old host to its end.
    """
    with head(dashboard=True) as node:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        _deployed(node, tmp_path, port, _args())
        await asyncio.to_thread(wait_until, lambda: len(_pids(url)) == 2, 120, "two hosts")
        before = _pids(url)
        async with calls(url, 8) as callers:
            callers[0].stays = True
            talking = [asyncio.create_task(_talk(caller, 6)) for caller in callers]
            await asyncio.sleep(5.0)
            _deployed(node, tmp_path, port, _args() | {"endpointing": {"min_silence_ms": 120}})
            await asyncio.wait_for(asyncio.gather(*talking), 150)
            moved = [caller for caller in callers if caller.connections > 1]
            print(f"{len(moved)} of {len(callers)} calls moved; {sum(c.refused for c in callers)} refused attempts")
            print(f"back after {max(s for c in moved for s in c.back_s):.2f} s (max)")
            for caller in callers:
                assert len(caller.of("response.done")) == 6
                assert {done["response"]["status"] for done in caller.of("response.done")} == {"completed"}
                await _answers(caller, 6)
            assert moved
            assert callers[0].connections == 1
            assert not callers[0].of("rejoinder.session.resumed")
        await asyncio.to_thread(wait_until, lambda: len(_pids(url) - before) == 2, 60, "two new hosts")


async def _talk(caller: SurvivingCaller, questions: int) -> None:
    """Ask questions one after the other; each waits for the answer before, and for a second connection if needed."""
    for number in range(1, questions + 1):
        await caller.ask(f"Question {number}?")
        await caller.until("response.done", number)
        await asyncio.sleep(1.5)
