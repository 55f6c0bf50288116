"""The generator's self-checks: which ones make a run INVALID, and which only warn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from loadtest.generator.self_check import Fitness, failure_causes
from loadtest.results.histograms import encoded


def recorded(*values_ms: float) -> HdrHistogram:
    """Return a histogram, in microseconds, of values that are given in milliseconds."""
    return HdrHistogram.decode(encoded([value / 1000 for value in values_ms]))


HEALTHY = Fitness(
    recorded(*[0.5] * 100),
    lag=recorded(*[1.0] * 100),
    cpu=0.3,
    queued=0.001,
    steal=0.0,
    missed=0,
    frames_scheduled=10_000,
    frames_sent=10_000,
)


def test_a_healthy_generator_has_no_causes() -> None:
    """If every self-check is within its limit, there are no causes for an INVALID run."""
    assert all(check.ok for check in HEALTHY.checks())
    assert failure_causes(HEALTHY.checks()) == ()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"lateness": recorded(*[0.5] * 95, *[9.0] * 5)}, "send lateness"),
        ({"lag": recorded(*[0.5] * 95, *[30.0] * 5)}, "event loop lag"),
        ({"cpu": 0.8}, "CPU"),
        ({"steal": 0.05}, "CPU steal: measured 0.05 of CPU time, must be at most 0.01 of CPU time"),
        ({"missed": 1}, "missed arrivals"),
        (
            {"frames_sent": 9_980},
            "frames sent: measured 0.998 of scheduled frames, must be at least 0.999 of scheduled frames",
        ),
    ],
)
def test_each_limit_makes_a_run_invalid_by_name(change: dict[str, Any], cause: str) -> None:
    """If one self-check violates its limit, there is one cause for an INVALID run, which names the check."""
    (found,) = failure_causes(replace(HEALTHY, **change).checks())
    assert cause in found


def test_run_queue_wait_alone_only_warns() -> None:
    """If only the CPU run-queue wait exceeds its limit, the check is not ok, but gives no cause for an INVALID run."""
    checks = replace(HEALTHY, queued=0.2).checks()
    assert failure_causes(checks) == ()
    assert [check.name for check in checks if not check.ok] == ["CPU run-queue wait"]
