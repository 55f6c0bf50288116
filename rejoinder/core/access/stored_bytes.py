"""Bytes that the clients of one host make it keep: the sum, and its maximum."""

from __future__ import annotations


class StoredBytes:
    """Bytes that all conversations of a host keep: their items, and events that wait to be sent. Not thread-safe."""

    __slots__ = ("_limit", "used")

    def __init__(self, limit: int) -> None:
        """Start with nothing stored. `limit` is the maximum of `used`, in bytes."""
        self._limit = limit
        self.used = 0

    def room(self, size: int) -> bool:
        """Return True if `size` further bytes are permitted."""
        return self.used + size <= self._limit

    def take(self, size: int) -> bool:
        """Count `size` further bytes and return True. Return False, and count nothing, if the host has no room."""
        if not self.room(size):
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Count `size` bytes less."""
        self.used -= size
