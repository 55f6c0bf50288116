"""Which replicas are taken out, and when they are tried again: a circuit breaker for each.

    CLOSED -- silent, or failures in a row --> OPEN -- pause over --> PROBING -- answered --> CLOSED
                                                ^                        |
                                                +---- twice the pause ---+ not answered

*Silent* is more than slow. A stopped process, a hung engine and a lost network path have in common that nobody hears
anything; a replica that is merely overloaded still gives tokens to somebody. So a replica is silent when streams wait
for it and none of all conversations of this host got a token from it for `idle_timeout_s`. What it owes is asked for
elsewhere at once, whatever the hedging budget says: a dead replica costs no second load.

A probe is a request of our own, never a caller's. A replica that fails MOST_PROBES of them is gone (Serve has replaced
it under another name) and is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.settings.settings import BreakerSettings

MOST_PROBES = 6
LONGEST_PAUSE_S = 30.0


class CircuitState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(slots=True)
class _Replica:
    circuit: CircuitState = CircuitState.CLOSED
    heard_at: float = 0.0
    failures: int = 0
    probes: int = 0
    retry_at: float = 0.0


class CircuitBreaker:
    """All replicas of one stage, as one host sees them; not thread-safe."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._replicas: dict[str, _Replica] = {}

    @property
    def known(self) -> frozenset[str]:
        """Every replica that was ever heard or missed, and is not gone."""
        return frozenset(self._replicas)

    @property
    def avoid(self) -> frozenset[str]:
        """Those that get no caller's request."""
        return frozenset(name for name, replica in self._replicas.items() if replica.circuit is not CircuitState.CLOSED)

    def heard(self, replica: str, now: float) -> bool:
        """A token came; True if that closed its circuit."""
        found = self._replicas.setdefault(replica, _Replica())
        found.heard_at, found.failures = now, 0
        closed = found.circuit is not CircuitState.CLOSED
        found.circuit, found.probes = CircuitState.CLOSED, 0
        return closed

    def failed(self, replica: str, now: float) -> bool:
        """A request broke; True if that opened its circuit."""
        found = self._replicas.setdefault(replica, _Replica())
        found.failures += 1
        enough = self._settings.enabled and found.failures >= self._settings.failures
        if found.circuit is not CircuitState.CLOSED or not enough:
            return False
        self._open(found, now)
        return True

    def silent(self, waiting: Mapping[str, float], idle_timeout_s: float, now: float) -> list[str]:
        """Those of the replicas that streams wait for that say nothing to anybody; their circuits open, unless no other
        replica is known to be well: then waiting is all that is left.

        `waiting`: since when the longest of a replica's streams has waited.
        """
        if not self._settings.enabled:
            return []
        found = []
        for name, since in waiting.items():
            replica = self._replicas.setdefault(name, _Replica())
            missed = replica.circuit is CircuitState.CLOSED and now - max(since, replica.heard_at) > idle_timeout_s
            if missed and self.known - self.avoid - {name}:
                self._open(replica, now)
                found.append(name)
        return found

    def due(self, now: float) -> list[str]:
        """Those that are to be probed now."""
        found = [
            name
            for name, replica in self._replicas.items()
            if replica.circuit is CircuitState.OPEN and now >= replica.retry_at
        ]
        for name in found:
            self._replicas[name].circuit = CircuitState.PROBING
        return found

    def unanswered(self, replica: str, now: float) -> None:
        """A probe got no answer."""
        found = self._replicas.get(replica)
        if found is None or found.circuit is not CircuitState.PROBING:
            return
        found.probes += 1
        if found.probes >= MOST_PROBES:
            del self._replicas[replica]
            return
        self._open(found, now)

    def _open(self, replica: _Replica, now: float) -> None:
        replica.circuit = CircuitState.OPEN
        replica.retry_at = now + min(self._settings.pause_s * 2**replica.probes, LONGEST_PAUSE_S)
