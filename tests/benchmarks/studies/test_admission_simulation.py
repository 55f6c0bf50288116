"""Tests of the real admission decision in a simulated overload: callers, hosts, stages and queues in virtual time."""

from __future__ import annotations

import random

import pytest

from benchmarks.studies.admission_simulation import (
    SLOTS,
    TWO_CORES,
    Simulation,
    System,
    at_fixed_load,
    largest_load,
    overload,
    quantile_ms,
)

SETTLED_S = 30.0
"""Virtual seconds after which a constant number of calls has a steady latency."""


@pytest.mark.parametrize("system", [TWO_CORES, SLOTS], ids=["two cores", "slots"])
def test_three_times_the_load_does_not_slow_the_admitted_calls(system: System) -> None:
    """At three times the load that fits, the p95 of admitted calls is at most 1.2 times that at the limit.

    No turn stays unanswered, callers are refused, and more than half of the calls that fit are admitted.
    """
    fits = largest_load(system)
    limit = at_fixed_load(system, fits)
    crowd = overload(system, 3 * fits)
    assert quantile_ms(crowd, 0.95) <= 1.2 * quantile_ms(limit, 0.95, SETTLED_S)
    assert crowd.oldest_open_turn_s < 3
    assert crowd.refused
    assert max(calls for _, calls in crowd.live) >= fits / 2


def test_without_admission_the_same_crowd_is_answered_late() -> None:
    """The same callers without admission control wait more than 1.2 times as long: the comparison can fail."""
    fits = largest_load(TWO_CORES)
    limit = at_fixed_load(TWO_CORES, fits)
    crowd = at_fixed_load(TWO_CORES, 3 * fits)
    assert quantile_ms(crowd, 0.95, SETTLED_S) > 1.2 * quantile_ms(limit, 0.95, SETTLED_S)


def test_calls_are_admitted_within_ten_seconds_after_an_overload() -> None:
    """10 s after a crowd of impatient callers has left, new callers are admitted and answered as before the crowd."""
    simulation = Simulation(TWO_CORES)
    for index in range(2):
        simulation.call(index, 40.0)
    simulation.run(40.0)
    before_ms = quantile_ms(simulation, 0.5)
    draw = random.Random(1)
    for _ in range(100):
        simulation.call(draw.uniform(45.0, 75.0), 25.0)
    simulation.run(115.0)
    assert simulation.refused
    left_at = simulation.live[-1][0]
    assert simulation.live[-1][1] == 0
    refused = len(simulation.refused)
    for index in range(2):
        simulation.call(left_at + 10.0 + index, 40.0)
    simulation.run(left_at + 60.0)
    assert len(simulation.refused) == refused
    assert quantile_ms(simulation, 0.5, since=left_at + 10.0) <= 1.1 * before_ms + 20


def test_a_burst_over_several_hosts_is_not_admitted_whole() -> None:
    """If 200 callers come to three hosts within a second, the hosts together admit no more than their places."""
    simulation = Simulation(SLOTS)
    for index in range(30):
        simulation.call(index, 300.0)
    simulation.run(60.0)
    places = max(host.places.number for host in simulation.hosts)
    for index in range(200):
        simulation.call(60.0 + index / 200, 300.0)
    simulation.run(62.0)
    assert simulation.live[-1][1] <= places + len(simulation.hosts)


def test_a_slow_engine_stops_admissions_until_it_is_fast_again() -> None:
    """While every engine takes five times as long, new calls are refused. Afterwards, calls are admitted again."""
    simulation = Simulation(SLOTS)
    for index in range(40):
        simulation.call(index, 400.0 if index < 20 else 70.0, patient=True)
    simulation.run(80.0)
    simulation.slowdown = 5.0
    simulation.run(100.0)
    refused = len(simulation.refused)
    for index in range(20):
        simulation.call(100.0 + index / 4, 20.0)
    simulation.run(106.0)
    assert len(simulation.refused) - refused >= 18
    calls = simulation.live[-1][1]
    simulation.slowdown = 1.0
    simulation.run(170.0)
    assert simulation.live[-1][1] > calls
