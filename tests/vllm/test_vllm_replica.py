"""vLLM in a real Serve replica of a whole system: it streams, stops, survives, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import time

import psutil
import pytest

from tests.system.harness.watching import wait_until
from tests.vllm.engine import INSTRUCTIONS, PLACES, STORY
from tests.vllm.system import System

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

TOKENS = 700
STORM = 100
# The guard asks politely first, and kills five seconds later.
GONE_S = 15.0
# A new replica loads vLLM and the model: half a minute on two idle cores.
REPLACED_S = 150.0


def test_it_streams(system: System) -> None:
    """The answer comes in many parts, the first long before the last."""
    began = time.monotonic()
    number = system.ask(STORY, 60)
    system.finish(number)
    whole_s = time.monotonic() - began
    state = system.lab.state(number)
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
    system.rest()
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
    system.rest()
    assert "Paris" in system.answer("What is the capital of France?", 24)


def test_it_finds_a_prefix_again(system: System) -> None:
    """Of a prompt that begins as an earlier one did, vLLM counts most tokens as hits."""
    system.answer(f"{INSTRUCTIONS} What is the capital of Italy?", 2)
    before = system.rest()
    system.answer(f"{INSTRUCTIONS} Who wrote Hamlet?", 2)
    after = system.rest()
    asked, hits = (after[name] - before[name] for name in ("prefix_cache_queries_total", "prefix_cache_hits_total"))
    assert 0.6 * asked < hits < asked


def test_a_killed_replica_leaves_no_engine_behind(system: System) -> None:
    """kill -9 of the replica ends every process that it had started, and another takes its place and answers."""
    pid = system.replica["pid"]
    started = {child: child.cmdline() for child in psutil.Process(int(pid)).children(recursive=True)}
    # Of vLLM's own name for it, or before it has given itself one.
    assert any("VLLM" in " ".join(words) or "spawn_main" in " ".join(words) for words in started.values()), started
    os.kill(int(pid), signal.SIGKILL)
    assert not psutil.wait_procs(started, GONE_S)[1]
    system.served.wait_for("llm", 1, without=pid, timeout_s=REPLACED_S)
    assert "Paris" in system.answer("What is the capital of France?", 24)
