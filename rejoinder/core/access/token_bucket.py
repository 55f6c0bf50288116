"""Token bucket: a rate limit that permits bursts."""

from __future__ import annotations


class TokenBucket:
    """Rate limit of one source: `rate` tokens a second, and up to `burst` tokens at once. Not thread-safe.

    The bucket begins full. Its state is the time at which it will be full again: the bucket lacks as many tokens as it
    gains until then. So each operation is one addition and one comparison, and no timer refills the bucket.
    """

    __slots__ = ("_burst_s", "_full_at", "_token_s")

    def __init__(self, rate: float, burst: float) -> None:
        """Create a full bucket.

        Args:
            rate: Tokens that the bucket gains in a second, above 0.
            burst: Maximum number of tokens in the bucket.
        """
        self._token_s = 1.0 / rate
        self._burst_s = burst / rate
        self._full_at = float("-inf")

    def take(self, now: float, tokens: float = 1.0) -> bool:
        """Remove tokens and return True. Return False, and remove none, if the bucket has fewer.

        Args:
            now: Time in seconds. It may not decrease from call to call.
            tokens: Number of tokens.
        """
        full_at = max(self._full_at, now) + tokens * self._token_s
        if full_at - now > self._burst_s:
            return False
        self._full_at = full_at
        return True

    def spend(self, now: float, tokens: float) -> None:
        """Remove tokens even if the bucket has fewer. It then owes the rest, and `wait_s` returns when it is paid.

        Args:
            now: Time in seconds. It may not decrease from call to call.
            tokens: Number of tokens.
        """
        self._full_at = max(self._full_at, now) + tokens * self._token_s

    def wait_s(self, now: float, tokens: float = 0.0) -> float:
        """Return the seconds after `now` until the bucket has `tokens` tokens; 0 if it has them now."""
        return max(0.0, self._full_at + tokens * self._token_s - now - self._burst_s)
