"""Tests of the load generator against a server with known latencies and stalls, which it must measure correctly.

A run in which the generator itself gets too little CPU time must be INVALID.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtest.generator import workers
from loadtest.generator.run import failing_calls, run
from loadtest.results.result import VOICE_TO_VOICE, FailingCalls, RunOutcome, RunResult
from loadtest.scenario.scenario import CallerBehavior, Scenario

pytestmark = [pytest.mark.timed, pytest.mark.models, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]
QUICK = CallerBehavior(think_s=0.3, answer_timeout_s=5)


@contextmanager
def known_server(**answers: Any) -> Iterator[str]:
    """Run a `KnownServer` in a separate process and yield its URL. `answers` are the fields of its `Answers`."""
    command = [sys.executable, "-m", "tests.loadtest.generator.known_server", json.dumps(answers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout
    try:
        yield f"ws://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def hold(url: str, sessions: int = 20, for_s: float = 20, **other: Any) -> RunResult:
    scenario = Scenario(url, sessions, for_s, ramp_s=1, warm_up_s=2, drain_s=8, behavior=QUICK, **other)
    return run(scenario)


@dataclass(frozen=True)
class ServerRun:
    """Settings (`Answers`) of a server with known answer times, and the measured time in s of a run against it."""

    answers: dict[str, Any]
    for_s: float = 20

    def result(self) -> RunResult:
        with known_server(**self.answers) as url:
            return hold(url, for_s=self.for_s)


PLAIN = ServerRun({"median_ms": 620, "sigma": 0.15})
STALLED = ServerRun({"median_ms": 400, "freeze_at_s": 14, "freeze_s": 2.0})
SWALLOWING = ServerRun({"median_ms": 400, "swallow": 0.2})
REFUSING = ServerRun({"refuse_above": 10}, for_s=5)


@pytest.fixture(scope="module")
def results() -> Iterator[Callable[[ServerRun], RunResult]]:
    """Yield a function that waits for and returns the result of the run against a `ServerRun`'s server.

    All runs are started at the same time on one machine, because they mostly wait.
    """
    servers = (PLAIN, STALLED, SWALLOWING, REFUSING)
    with ThreadPoolExecutor(len(servers)) as pool:
        runs = [pool.submit(server.result) for server in servers]
        yield lambda server: runs[servers.index(server)].result()


def test_an_injected_distribution_is_recovered(results: Callable[[ServerRun], RunResult]) -> None:
    """Against log-normal answer times, the measured median and p95 are near those of the distribution.

    They are within the 99% sampling error, plus -5 to +20 ms for delivery.
    """
    result = results(PLAIN)
    whole = result.latencies[VOICE_TO_VOICE]
    assert result.outcome is not RunOutcome.INVALID, result.causes
    assert whole.count == result.counts.answered > 60
    # Standard error of a sample quantile: sqrt(q(1-q)/n) / density, here of the logarithm with sigma 0.15.
    for measured, z, density, q in ((whole.p50_ms, 0.0, 0.3989, 0.5), (whole.p95_ms, 1.645, 0.1031, 0.95)):
        true_ms = 620 * math.exp(0.15 * z)
        error = 2.576 * 0.15 * math.sqrt(q * (1 - q) / whole.count) / density
        # In addition to the sampling error, the latency may be longer by 20 ms, for the network, the pacing and the
        # position of the first audible sample within a frame of 20 ms.
        assert true_ms * math.exp(-error) - 5 < measured < true_ms * math.exp(error) + 20
    assert result.emulated == {"all": "emulated known times"}
    assert result.counts.sessions_opened == 20


def test_a_stalled_server_shows_in_the_tail(results: Callable[[ServerRun], RunResult]) -> None:
    """If the server stops for 2 s, the p99 latency exceeds 1.5 s while the median stays below 0.6 s.

    The latency of a turn starts at its scheduled time. A generator that waited for the server would not see the stall.
    """
    result = results(STALLED)
    whole = result.latencies[VOICE_TO_VOICE]
    assert whole.p50_ms < 600
    assert whole.p99_ms > 1500
    assert result.outcome is not RunOutcome.INVALID, result.causes


def test_unanswered_turns_count_with_the_timeout(results: Callable[[ServerRun], RunResult]) -> None:
    """If a server leaves a fifth of the turns unanswered, the run fails and its maximum latency is the timeout."""
    result = results(SWALLOWING)
    assert result.counts.unanswered > 5
    assert result.latencies[VOICE_TO_VOICE].max_ms == pytest.approx(5000, rel=0.01)
    assert result.outcome is RunOutcome.FAIL
    assert {row.name for row in result.verdicts if row.outcome is RunOutcome.FAIL} >= {"turns answered"}


def test_refused_calls_are_counted_as_refused(results: Callable[[ServerRun], RunResult]) -> None:
    """A server with room for 10 of 20 calls refuses 10. None counts as failed, and the run fails."""
    result = results(REFUSING)
    assert (result.counts.sessions_opened, result.counts.sessions_refused, result.counts.sessions_failed) == (10, 10, 0)
    assert result.failing == (FailingCalls("refused with HTTP 503", 10, {"local": 10}),)
    assert result.outcome is RunOutcome.FAIL


def test_failing_calls_are_grouped_by_cause_and_route() -> None:
    """Counts of failing calls become groups with their routes, the largest first; other counts are ignored."""
    found = failing_calls({"failing:us-asia+relay:a: b": 2, "failing:local:c": 1, "failing:local:a: b": 1, "turns": 9})
    assert found == (FailingCalls("a: b", 3, {"local": 1, "us-asia+relay": 2}), FailingCalls("c", 1, {"local": 1}))


def test_a_starved_generator_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that is stopped for a fifth of every second is late, so the run is INVALID."""
    pids: list[int] = []
    original = workers.set_real_time_priority

    def note(pid: int) -> bool:
        pids.append(pid)
        return original(pid)

    monkeypatch.setattr(workers, "set_real_time_priority", note)

    def starve(progress: workers.RunProgress) -> None:
        # Each report, once a second, stops the worker processes for 0.2 s.
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # at the end of the run some workers have exited
                os.kill(pid, signal.SIGSTOP)
            subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -CONT {pid}"])

    with known_server(median_ms=400) as url:
        result = run(Scenario(url, 20, 8, ramp_s=1, warm_up_s=1, drain_s=8, behavior=QUICK), starve)
    assert result.outcome is RunOutcome.INVALID
    assert any("lateness" in cause for cause in result.causes)
    assert result.outcome.exit_code == 3
