"""vLLM in a real Serve replica: streaming, cancellation, prefix cache, and cleanup after a kill."""

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
# Maximum seconds until the processes of a killed replica's engine end. The process guard sends them SIGTERM, and
# SIGKILL five seconds later.
GONE_S = 15.0
# Maximum seconds until a new replica answers. It loads vLLM and the model, which takes half a minute on two idle cores.
REPLACED_S = 150.0


def test_it_streams(system: System) -> None:
    """An answer of up to 60 tokens arrives in more than ten parts, the first of them within half of the total time."""
    started = time.monotonic()
    number = system.ask(STORY, 60)
    system.finish(number)
    whole_s = time.monotonic() - started
    state = system.lab.state(number)
    assert state["items"] > 10
    assert state["first_s"] < whole_s / 2


@pytest.mark.parametrize("end", ["leave", "cancel"])
def test_it_stops_in_the_middle(system: System, end: str) -> None:
    """An answer whose reader leaves (barge-in), or that is cancelled (a hedge's loser), stops in vLLM's scheduler.

    The cancelled answer's KV cache is freed, and the next request is answered.
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
    """After a hundred requests are dropped at random times, the scheduler is idle and the next answer is right."""
    chance = random.Random(4)
    for _ in range(0, STORM, PLACES):
        wave = [system.ask(STORY, TOKENS) for _ in range(PLACES)]
        chance.shuffle(wave)
        for number in wave:
            time.sleep(chance.uniform(0, 0.1))  # cancel at random stages of a request
            chance.choice((system.lab.leave, system.lab.cancel))(number)
    system.rest()
    assert "Paris" in system.answer("What is the capital of France?", 24)


def test_a_common_prefix_is_cached(system: System) -> None:
    """If a prompt begins like an earlier one, vLLM counts more than 60% but not all of its tokens as cache hits."""
    system.answer(f"{INSTRUCTIONS} What is the capital of Italy?", 2)
    before = system.rest()
    system.answer(f"{INSTRUCTIONS} Who wrote Hamlet?", 2)
    after = system.rest()
    queries, hits = (after[name] - before[name] for name in ("prefix_cache_queries_total", "prefix_cache_hits_total"))
    assert 0.6 * queries < hits < queries


def test_a_killed_replica_leaves_no_engine_behind(system: System) -> None:
    """After kill -9 of the replica, all of its child processes end, and a new replica answers."""
    pid = system.replica["pid"]
    started = {child: child.cmdline() for child in psutil.Process(int(pid)).children(recursive=True)}
    # vLLM renames its engine process. Before that, the name is the one of a process spawned by multiprocessing.
    assert any("VLLM" in " ".join(words) or "spawn_main" in " ".join(words) for words in started.values()), started
    os.kill(int(pid), signal.SIGKILL)
    assert not psutil.wait_procs(started, GONE_S)[1]
    system.served.wait_for("llm", 1, without=pid, timeout_s=REPLACED_S)
    assert "Paris" in system.answer("What is the capital of France?", 24)
