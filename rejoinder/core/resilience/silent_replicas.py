"""Replicas that answer neither a request nor a ping: stopped processes, and machines that are cut off.

A slow replica is not silent: it answers a ping, which needs no engine, while it works on a request. So a caller who has
waited for an answer for the patience pings the replica. If the ping is not answered either, the request is made again
on another replica, and the silent one is avoided for a while.

The patience doubles each time, up to LONGEST_S, and is back at FIRST_S with the next answer. On a machine without free
CPU a replica may miss a ping although it works: it must not lose its requests again and again.

Nothing here has a clock: the methods take `now`, a monotonic time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.3
"""Seconds without an answer after which a replica is pinged."""
LONGEST_S = 4.0
"""Longest patience, in seconds."""
AVOID_S = 5.0
"""Seconds for which a silent replica is avoided."""
MAX_REPLICAS = 256
"""Maximum number of silent replicas that are remembered; the oldest are forgotten."""


@dataclass(slots=True)
class _Silence:
    times: int
    until: float


class SilentReplicas:
    """The silent replicas of one stage, as one caller sees them. Not thread-safe."""

    def __init__(self) -> None:
        self._silent: dict[str, _Silence] = {}

    def patience_s(self, replica: str) -> float:
        """Return the seconds without an answer after which a replica is pinged."""
        known = self._silent.get(replica)
        return min(LONGEST_S, FIRST_S * 2**known.times) if known else FIRST_S

    def avoid(self, now: float) -> frozenset[str]:
        """Return the replicas that should get no requests now."""
        return frozenset(name for name, silence in self._silent.items() if silence.until > now)

    def silent(self, replica: str, now: float) -> None:
        """Record that a replica has answered neither a request nor a ping."""
        known = self._silent.pop(replica, _Silence(0, now))
        # The power is bounded: a replica may be silent for days.
        self._silent[replica] = _Silence(min(known.times + 1, 10), now + AVOID_S)
        if len(self._silent) > MAX_REPLICAS:
            del self._silent[next(iter(self._silent))]

    def answered(self, replica: str) -> None:
        """Record an answer of a replica, which may get requests again."""
        self._silent.pop(replica, None)
