"""Circuit breakers: which replicas of a stage are not used, and when they are tried again.

    CLOSED -- silent, or failures in a row --> OPEN -- pause over --> PROBING -- answered --> CLOSED
                                                ^                        |
                                                +---- twice the pause ---+ not answered

A silent replica is different from a slow one. An overloaded replica still sends tokens to some streams. A stopped
process, a hung engine or a lost network path sends none. A host sees only its own streams, on a large cluster about one
per replica. So a replica without a token for this host for `idle_timeout_s` is only a suspect, and the host asks it for
its own report. The replica is silent if it does not answer, or if it reports that several streams of any hosts wait and
none has got a token for this time. A single slow request opens no circuit.

Requests of a silent replica are repeated on another replica at once, and the hedging budget is charged for each.

A probe is a test request of the host, not a request of a caller. A replica that fails MOST_PROBES probes is removed
from the breaker, because Serve has replaced it by a replica with another name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.resilience.stream_report import StreamReport
from rejoinder.core.settings.settings import BreakerSettings

MOST_PROBES = 6
"""Number of failed probes after which a replica is removed."""

LONGEST_PAUSE_S = 30.0
"""Longest pause between two probes of a replica, in seconds."""


class CircuitState(Enum):
    """State of a replica's circuit.

    CLOSED: the replica is in use. OPEN: it gets no requests until its pause is over. PROBING: a probe is under way.
    """

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(slots=True)
class _Replica:
    """State of one replica's circuit breaker. Times are monotonic seconds.

    Attributes:
        circuit: The state of its circuit.
        token_at: Time at which the replica last sent a token.
        failures: Number of requests that failed since the last token.
        probes: Number of probes that failed since the circuit opened.
        retry_at: Time at which the replica is probed next, while the circuit is OPEN.
        asked_at: Time at which the replica was last asked for its report.
    """

    circuit: CircuitState = CircuitState.CLOSED
    token_at: float = 0.0
    failures: int = 0
    probes: int = 0
    retry_at: float = 0.0
    asked_at: float = -math.inf


class CircuitBreaker:
    """Circuit breakers of all replicas of one stage, as one host sees them. Not thread-safe.

    Times are monotonic seconds.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._replicas: dict[str, _Replica] = {}

    @property
    def known(self) -> frozenset[str]:
        """Names of all replicas that have been used and have not been removed."""
        return frozenset(self._replicas)

    @property
    def avoid(self) -> frozenset[str]:
        """Names of the replicas that get no requests of callers, because their circuits are not CLOSED."""
        return frozenset(name for name, replica in self._replicas.items() if replica.circuit is not CircuitState.CLOSED)

    def heard(self, replica: str, now: float) -> bool:
        """Record a token, also of a probe, and close the replica's circuit. Return True if it was not closed."""
        state = self._replicas.setdefault(replica, _Replica())
        state.token_at, state.failures = now, 0
        closes = state.circuit is not CircuitState.CLOSED
        state.circuit, state.probes = CircuitState.CLOSED, 0
        return closes

    def failed(self, replica: str, now: float) -> bool:
        """Record a failed request. Return True if this failure opened the replica's circuit.

        The circuit opens after `failures` (a setting) failed requests without a token in between.
        """
        state = self._replicas.setdefault(replica, _Replica())
        state.failures += 1
        too_many = self._settings.enabled and state.failures >= self._settings.failures
        if state.circuit is not CircuitState.CLOSED or not too_many:
            return False
        self._open(state, now)
        return True

    def suspects(self, waiting: Mapping[str, float], idle_timeout_s: float, now: float) -> list[str]:
        """Return the names of the replicas to ask for their reports. Pass each report to `reported`.

        A replica is a suspect if a stream of this host has waited for it for `idle_timeout_s`, and it has sent no token
        to this host in this time. It is asked at most once in `idle_timeout_s`. The last replica with a closed circuit
        is never a suspect, because a late answer is better than none.

        Args:
            waiting: By name of the replica, the monotonic time at which its longest waiting stream started to wait.
            idle_timeout_s: Seconds without a token after which a replica with a waiting stream is a suspect.
            now: Monotonic time in seconds.
        """
        if not self._settings.enabled:
            return []
        suspects = []
        for name, waiting_since in waiting.items():
            replica = self._replicas.setdefault(name, _Replica())
            quiet_s = now - max(waiting_since, replica.token_at, replica.asked_at)
            if replica.circuit is CircuitState.CLOSED and quiet_s > idle_timeout_s and self._others(name):
                replica.asked_at = now
                suspects.append(name)
        return suspects

    def reported(self, replica: str, report: StreamReport | None, idle_timeout_s: float, now: float) -> bool:
        """Record a suspect's report, and return True if it opened the replica's circuit.

        The circuit opens if there is no report, or if `silent_streams` (a setting) streams wait at the replica and none
        has got a token for `idle_timeout_s`. It stays closed if a token has come since the question.

        Args:
            replica: Name of the replica.
            report: The report; None if the replica did not answer.
            idle_timeout_s: The time that the question named, in seconds.
            now: Monotonic time in seconds.
        """
        state = self._replicas.get(replica)
        if state is None or state.circuit is not CircuitState.CLOSED or state.token_at > state.asked_at:
            return False
        if report and (report.waiting < self._settings.silent_streams or report.silent_s < idle_timeout_s):
            return False
        if not self._others(replica):
            return False
        self._open(state, now)
        return True

    def due(self, now: float) -> list[str]:
        """Return the names of the replicas to probe now: their circuits are OPEN and their pauses are over.

        Their circuits become PROBING. Report the result of each probe with `heard` or `unanswered`.
        """
        due = [
            name
            for name, replica in self._replicas.items()
            if replica.circuit is CircuitState.OPEN and now >= replica.retry_at
        ]
        for name in due:
            self._replicas[name].circuit = CircuitState.PROBING
        return due

    def unanswered(self, replica: str, now: float) -> None:
        """Record a failed probe of a replica. The next pause before a probe is twice as long, up to LONGEST_PAUSE_S.

        After MOST_PROBES failed probes, the replica is removed.
        """
        state = self._replicas.get(replica)
        if state is None or state.circuit is not CircuitState.PROBING:
            return
        state.probes += 1
        if state.probes >= MOST_PROBES:
            del self._replicas[replica]
            return
        self._open(state, now)

    def _others(self, replica: str) -> bool:
        """Return True if another replica has a closed circuit."""
        return bool(self.known - self.avoid - {replica})

    def _open(self, replica: _Replica, now: float) -> None:
        replica.circuit = CircuitState.OPEN
        replica.retry_at = now + min(self._settings.pause_s * 2**replica.probes, LONGEST_PAUSE_S)
