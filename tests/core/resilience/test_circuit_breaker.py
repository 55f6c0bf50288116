"""The circuit of each replica: what opens it, and what closes it."""

from __future__ import annotations

from rejoinder.core.resilience.circuit_breaker import LONGEST_PAUSE_S, MOST_PROBES, CircuitBreaker
from rejoinder.core.settings.settings import BreakerSettings

PATIENCE_S = 0.7


def breaker(**settings: float) -> CircuitBreaker:
    """Two replicas that were heard at 0."""
    made = CircuitBreaker(BreakerSettings(**settings))
    made.heard("a", 0.0)
    made.heard("b", 0.0)
    return made


def test_silence_opens_the_circuit_once() -> None:
    """Not before its time, and not again while it is open."""
    known = breaker()
    assert known.silent({"a": 10.0}, PATIENCE_S, 10.6) == []
    assert known.silent({"a": 10.0}, PATIENCE_S, 10.8) == ["a"]
    assert known.avoid == {"a"}
    assert known.silent({"a": 10.0}, PATIENCE_S, 11.0) == []


def test_a_token_to_anybody_is_a_sign_of_life() -> None:
    """A stream that waits long on a replica that others hear has met a queue."""
    known = breaker()
    known.heard("a", 19.9)
    assert known.silent({"a": 10.0}, PATIENCE_S, 20.0) == []


def test_the_last_replica_is_never_taken_out() -> None:
    """Somebody has to answer, however late."""
    known = breaker()
    assert known.silent({"a": 0.0, "b": 0.0}, PATIENCE_S, 5.0) == ["a"]
    assert known.silent({"b": 0.0}, PATIENCE_S, 50.0) == []


def test_failures_in_a_row_open_it_and_a_token_starts_the_count_anew() -> None:
    """The third of three; one answered in between forgives."""
    known = breaker(failures=3)
    assert [known.failed("a", 1.0), known.failed("a", 1.1)] == [False, False]
    known.heard("a", 1.2)
    assert [known.failed("a", at) for at in (2.0, 2.1, 2.2)] == [False, False, True]


def test_probes_come_after_a_growing_pause_and_an_answer_closes() -> None:
    """2 s, then 4, then 8: each probe once; then the replica is back."""
    known = breaker()
    known.silent({"a": 0.0}, PATIENCE_S, 1.0)
    assert known.due(2.9) == []
    assert known.due(3.1) == ["a"]
    assert known.due(3.2) == []
    known.unanswered("a", 4.0)
    assert known.due(7.9) == []
    assert known.due(8.1) == ["a"]
    assert known.heard("a", 8.2)
    assert known.avoid == frozenset()
    assert not known.heard("a", 8.3)


def test_a_replica_that_never_answers_again_is_forgotten() -> None:
    """Serve replaces it under another name; until then the pauses are bounded."""
    known = breaker()
    known.silent({"a": 0.0}, PATIENCE_S, 1.0)
    now = 1.0
    for _ in range(MOST_PROBES):
        now += LONGEST_PAUSE_S + 1
        assert known.due(now) == ["a"]
        known.unanswered("a", now)
    assert known.known == {"b"}


def test_switched_off_nothing_opens() -> None:
    """The switch of the ablation."""
    known = breaker(enabled=False)
    assert known.silent({"a": 0.0}, PATIENCE_S, 9.0) == []
    assert not any(known.failed("a", float(at)) for at in range(9))
