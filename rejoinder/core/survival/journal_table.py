"""Table of one journal: the newest snapshot of each session, bounded in bytes and time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from rejoinder.core.survival.snapshot import next_generation

ENTRY_BYTES = 300
"""Bytes that an entry takes in memory besides its snapshot."""
MAX_KEYS = 16
"""Maximum number of signing keys that a journal keeps."""


@dataclass(frozen=True, slots=True)
class SnapshotPut:
    """Snapshot on its way to a journal.

    Attributes:
        session: Key of the session.
        generation: The snapshot's generation (`next_generation`).
        sequence: Number of the snapshot within its generation.
        data: The encoded snapshot.
    """

    session: str
    generation: int
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotClaim:
    """Answer of a journal to a host that takes a session over.

    Attributes:
        generation: New generation, with which the host goes on.
        order: Generation and sequence of the stored snapshot. The greatest of several journals is the newest.
        data: The encoded snapshot.
        holder: Name of the host that had the session until now.
    """

    generation: int
    order: tuple[int, int]
    data: bytes
    holder: str


@dataclass(slots=True)
class _Entry:
    put: SnapshotPut
    generation: int
    holder: str
    at: float

    @property
    def size(self) -> int:
        return ENTRY_BYTES + len(self.put.data)


class JournalTable:
    """The newest snapshot of each session. Not thread-safe. Times are seconds of any clock that does not go back.

    Attributes:
        evicted: Number of snapshots that were dropped for lack of room.
        size: Bytes of all entries.
    """

    def __init__(self, max_bytes: int, keep_s: float) -> None:
        """Create an empty table.

        Args:
            max_bytes: Maximum size of all entries. If it is exceeded, the entries that were renewed least recently are
                dropped.
            keep_s: Seconds after which an entry that was not renewed is dropped.
        """
        self.evicted = 0
        self.size = 0
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._keys: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, put: SnapshotPut, holder: str, now: float) -> int:
        """Store a snapshot, unless it is older than the stored one. Return the newest generation of the session.

        A generation that is greater than the snapshot's says that another connection has taken the session over.

        Args:
            put: The snapshot.
            holder: Name of the host that runs the session.
            now: The time.
        """
        self.expire(now)
        known = self._entries.get(put.session)
        if known:
            if put.generation < known.generation:
                return known.generation
            if (put.generation, put.sequence) < (known.put.generation, known.put.sequence):
                return known.generation
            self._drop(put.session)
        entry = _Entry(put, put.generation, holder, now)
        self._entries[put.session] = entry
        self.size += entry.size
        while self.size > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self.evicted += 1
        return put.generation

    def claim(self, session: str, nonce: int, holder: str, now: float) -> SnapshotClaim | None:
        """Give a session to another host, and return its snapshot; None if there is none.

        The snapshot stays, because the new host may die before it has stored one of its own.

        Args:
            session: Key of the session.
            nonce: Random number of the host for this claim.
            holder: Name of the host that takes the session over.
            now: The time.
        """
        self.expire(now)
        entry = self._entries.get(session)
        if entry is None:
            return None
        before, entry.holder = entry.holder, holder
        entry.generation = next_generation(entry.generation, nonce)
        entry.at = now
        self._entries.move_to_end(session)
        return SnapshotClaim(entry.generation, (entry.put.generation, entry.put.sequence), entry.put.data, before)

    def forget(self, session: str, generation: int) -> None:
        """Drop a session that has ended, unless another host has taken it over since `generation`."""
        entry = self._entries.get(session)
        if entry and entry.generation <= generation:
            self._drop(session)

    def share_keys(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Keep signing keys of resume tokens, and return all that were kept so far. The oldest are dropped first."""
        for key in keys:
            self._keys.setdefault(key)
        while len(self._keys) > MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        return tuple(self._keys)

    def expire(self, now: float) -> None:
        """Drop the entries that were not renewed for `keep_s` seconds."""
        while self._entries:
            session, oldest = next(iter(self._entries.items()))
            if now - oldest.at <= self._keep_s:
                return
            self._drop(session)

    def _drop(self, session: str) -> None:
        self.size -= self._entries.pop(session).size
