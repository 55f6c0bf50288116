"""Tests of silent replicas: how long they are waited for, and when they get requests again."""

from __future__ import annotations

from rejoinder.core.resilience.silent_replicas import AVOID_S, FIRST_S, LONGEST_S, MAX_REPLICAS, SilentReplicas


def test_the_patience_doubles_until_the_next_answer() -> None:
    """Each silence doubles the patience with a replica, up to LONGEST_S. An answer resets it."""
    replicas = SilentReplicas()
    patience = []
    for number in range(6):
        patience.append(replicas.patience_s("a"))
        replicas.silent("a", float(number))
    assert patience == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S, LONGEST_S, LONGEST_S]
    assert replicas.patience_s("b") == FIRST_S
    replicas.answered("a")
    assert replicas.patience_s("a") == FIRST_S


def test_a_silent_replica_is_avoided_for_a_while() -> None:
    """A silent replica is avoided for AVOID_S seconds, or until it answers."""
    replicas = SilentReplicas()
    replicas.silent("a", 0.0)
    replicas.silent("b", 1.0)
    assert replicas.avoid(AVOID_S - 0.1) == {"a", "b"}
    assert replicas.avoid(AVOID_S + 0.1) == {"b"}
    replicas.answered("b")
    assert replicas.avoid(AVOID_S + 0.1) == frozenset()


def test_the_memory_is_bounded() -> None:
    """Only the newest MAX_REPLICAS silent replicas are remembered."""
    replicas = SilentReplicas()
    for number in range(MAX_REPLICAS + 10):
        replicas.silent(f"r{number}", 0.0)
    assert len(replicas.avoid(0.0)) == MAX_REPLICAS
    assert f"r{MAX_REPLICAS + 9}" in replicas.avoid(0.0)
