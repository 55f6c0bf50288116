"""Tests of the simulation of several HAProxies in front of one pool of hosts."""

from __future__ import annotations

import random

import pytest

from benchmarks.scaling.entry_study import (
    BALANCERS,
    HEADER,
    Balancer,
    EntryPlan,
    EntrySimulation,
    LeastConnections,
    RoundRobin,
    row,
)
from cluster.environment import REDISPATCH
from rejoinder.core.resilience.redispatch import RETRIES

BALANCE = REDISPATCH["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"]
CHOSEN = int(REDISPATCH[RETRIES])


@pytest.mark.parametrize("reload_s", [0.0, 60.0])
def test_three_entries_refuse_as_few_callers_as_one_pool(reload_s: float) -> None:
    """At 90% load, the advised settings refuse at most 0.5 points more callers than one pool of the same places.

    This also holds if HAProxy is reloaded every minute and forgets its connections. Without retries, it does not.
    """
    plans = [EntryPlan(6, 10, BALANCE, retries, reload_s=reload_s) for retries in (CHOSEN, 0)]
    redispatched, plain = (EntrySimulation(plan).run(20_000) for plan in plans)
    assert redispatched.pool_refused == plain.pool_refused > 0
    assert abs(redispatched.excess_points) < 0.5
    assert plain.excess_points > 2


def test_one_entry_to_one_host_is_one_pool() -> None:
    """With one host and no retry, exactly the callers are refused that the pool refuses, about as Erlang B says."""
    plan = EntryPlan(1, 20, "leastconn", 0, entries=1)
    done = EntrySimulation(plan).run(50_000)
    assert done.refused == done.pool_refused
    assert done.refused / done.callers == pytest.approx(plan.erlang_b, rel=0.1)
    assert done.counted == done.attempts == done.callers


def test_retries_hardly_count_as_further_arrivals() -> None:
    """The hosts count a caller of whom several refuse a handshake as less than 1.15 arrivals on average."""
    done = EntrySimulation(EntryPlan(6, 10, BALANCE, CHOSEN)).run(20_000)
    assert done.attempts > 1.5 * done.callers
    assert 1.0 <= done.counted / done.callers < 1.15


def test_leastconn_alternates_between_two_hosts() -> None:
    """HAProxy's `leastconn` avoids only the last host, so its retries never reach the third one. Round robin does."""
    least = LeastConnections(3, random.Random(1))
    for host, connections in enumerate((1, 2, 3)):
        least.changed(host, connections)
    turns = RoundRobin(3, random.Random(1))
    assert (_reached(least), _reached(turns)) == ({0, 1}, {0, 1, 2})


def _reached(balancer: Balancer) -> set[int]:
    """Return the hosts that six attempts of one call reach."""
    hosts: list[int | None] = [None]
    for _ in range(6):
        hosts.append(balancer.choose(hosts[-1]))
    return {host for host in hosts if host is not None}


@pytest.mark.parametrize("balance", BALANCERS)
def test_a_retry_avoids_the_host_that_refused(balance: str) -> None:
    """No algorithm chooses the avoided host, unless it is the only one."""
    balancer = BALANCERS[balance](2, random.Random(1))
    assert {balancer.choose(1) for _ in range(20)} == {0}
    assert BALANCERS[balance](1, random.Random(1)).choose(0) == 0


def test_a_row_is_a_line_of_the_table() -> None:
    """A row has as many cells as the header."""
    assert row(EntryPlan(2, 2, "random(2)", 1), 100, 1).count("|") == HEADER[0].count("|")
