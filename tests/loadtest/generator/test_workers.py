"""Tests of the load generator's workers (processes): their reports are merged, and none of them outlives the run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.workers import MAX_SLICES, RunProgress, run_workers
from loadtest.results.histograms import encoded
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError

ASSIGNMENT = WorkerAssignment(
    Scenario("ws://127.0.0.1:9/v1", 1, 10), calls=(), measure_from_s=0.0, measure_to_s=10.0, start_at=0.0
)


def line(at_s: float, *, live: int = 1, cpu: float = 0.1, late_ms: float = 0.5, **other: Any) -> dict[str, Any]:
    """Return a worker's report about the second of the run that ends at `at_s`.

    `live` is its number of open calls, `cpu` its share of a core, `late_ms` the lateness of one frame. `other` replaces
    fields of the report.
    """
    return {
        "at_s": at_s,
        "live": live,
        "final": False,
        "measuring": True,
        "lateness": encoded([late_ms / 1000]),
        "lag": encoded([0.001]),
        "shares": {"cpu": cpu, "queued": 0.0},
        "traffic": {"scheduled": 50, "sent": 50},
        "counts": {},
        "seconds": {},
        "slowest": [],
    } | other


def test_the_timeline_is_bounded() -> None:
    """The timeline of a four-hour run has 240 slices of 60 s, even if reports arrive after the end of the run."""
    progress = RunProgress(span_s=14_400, start_at=0.0)
    for at_s in range(0, 15_000, 7):
        progress.add(0, line(at_s))
    moments = progress.timeline()
    assert len(moments) == MAX_SLICES
    assert [moment.at_s for moment in moments] == [60.0 * index for index in range(MAX_SLICES)]


def test_counts_are_summed_over_workers_and_divided_by_time() -> None:
    """Each slice of the timeline has the increase of the workers' counts, summed over the workers.

    A worker reports its counts since its start. The slices sum to the total of all workers.
    """
    progress = RunProgress(span_s=10, start_at=0.0)
    for worker, totals in ((0, (2, 5)), (1, (1, 1))):
        for at_s, turns in enumerate(totals):
            latencies = {VOICE_TO_VOICE: encoded([0.4] * turns)}
            progress.add(
                worker, line(at_s, live=3 + worker, counts={"turns": turns, "failed": turns // 2}, seconds=latencies)
            )
    moments = progress.timeline()
    assert [(moment.turns, moment.failed, moment.sessions) for moment in moments] == [(3, 1, 7), (3, 1, 7)]
    assert moments[0].p50_ms == pytest.approx(400, rel=0.001)
    assert progress.merged.counts["turns"] == sum(moment.turns for moment in moments) == 6


def test_the_self_checks_use_the_worst_worker() -> None:
    """The self-checks use the mean CPU of the busiest worker, and the lateness and frames of all workers."""
    progress = RunProgress(span_s=10, start_at=0.0)
    for at_s, cpu in enumerate((0.6, 0.8)):
        progress.add(0, line(at_s, cpu=cpu))
        progress.add(1, line(at_s, cpu=0.1, late_ms=9.0))
    progress.add(0, line(5, cpu=1.0, late_ms=900.0, measuring=False))
    fitness = progress.fitness()
    assert fitness.cpu == pytest.approx(0.7)
    assert (fitness.frames_scheduled, fitness.frames_sent) == (100, 100)
    assert fitness.lateness.get_total_count() == 4
    assert fitness.lateness.get_value_at_percentile(100) / 1000 == pytest.approx(9.0, rel=0.001)


@pytest.fixture
def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the workers' Python interpreter by a shell script.

    Return the path to which the script writes its process id. The script then runs the shell commands in the file
    `does` in the same directory.
    """
    pid = tmp_path / "pid"
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nsh {tmp_path}/does\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return pid


def test_a_worker_that_dies_raises_one_typed_error(fake_worker: Path) -> None:
    """If a worker dies, `run_workers` raises one BackendError instead of an exception group."""
    fake_worker.with_name("does").write_text("kill -9 $PPID")
    with pytest.raises(BackendError, match="ended early"):
        asyncio.run(run_workers([ASSIGNMENT, ASSIGNMENT], RunProgress(10, 0.0), lambda _: None))


def test_no_worker_outlives_a_run_that_breaks(fake_worker: Path) -> None:
    """If the progress callback raises, all workers have ended when the exception arrives, even a stopped process."""
    fake_worker.with_name("does").write_text(f"echo '{json.dumps(line(0))}'; kill -STOP $PPID")

    def broken(progress: RunProgress) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        asyncio.run(run_workers([ASSIGNMENT], RunProgress(10, 0.0), broken))
    with pytest.raises(ProcessLookupError):
        os.kill(int(fake_worker.read_text()), 0)
