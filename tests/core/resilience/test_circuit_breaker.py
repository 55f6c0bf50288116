"""Tests of the circuit breaker: when it stops using a replica (opens its circuit) and uses it again (closes it)."""

from __future__ import annotations

from rejoinder.core.resilience.circuit_breaker import LONGEST_PAUSE_S, MOST_PROBES, CircuitBreaker
from rejoinder.core.settings.settings import BreakerSettings

IDLE_TIMEOUT_S = 0.7


def breaker(**settings: float) -> CircuitBreaker:
    """Return a circuit breaker with two replicas, "a" and "b", that sent a token at time 0.

    `settings` are fields of `BreakerSettings`.
    """
    made = CircuitBreaker(BreakerSettings(**settings))
    made.heard("a", 0.0)
    made.heard("b", 0.0)
    return made


def test_silence_opens_the_circuit_once() -> None:
    """If a replica sends no token within the timeout, its circuit opens, and `silent` reports it only once."""
    circuits = breaker()
    assert circuits.silent({"a": 10.0}, IDLE_TIMEOUT_S, 10.6) == []
    assert circuits.silent({"a": 10.0}, IDLE_TIMEOUT_S, 10.8) == ["a"]
    assert circuits.avoid == {"a"}
    assert circuits.silent({"a": 10.0}, IDLE_TIMEOUT_S, 11.0) == []


def test_a_token_to_any_stream_keeps_the_circuit_closed() -> None:
    """A replica that sends tokens to any of its streams is not silent, even if another request waits in its queue."""
    circuits = breaker()
    circuits.heard("a", 19.9)
    assert circuits.silent({"a": 10.0}, IDLE_TIMEOUT_S, 20.0) == []


def test_the_last_replica_stays_in_use() -> None:
    """If only one replica is in use, its circuit does not open, however long it sends no token."""
    circuits = breaker()
    assert circuits.silent({"a": 0.0, "b": 0.0}, IDLE_TIMEOUT_S, 5.0) == ["a"]
    assert circuits.silent({"b": 0.0}, IDLE_TIMEOUT_S, 50.0) == []


def test_failures_in_a_row_open_the_circuit() -> None:
    """`failures` failed requests in a row open the circuit. A token between failures resets the count."""
    circuits = breaker(failures=3)
    assert [circuits.failed("a", 1.0), circuits.failed("a", 1.1)] == [False, False]
    circuits.heard("a", 1.2)
    assert [circuits.failed("a", at) for at in (2.0, 2.1, 2.2)] == [False, False, True]


def test_probes_follow_growing_pauses() -> None:
    """An unused replica gets a probe request after 2 s, and after a failed probe the next one after 4 s.

    One probe is due at a time. A token closes the circuit.
    """
    circuits = breaker()
    circuits.silent({"a": 0.0}, IDLE_TIMEOUT_S, 1.0)
    assert circuits.due(2.9) == []
    assert circuits.due(3.1) == ["a"]
    assert circuits.due(3.2) == []
    circuits.unanswered("a", 4.0)
    assert circuits.due(7.9) == []
    assert circuits.due(8.1) == ["a"]
    assert circuits.heard("a", 8.2)
    assert circuits.avoid == frozenset()
    assert not circuits.heard("a", 8.3)


def test_a_replica_that_fails_all_probes_is_removed() -> None:
    """A replica is forgotten after MOST_PROBES failed probes. The pause between probes is at most LONGEST_PAUSE_S."""
    circuits = breaker()
    circuits.silent({"a": 0.0}, IDLE_TIMEOUT_S, 1.0)
    now = 1.0
    for _ in range(MOST_PROBES):
        now += LONGEST_PAUSE_S + 1
        assert circuits.due(now) == ["a"]
        circuits.unanswered("a", now)
    assert circuits.known == {"b"}


def test_a_disabled_breaker_never_opens() -> None:
    """With enabled=False, a circuit never opens, neither for a silent replica nor after failures."""
    circuits = breaker(enabled=False)
    assert circuits.silent({"a": 0.0}, IDLE_TIMEOUT_S, 9.0) == []
    assert not any(circuits.failed("a", float(at)) for at in range(9))
