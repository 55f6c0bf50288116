"""Limits of retries: a budget for each caller, and pauses that a backend asks for.

If a stage fails for all callers, the retries of all callers would add load when the stage can serve the fewest
requests. The budget therefore limits the retries of one caller: first a burst of BURST retries, which is enough to try
other replicas at once, and then one retry every `1 / REFILL_PER_S` seconds. A server that asks for a pause
(`Retry-After`) gets no request of any caller before the end of the pause.
"""

from __future__ import annotations

from dataclasses import dataclass

BURST = 6.0
"""Retries that a caller may send at once after a time without failures."""

REFILL_PER_S = 0.5
"""Retries per second that a caller earns."""

LONGEST_PAUSE_S = 30.0
"""Longest pause in seconds that a server can ask for. After it, one request checks whether the server works again."""


@dataclass(slots=True)
class _Tokens:
    count: float
    at: float


class RetryBudget:
    """Token buckets that limit the retries of each caller. Not thread-safe. Times are monotonic seconds."""

    def __init__(self, burst: float = BURST, refill_per_s: float = REFILL_PER_S) -> None:
        """Create full buckets of `burst` retries, which refill with `refill_per_s` retries per second."""
        self._burst = burst
        self._refill_per_s = refill_per_s
        self._buckets: dict[str, _Tokens] = {}

    def __len__(self) -> int:
        """Return the number of callers whose buckets are not known to be full."""
        return len(self._buckets)

    def try_spend(self, caller: str, now: float) -> bool:
        """Take one retry from the caller's bucket and return True, or return False if the bucket has none."""
        bucket = self._refilled(caller, now)
        if bucket.count < 1:
            return False
        bucket.count -= 1
        return True

    def reserve_s(self, caller: str, now: float) -> float:
        """Take one retry from the caller's bucket, and return the seconds to wait before it is sent.

        If the bucket is empty, the retry is taken from the tokens that the caller will earn next.
        """
        bucket = self._refilled(caller, now)
        bucket.count -= 1
        return max(0.0, -bucket.count / self._refill_per_s)

    def _refilled(self, caller: str, now: float) -> _Tokens:
        """Return the caller's bucket, refilled up to `now`. Also delete old buckets that must be full again."""
        full_s = self._burst / self._refill_per_s
        for name in [name for name, bucket in self._buckets.items() if now - bucket.at >= 2 * full_s]:
            del self._buckets[name]
        bucket = self._buckets.setdefault(caller, _Tokens(self._burst, now))
        bucket.count = min(self._burst, bucket.count + (now - bucket.at) * self._refill_per_s)
        bucket.at = now
        return bucket


class BackendPauses:
    """Pauses without requests that backends have asked for with `Retry-After`. Not thread-safe."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def refused(self, backend: int, wait_s: float, now: float) -> None:
        """Record that a backend asks for a pause of `wait_s` seconds from monotonic time `now`.

        If a longer pause of this backend is already recorded, it stays. A pause is at most LONGEST_PAUSE_S.

        Args:
            backend: Number of the backend.
            wait_s: Length of the pause in seconds.
            now: Monotonic time in seconds.
        """
        until = now + min(wait_s, LONGEST_PAUSE_S)
        self._until[backend] = max(until, self._until.get(backend, until))

    def wait_s(self, backend: int, now: float) -> float:
        """Return the seconds until a request may be sent to the backend; 0 if one may be sent now."""
        return max(0.0, self._until.get(backend, now) - now)
