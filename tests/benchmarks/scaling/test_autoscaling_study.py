"""Tests of the autoscaling policies in simulated scenarios: they follow the load without oscillation.

The simulations are short versions of the ones in `docs/results/scale.md`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling.autoscaling_study import DAY_S, SCENARIOS, LoadScenario, day, host_row, line, stage_row
from benchmarks.scaling.stage_load import NodeLoss

_, SPIKE, LOSS = SCENARIOS
SHORT_DAY = LoadScenario("day", 3600.0, lambda now: day(now * DAY_S / 3600.0))


@pytest.mark.parametrize("size", [5, 50])
def test_a_stage_follows_a_fivefold_spike_with_one_reversal(size: int) -> None:
    """A stage grows about fivefold within a ramp of 60 s and shrinks once, with under 1% of the requests refused.

    Serve's own policy changes direction more often and keeps more slots idle.
    """
    ours, stock = stage_row(SPIKE, size, stock=False), stage_row(SPIKE, size, stock=True)
    assert ours.reversals == 1
    assert 4 * size <= ours.most <= 8 * size
    assert ours.refused < 0.01
    assert ours.refused < stock.refused
    assert ours.idle < stock.idle
    assert stock.reversals > ours.reversals


@pytest.mark.parametrize("size", [5, 50])
def test_a_steady_stage_is_not_scaled(size: int) -> None:
    """At a steady load that needs 5 or 50 replicas, the number stays within a fifth plus one, and few are late.

    The former policy scaled by the largest waiting time of all replicas. At 50 replicas it grew at any load.
    """
    row = stage_row(LoadScenario("steady", 900.0, lambda _: 1.0), size, stock=False)
    assert row.most <= size * 1.2 + 1
    assert row.late is not None
    assert row.late < 0.12
    assert row.reversals <= 1


def test_a_stage_recovers_from_the_loss_of_a_third_of_its_nodes() -> None:
    """When a third of 50 replicas is lost, the stage does not grow beyond a fifth more than it had, nor shrink."""
    row = stage_row(LOSS, 50, stock=False)
    assert row.reversals == 0
    assert row.most <= 60
    assert row.refused < 0.02


@pytest.mark.parametrize("size", [5, 50])
def test_hosts_refuse_no_call_of_a_spike(size: int) -> None:
    """Hosts keep places free for the calls that arrive while a host starts, so a fivefold spike is not refused.

    Serve's own policy, with its default delays, refuses more than 1% of the calls.
    """
    ours, stock = host_row(SPIKE, size, stock=False), host_row(SPIKE, size, stock=True)
    assert ours.refused == 0
    assert ours.reversals == 1
    assert stock.refused > 0.01


def test_hosts_take_back_the_calls_of_lost_nodes() -> None:
    """When a third of the hosts is lost, their callers call again, and none of them is refused."""
    row = host_row(replace(LOSS, loss=NodeLoss(900.0)), 50, stock=False)
    assert row.refused == 0
    assert row.reversals <= 1


def test_a_day_has_one_reversal() -> None:
    """Hosts and stages grow until noon and shrink until night; the simulated day has one hour."""
    assert host_row(SHORT_DAY, 50, stock=False).reversals <= 1
    assert stage_row(SHORT_DAY, 50, stock=False).reversals <= 1


def test_a_row_is_printed_as_a_line_of_a_table() -> None:
    """A row has the scenario, the size, the policy, the most replicas, reversals, refused, late and idle shares."""
    printed = line(host_row(replace(LOSS, duration_s=10.0), 5, stock=True))
    assert printed.split("|")[1:4] == [" loss ", " 5 ", " Serve "]
    assert printed.count("|") == 9
