"""The generator's own limits: what makes a run INVALID, and what only warns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from loadtest.generator.self_check import Fitness, causes
from loadtest.results.histograms import encoded


def taken(*values_ms: float) -> HdrHistogram:
    return HdrHistogram.decode(encoded([value / 1000 for value in values_ms]))


FIT = Fitness(
    taken(*[0.5] * 100),
    lag=taken(*[1.0] * 100),
    cpu=0.3,
    queued=0.001,
    steal=0.0,
    missed=0,
    frames_scheduled=10_000,
    frames_sent=10_000,
)


def test_a_fit_generator_has_no_causes() -> None:
    """Every check within its limit."""
    assert all(check.ok for check in FIT.checks())
    assert causes(FIT.checks()) == ()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"lateness": taken(*[0.5] * 95, *[9.0] * 5)}, "send lateness"),
        ({"lag": taken(*[0.5] * 95, *[30.0] * 5)}, "event loop lag"),
        ({"cpu": 0.8}, "CPU"),
        ({"steal": 0.05}, "stolen"),
        ({"missed": 1}, "missed arrivals"),
        ({"frames_sent": 9_980}, "frames sent"),
    ],
)
def test_each_limit_makes_a_run_invalid_by_name(change: dict[str, Any], cause: str) -> None:
    """Late, starved or lossy: the cause names the limit that broke."""
    (found,) = causes(replace(FIT, **change).checks())
    assert cause in found


def test_waiting_for_a_core_alone_only_warns() -> None:
    """Lateness decides; a run queue on a shared machine does not."""
    checks = replace(FIT, queued=0.2).checks()
    assert causes(checks) == ()
    assert [check.name for check in checks if not check.ok] == ["waiting for a core"]
