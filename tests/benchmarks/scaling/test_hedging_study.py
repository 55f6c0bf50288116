"""Tests of hedging and circuits on many hosts: short versions of the simulation in `docs/results/scale.md`."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scaling.hedging_study import HEADER, HedgingScenario, row, simulate

MANY = HedgingScenario(hosts=40, replicas=20, rate=100.0, requests=4000)


def test_hedges_on_many_hosts_keep_their_budget_and_open_no_circuit() -> None:
    """With 40 hosts, 20 replicas and 2% stalls, the further requests are at most 5%, and no circuit opens.

    Hedging lowers the 99th percentile of the time to the first token by at least 70%. Before, a host took the replica
    of its single stalled request for silent.
    """
    on, off = simulate(MANY), simulate(MANY, hedging=False)
    assert on.counts["breaker opened"] == off.counts["breaker opened"] == 0
    assert 0.01 < on.extra <= 0.05
    assert off.extra < 0.002  # stalls longer than the timeout of a call are repeated
    assert on.quantile(0.99) < 0.3 * off.quantile(0.99)
    assert on.quantile(0.5) < 1.05 * off.quantile(0.5)
    assert on.unanswered == 0


def test_a_hung_replica_is_found_by_many_hosts() -> None:
    """If the engine of one replica hangs, hosts that use it open its circuit, although each has about one stream there.

    No request stays unanswered.
    """
    outcome = simulate(replace(MANY, hung=1))
    assert outcome.counts["breaker opened"] >= 3
    assert outcome.unanswered == 0
    assert outcome.quantile(0.99) < 3.0


def test_a_row_is_a_line_of_the_table() -> None:
    """A row has as many cells as the header, and the number of requests that were sent."""
    printed = row(replace(MANY, requests=300))
    assert printed.count("|") == HEADER[0].count("|")
    assert printed.split("|")[3] == " 300 "
