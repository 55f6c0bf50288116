"""Token bucket: a rate limit that permits bursts."""

from __future__ import annotations


class TokenBucket:
    """Rate limit of one source: `rate` tokens a second, and up to `burst` tokens at once. Not thread-safe.

    The bucket begins full. Its state is the number of tokens that were missing when it was last used. So no timer
    refills it, and whole tokens that are taken at one time are counted exactly, however large the time is.
    """

    __slots__ = ("_at", "_burst", "_missing", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        """Create a full bucket.

        Args:
            rate: Tokens that the bucket gains in a second, above 0.
            burst: Maximum number of tokens in the bucket.
        """
        self._rate = rate
        self._burst = burst
        self._missing = 0.0
        self._at = 0.0

    def take(self, now: float, tokens: float = 1.0) -> bool:
        """Remove tokens and return True. Return False, and remove none, if the bucket has fewer.

        Args:
            now: Time in seconds. It may not decrease from call to call.
            tokens: Number of tokens.
        """
        missing = self._missing_at(now) + tokens
        if missing > self._burst:
            return False
        self._missing, self._at = missing, now
        return True

    def spend(self, now: float, tokens: float) -> None:
        """Remove tokens even if the bucket has fewer. It then owes the rest, and `wait_s` returns when it is paid.

        Args:
            now: Time in seconds. It may not decrease from call to call.
            tokens: Number of tokens.
        """
        self._missing, self._at = self._missing_at(now) + tokens, now

    def wait_s(self, now: float, tokens: float = 0.0) -> float:
        """Return the seconds after `now` until the bucket has `tokens` tokens; 0 if it has them now."""
        return max(0.0, (self._missing_at(now) + tokens - self._burst) / self._rate)

    def _missing_at(self, now: float) -> float:
        """Return how many tokens the bucket lacks at `now`."""
        missing = self._missing - (now - self._at) * self._rate
        return missing if missing > 0.0 else 0.0
