"""Tests of the circuit breaker: when it stops using a replica (opens its circuit) and uses it again (closes it)."""

from __future__ import annotations

import pytest

from rejoinder.core.resilience.circuit_breaker import LONGEST_PAUSE_S, MOST_PROBES, CircuitBreaker
from rejoinder.core.resilience.stream_report import StreamReport
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


def open_circuit(circuits: CircuitBreaker, now: float = 1.0) -> None:
    """Open the circuit of replica "a": a stream waits for it since time 0, and it does not answer the question."""
    assert circuits.suspects({"a": 0.0}, IDLE_TIMEOUT_S, now) == ["a"]
    assert circuits.reported("a", None, IDLE_TIMEOUT_S, now)


def test_silence_makes_a_suspect_that_is_asked_once() -> None:
    """A replica without a token within the timeout is asked for its report, and again only after another timeout.

    The question alone opens no circuit. No answer does.
    """
    circuits = breaker()
    assert circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 10.6) == []
    assert circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 10.8) == ["a"]
    assert circuits.avoid == frozenset()
    assert [circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, now) for now in (11.0, 11.6)] == [[], ["a"]]
    assert circuits.reported("a", None, IDLE_TIMEOUT_S, 11.9)
    assert circuits.avoid == {"a"}
    assert circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 13.0) == []


@pytest.mark.parametrize(
    ("report", "opens"),
    [
        (StreamReport(waiting=2, silent_s=9.0), False),
        (StreamReport(waiting=3, silent_s=0.1), False),
        (StreamReport(waiting=3, silent_s=0.9), True),
        (None, True),
    ],
)
def test_a_circuit_opens_by_evidence_of_several_streams(report: StreamReport | None, opens: bool) -> None:
    """A circuit opens if three streams of any hosts wait at the replica and none has got a token, or without an answer.

    One or two slow streams are no evidence, and neither are three while the replica sends tokens to others.
    """
    circuits = breaker()
    circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 10.8)
    assert circuits.reported("a", report, IDLE_TIMEOUT_S, 10.9) is opens
    assert circuits.avoid == ({"a"} if opens else frozenset())


def test_a_token_after_the_question_clears_the_suspect() -> None:
    """If a token comes between the question and its missing answer, the circuit stays closed."""
    circuits = breaker()
    circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 10.8)
    circuits.heard("a", 10.9)
    assert not circuits.reported("a", None, IDLE_TIMEOUT_S, 11.1)


def test_a_token_to_any_stream_keeps_the_circuit_closed() -> None:
    """A replica that sends tokens to any of its streams is not silent, even if another request waits in its queue."""
    circuits = breaker()
    circuits.heard("a", 19.9)
    assert circuits.suspects({"a": 10.0}, IDLE_TIMEOUT_S, 20.0) == []


def test_the_last_replica_stays_in_use() -> None:
    """If only one replica is in use, its circuit does not open, however long it sends no token."""
    circuits = breaker()
    assert circuits.suspects({"a": 0.0, "b": 0.0}, IDLE_TIMEOUT_S, 5.0) == ["a", "b"]
    assert circuits.reported("a", None, IDLE_TIMEOUT_S, 5.3)
    assert not circuits.reported("b", None, IDLE_TIMEOUT_S, 5.3)
    assert circuits.suspects({"b": 0.0}, IDLE_TIMEOUT_S, 50.0) == []


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
    open_circuit(circuits)
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
    open_circuit(circuits)
    now = 1.0
    for _ in range(MOST_PROBES):
        now += LONGEST_PAUSE_S + 1
        assert circuits.due(now) == ["a"]
        circuits.unanswered("a", now)
    assert circuits.known == {"b"}


def test_a_disabled_breaker_never_opens() -> None:
    """With enabled=False, a circuit never opens, neither for a silent replica nor after failures."""
    circuits = breaker(enabled=False)
    assert circuits.suspects({"a": 0.0}, IDLE_TIMEOUT_S, 9.0) == []
    assert not any(circuits.failed("a", float(at)) for at in range(9))
