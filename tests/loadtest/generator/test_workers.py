"""The workers of a run: what they report is summed as it should be, and none of them outlives the run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.workers import MAX_MOMENTS, RunProgress, run_workers
from loadtest.results.histograms import encoded
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError

ORDER = WorkerAssignment(
    Scenario("ws://127.0.0.1:9/v1", 1, 10), calls=(), measure_from_s=0.0, measure_to_s=10.0, start_at=0.0
)


def line(at_s: float, *, live: int = 1, cpu: float = 0.1, late_ms: float = 0.5, **other: Any) -> dict[str, Any]:
    """A worker's report of one second."""
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
    """Four hours, and reports that come after them, in 240 slices."""
    progress = RunProgress(span_s=14_400, start_at=0.0)
    for at_s in range(0, 15_000, 7):
        progress.add(0, line(at_s))
    moments = progress.timeline()
    assert len(moments) == MAX_MOMENTS
    assert [moment.at_s for moment in moments] == [60.0 * index for index in range(MAX_MOMENTS)]


def test_counts_are_summed_over_workers_and_told_apart_by_time() -> None:
    """Workers report totals since their start: each slice has what was new in it, and the sum is the total."""
    progress = RunProgress(span_s=10, start_at=0.0)
    for worker, totals in ((0, (2, 5)), (1, (1, 1))):
        for at_s, turns in enumerate(totals):
            taken = {VOICE_TO_VOICE: encoded([0.4] * turns)}
            progress.add(
                worker, line(at_s, live=3 + worker, counts={"turns": turns, "failed": turns // 2}, seconds=taken)
            )
    moments = progress.timeline()
    assert [(moment.turns, moment.failed, moment.sessions) for moment in moments] == [(3, 1, 7), (3, 1, 7)]
    assert moments[0].p50_ms == pytest.approx(400, rel=0.001)
    assert progress.merged.counts["turns"] == sum(moment.turns for moment in moments) == 6


def test_the_generator_is_as_fit_as_its_worst_worker() -> None:
    """CPU is the busiest worker's mean over the measured time, lateness everybody's; traffic is the total."""
    progress = RunProgress(span_s=10, start_at=0.0)
    for at_s, cpu in enumerate((0.6, 0.8)):
        progress.add(0, line(at_s, cpu=cpu))
        progress.add(1, line(at_s, cpu=0.1, late_ms=9.0))
    progress.add(0, line(5, cpu=1.0, late_ms=900.0, measuring=False))
    fit = progress.fitness()
    assert fit.cpu == pytest.approx(0.7)
    assert (fit.frames_scheduled, fit.frames_sent) == (100, 100)
    assert fit.lateness.get_total_count() == 4
    assert fit.lateness.get_value_at_percentile(100) / 1000 == pytest.approx(9.0, rel=0.001)


@pytest.fixture
def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of the interpreter; returns where it leaves its process id."""
    pid = tmp_path / "pid"
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nsh {tmp_path}/does\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return pid


def test_a_worker_that_dies_is_a_typed_error(fake_worker: Path) -> None:
    """Not a group of them, and the others are stopped."""
    fake_worker.with_name("does").write_text("kill -9 $PPID")
    with pytest.raises(BackendError, match="ended early"):
        asyncio.run(run_workers([ORDER, ORDER], RunProgress(10, 0.0), lambda _: None))


def test_no_worker_outlives_a_run_that_breaks(fake_worker: Path) -> None:
    """Whatever is raised here, the process is gone when it arrives, even one that stands still."""
    fake_worker.with_name("does").write_text(f"echo '{json.dumps(line(0))}'; kill -STOP $PPID")

    def broken(progress: RunProgress) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        asyncio.run(run_workers([ORDER], RunProgress(10, 0.0), broken))
    with pytest.raises(ProcessLookupError):
        os.kill(int(fake_worker.read_text()), 0)
