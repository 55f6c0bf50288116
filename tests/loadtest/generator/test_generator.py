"""The generator measures itself honestly: injected latencies are found again, stalls show, starvation is INVALID."""

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

from loadtest.generator import workers as crew
from loadtest.generator.run import run
from loadtest.results.result import VOICE_TO_VOICE, RunOutcome, RunResult
from loadtest.scenario.scenario import CallerBehavior, Scenario

pytestmark = [pytest.mark.timed, pytest.mark.models, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]
QUICK = CallerBehavior(think_s=0.3, answer_timeout_s=5)


@contextmanager
def known_server(**order: Any) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.loadtest.generator.known_server", json.dumps(order)]
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
class Against:
    """A server of known times, and for how long calls are held against it."""

    order: dict[str, Any]
    for_s: float = 20

    def found(self) -> RunResult:
        with known_server(**self.order) as url:
            return hold(url, for_s=self.for_s)


PLAIN = Against({"median_ms": 620, "sigma": 0.15})
STALLED = Against({"median_ms": 400, "freeze_at_s": 14, "freeze_s": 2.0})
SWALLOWING = Against({"median_ms": 400, "swallow": 0.2})
REFUSING = Against({"refuse_above": 10}, for_s=5)


@pytest.fixture(scope="module")
def found() -> Iterator[Callable[[Against], RunResult]]:
    """What the generator says of a server. All are held at once, each with a generator of its own: they mostly wait."""
    servers = (PLAIN, STALLED, SWALLOWING, REFUSING)
    with ThreadPoolExecutor(len(servers)) as pool:
        runs = [pool.submit(server.found) for server in servers]
        yield lambda server: runs[servers.index(server)].result()


def test_an_injected_distribution_is_recovered(found: Callable[[Against], RunResult]) -> None:
    """Log-normal answers: median and p95 of the generator lie within the 99% interval of so many draws, and the whole
    run passes the gates it should.
    """
    held = found(PLAIN)
    whole = held.latencies[VOICE_TO_VOICE]
    assert held.outcome is not RunOutcome.INVALID, held.causes
    assert whole.count == held.counts.answered > 60
    # The deviation of a log-normal's sample quantile is sqrt(q(1-q)/n) / density; in the logarithm, with sigma 0.15.
    for measured, z, density, q in ((whole.p50_ms, 0.0, 0.3989, 0.5), (whole.p95_ms, 1.645, 0.1031, 0.95)):
        true_ms = 620 * math.exp(0.15 * z)
        error = 2.576 * 0.15 * math.sqrt(q * (1 - q) / whole.count) / density
        # Beside the draws' own error: 20 ms for the network, the pacing and the audible edge inside a frame.
        assert true_ms * math.exp(-error) - 5 < measured < true_ms * math.exp(error) + 20
    assert held.emulated == {"all": "emulated known times"}
    assert held.counts.sessions_opened == 20


def test_a_stalled_server_shows_in_the_tail(found: Callable[[Against], RunResult]) -> None:
    """All of a server stands still for 2 s: turns that should have been answered meanwhile count from their scheduled
    instants, so the p99 shows the stall (a generator that waited with it would omit it).
    """
    held = found(STALLED)
    whole = held.latencies[VOICE_TO_VOICE]
    assert whole.p50_ms < 600
    assert whole.p99_ms > 1500
    assert held.outcome is not RunOutcome.INVALID, held.causes


def test_unanswered_turns_count_at_the_time_out(found: Callable[[Against], RunResult]) -> None:
    """A system that swallows a fifth of its turns is not made fast by it."""
    held = found(SWALLOWING)
    assert held.counts.unanswered > 5
    assert held.latencies[VOICE_TO_VOICE].max_ms == pytest.approx(5000, rel=0.01)
    assert held.outcome is RunOutcome.FAIL
    assert {row.name for row in held.verdicts if row.outcome is RunOutcome.FAIL} >= {"turns answered"}


def test_refusals_are_counted_as_what_they_are(found: Callable[[Against], RunResult]) -> None:
    """Ten places for twenty calls: ten refused, none failed, and the gate on set-ups fails."""
    held = found(REFUSING)
    assert (held.counts.sessions_opened, held.counts.sessions_refused, held.counts.sessions_failed) == (10, 10, 0)
    assert held.outcome is RunOutcome.FAIL


def test_a_starved_generator_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that is stopped for a fifth of every second is late: the run says so and judges nothing."""
    seen: list[int] = []
    real = crew.set_real_time_priority

    def note(pid: int) -> bool:
        seen.append(pid)
        return real(pid)

    monkeypatch.setattr(crew, "prefer", note)

    def starve(progress: crew.RunProgress) -> None:
        # Called once a second by each report: the worker stands still until its next one is overdue.
        for pid in seen:
            with contextlib.suppress(ProcessLookupError):  # at the end of the run some are gone already
                os.kill(pid, signal.SIGSTOP)
            subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -CONT {pid}"])

    with known_server(median_ms=400) as url:
        found = run(Scenario(url, 20, 8, ramp_s=1, warm_up_s=1, drain_s=8, behavior=QUICK), starve)
    assert found.outcome is RunOutcome.INVALID
    assert any("lateness" in cause for cause in found.causes)
    assert found.outcome.exit_code == 3
