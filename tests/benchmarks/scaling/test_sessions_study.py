"""Tests of the simulation of talking sessions, at a small size."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scaling.sessions_study import HEADER, ClusterPlan, SessionsSimulation, row
from rejoinder.core.settings.settings import HostSettings, Settings

SMALL = ClusterPlan(nodes=2, cores=4)


def test_callers_that_fit_are_all_answered_in_time() -> None:
    """Sixty callers on six hosts are admitted, and nearly all turns are as fast as without load."""
    out = SessionsSimulation(SMALL, 60).run(90.0, 30.0)
    assert (out.admitted, out.waiting) == (60, 0)
    assert len(out.turns_s) > 150
    assert 200 < out.quantile_ms(0.5) < 400
    assert out.quantile_ms(0.95) < 1.2 * out.quantile_ms(0.5) + 100
    assert out.extra <= 0.05 * out.requests
    assert out.opened == 0


def test_the_places_of_the_hosts_are_a_limit() -> None:
    """If six hosts have five places each, 30 of 60 callers are admitted, and the others are refused as full."""
    settings = Settings(host=HostSettings(max_sessions=5))
    out = SessionsSimulation(replace(SMALL, nodes=1, settings=settings), 60).run(90.0, 10.0)
    assert out.admitted <= 5 * out.replicas["host"]
    assert out.waiting == 60 - out.admitted
    assert out.refusals["full"] > 0


def test_a_row_is_a_line_of_the_table() -> None:
    """A row has as many cells as the header."""
    assert row(SMALL, 5, 20.0, 5.0).count("|") == HEADER[0].count("|")
