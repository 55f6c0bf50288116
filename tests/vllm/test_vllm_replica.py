"""vLLM in a real Serve replica of a whole system: it streams, stops, survives, and leaves nothing behind.

Speech-to-text and the voice are emulated, so that the two cores are the language model's.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.serve.lab import LabClient, deploy
from tests.serve.nodes import head
from tests.serve.served import Served, serving
from tests.serve.watching import wait_until
from tests.vllm.engine import INSTRUCTIONS, MODEL, PLACES, SETTINGS, STORY, scheduler

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

TOKENS = 700
STORM = 100
# From the cancel to the end in vLLM's scheduler. Its current step takes some 30 ms, and the answer that was given up
# would take 20 s more; between the two is room for a busy machine.
STOPPED_S = 8.0
# The guard asks politely first, and kills five seconds later.
GONE_S = 15.0
# A new replica loads vLLM and the model: half a minute on two idle cores.
REPLACED_S = 150.0

ARGS: dict[str, Any] = {
    "llm": {
        "engine": "vllm",
        "model": MODEL,
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "vllm": SETTINGS.model_dump(),
    },
    "stt": {"engine": "emulated"},
    "tts": {"engine": "emulated"},
    "answer_cache": {"enabled": False},
}


@dataclass(frozen=True)
class System:
    served: Served
    lab: LabClient

    @property
    def replica(self) -> dict[str, str]:
        (only,) = self.served.replicas("llm")
        return only

    def now(self) -> dict[str, float]:
        """vLLM's scheduler, by the replica's own metrics."""
        return scheduler(httpx2.get(f"http://{self.replica['target']}/metrics", timeout=5).text)

    def idle(self) -> bool:
        """Nothing runs, nothing waits, no memory is held."""
        state = self.now()
        return not (state["num_requests_running"] or state["num_requests_waiting"] or state["kv_cache_usage_perc"])

    def ask(self, text: str, tokens: int) -> int:
        return self.lab.start("read", stage="llm", text=text, tokens=tokens)

    def answer(self, text: str, tokens: int) -> str:
        """The whole answer; fails with the call's error if it has one."""
        number = self.ask(text, tokens)
        wait_until(lambda: bool(self.lab.state(number)["over"]), 60, "the answer")
        state = self.lab.state(number)
        assert not state["error"], state["error"]
        return "".join(state["answers"])


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder: Path = tmp_path_factory.mktemp("vllm")
    with head() as node, serving(folder, ARGS, address=node.address, environment=node.environment) as served:
        yield System(served, deploy(node, served.url, "rejoinder"))


def test_it_streams(system: System) -> None:
    """The answer comes in many parts, the first long before the last."""
    began = time.monotonic()
    number = system.ask(STORY, 60)
    wait_until(lambda: bool(system.lab.state(number)["over"]), 60, "the answer")
    whole_s = time.monotonic() - began
    state = system.lab.state(number)
    assert not state["error"]
    assert state["items"] > 10
    assert state["first_s"] < whole_s / 2


@pytest.mark.parametrize("end", ["leave", "cancel"])
def test_it_stops_in_the_middle(system: System, end: str) -> None:
    """Left by its reader (barge-in) or cancelled (the loser of a race): vLLM's scheduler no longer runs it and holds
    none of its memory, and the next request is answered.
    """
    number = system.ask(STORY, TOKENS)
    wait_until(lambda: int(system.lab.state(number)["items"]) > 3, 30, "the first words")
    state = system.now()
    assert state["num_requests_running"] == 1
    assert state["kv_cache_usage_perc"] > 0
    getattr(system.lab, end)(number)
    wait_until(system.idle, STOPPED_S, "a free scheduler")
    assert "Paris" in system.answer("What is the capital of France?", 24)


def test_it_survives_a_storm(system: System) -> None:
    """A hundred requests in waves that fill its places, each given up at a random moment; then it is free and right."""
    chance = random.Random(4)
    for _ in range(0, STORM, PLACES):
        wave = [system.ask(STORY, TOKENS) for _ in range(PLACES)]
        chance.shuffle(wave)
        for number in wave:
            time.sleep(chance.uniform(0, 0.1))  # the moment is what is tested
            chance.choice((system.lab.leave, system.lab.cancel))(number)
    wait_until(system.idle, STOPPED_S, "a free scheduler")
    assert "Paris" in system.answer("What is the capital of France?", 24)


def test_it_finds_a_prefix_again(system: System) -> None:
    """Of a prompt that begins as an earlier one did, vLLM counts most tokens as hits."""
    system.answer(f"{INSTRUCTIONS} What is the capital of Italy?", 2)
    wait_until(system.idle, STOPPED_S, "a free scheduler")
    before = system.now()
    system.answer(f"{INSTRUCTIONS} Who wrote Hamlet?", 2)
    wait_until(system.idle, STOPPED_S, "a free scheduler")
    after = system.now()
    asked, hits = (after[name] - before[name] for name in ("prefix_cache_queries_total", "prefix_cache_hits_total"))
    assert 0.6 * asked < hits < asked


def test_a_killed_replica_leaves_no_engine_behind(system: System) -> None:
    """kill -9 of the replica ends the processes of its engine too, and another takes its place and answers."""
    pid = system.replica["pid"]
    engine = [child for child in psutil.Process(int(pid)).children(recursive=True) if "VLLM" in child.name()]
    assert engine
    os.kill(int(pid), signal.SIGKILL)
    assert not psutil.wait_procs(engine, GONE_S)[1]
    system.served.wait_for("llm", 1, without=pid, timeout_s=REPLACED_S)
    assert "Paris" in system.answer("What is the capital of France?", 24)
