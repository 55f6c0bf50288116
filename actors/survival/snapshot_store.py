"""The port of the session journal: a store outside the host that keeps the newest snapshot of each conversation."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rejoinder.core.settings.settings import JournalSettings
from rejoinder.core.survival.journal_table import JournalTable, SnapshotClaim, SnapshotPut


class SnapshotStore(Protocol):
    """Interface of a store for snapshots. All methods may be called at the same time."""

    async def run(self, refresh: Callable[[], None]) -> None:
        """Run the store's own tasks until cancelled.

        `refresh` is called if the store may have lost snapshots. All sessions of the host are then put again.
        """
        ...

    async def put(self, puts: Sequence[SnapshotPut]) -> dict[str, int]:
        """Store snapshots, and return the newest generation of each session, by the session's key.

        If it is greater than that of the snapshot, another connection has taken the session over.

        Raises:
            BackendError: Some snapshots may not be stored. The host puts newer ones later.
        """
        ...

    async def claim(self, session: str) -> SnapshotClaim | None:
        """Take a session over and return its newest snapshot; None if no journal has it.

        Raises:
            BackendError: No journal answers.
        """
        ...

    async def forget(self, session: str, generation: int) -> None:
        """Drop the snapshot of a session that has ended, unless it was taken over since `generation`."""
        ...

    async def taken(self) -> dict[str, int]:
        """Wait until other hosts take sessions of this host over, and return the sessions' keys and new generations.

        Raises:
            BackendError: The store does not answer.
        """
        ...

    async def share_keys(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Store signing keys of resume tokens, and return all that the store has."""
        ...


class LocalSnapshots:
    """Store in this process: for a server without Ray. A conversation survives its connection, not its process."""

    def __init__(self, settings: JournalSettings, table: JournalTable | None = None, *, holder: str = "") -> None:
        """Create a store.

        Args:
            settings: Limits in bytes and seconds.
            table: Table that several stores share, as the hosts of a test do; None for an own one.
            holder: Name of the host that uses the store.
        """
        self.table = JournalTable(settings.node_bytes, settings.keep_s) if table is None else table
        self._holder = holder

    async def run(self, refresh: Callable[[], None]) -> None:
        """Wait forever, because the store needs no task (`SnapshotStore`)."""
        await asyncio.Event().wait()

    async def put(self, puts: Sequence[SnapshotPut]) -> dict[str, int]:
        """Store snapshots and return the newest generation of each session (`SnapshotStore`)."""
        now = time.monotonic()
        return {put.session: self.table.put(put, self._holder, now) for put in puts}

    async def claim(self, session: str) -> SnapshotClaim | None:
        """Take a session over and return its snapshot; None if there is none (`SnapshotStore`)."""
        return self.table.claim(session, secrets.randbits(32), self._holder, time.monotonic())

    async def forget(self, session: str, generation: int) -> None:
        """Drop the snapshot of a session that has ended (`SnapshotStore`)."""
        self.table.forget(session, generation)

    async def taken(self) -> dict[str, int]:
        """Wait forever: only `put` reports that a session was taken over (`SnapshotStore`)."""
        await asyncio.Event().wait()
        return {}

    async def share_keys(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keep signing keys and return all (`SnapshotStore`)."""
        return self.table.share_keys(keys)
