"""The journal of one node: a detached Ray actor that keeps snapshots of conversations for the hosts of an application.

It outlives the hosts and every deployment of the application, and dies with its node. It ends by itself if no host has
called it for long.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

import ray

from rejoinder.core.settings.settings import JournalSettings
from rejoinder.core.survival.journal_table import JournalTable, SnapshotClaim, SnapshotPut

UNUSED_S = 600.0
"""Seconds without a call of any host after which a journal ends."""
CHECK_S = 5.0
"""Seconds between two checks for expired snapshots."""


class JournalActor:
    """Journal of one node. `deployments.survival.ray_journals` starts it as an actor and calls it."""

    def __init__(self, settings: JournalSettings) -> None:
        self._table = JournalTable(settings.node_bytes, settings.keep_s)
        self._unused_s = max(UNUSED_S, 2 * settings.keep_s)
        self._called_at = time.monotonic()
        self._reported = 0
        # Sessions of each host that were taken over, with their new generations, until the host asks.
        self._taken: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._waiting: dict[str, asyncio.Event] = {}
        self._checking: asyncio.Task[None] | None = None

    def put(self, puts: Sequence[SnapshotPut], holder: str) -> dict[str, int]:
        """Store snapshots of the host `holder`, and return the newest generation of each session."""
        now = self._now()
        return {put.session: self._table.put(put, holder, now) for put in puts}

    def claim(self, session: str, nonce: int, holder: str) -> SnapshotClaim | None:
        """Give a session to the host `holder`, and tell the host that had it. Return its snapshot; None for none."""
        claim = self._table.claim(session, nonce, holder, self._now())
        if claim and claim.holder != holder:
            self._taken[claim.holder][session] = claim.generation
            if waiting := self._waiting.get(claim.holder):
                waiting.set()
        return claim

    def forget(self, session: str, generation: int) -> None:
        """Drop a session that has ended, unless it was taken over since `generation`."""
        self._table.forget(session, generation)

    def share_keys(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keep signing keys of resume tokens and return all."""
        return self._table.share_keys(keys)

    async def taken(self, holder: str, timeout_s: float) -> tuple[dict[str, int], int]:
        """Wait until sessions of the host `holder` are taken over, at most `timeout_s` seconds.

        Return their new generations by session, and how many snapshots were dropped for lack of room and not reported
        to any host yet.
        """
        self._now()
        self._checking = self._checking or asyncio.create_task(self._check())
        event = self._waiting[holder] = asyncio.Event()
        if not self._taken.get(holder):
            try:
                async with asyncio.timeout(timeout_s):
                    await event.wait()
            except TimeoutError:
                pass
        if self._waiting.get(holder) is event:
            del self._waiting[holder]
        dropped, self._reported = self._table.evicted - self._reported, self._table.evicted
        return self._taken.pop(holder, {}), dropped

    def _now(self) -> float:
        self._called_at = time.monotonic()
        return self._called_at

    async def _check(self) -> None:
        """Drop expired snapshots and the news for dead hosts, and end the actor if no host needs it any more."""
        silent: set[str] = set()
        while True:
            await asyncio.sleep(CHECK_S)
            now = time.monotonic()
            self._table.expire(now)
            # A live host asks again at once. One that did not ask at two checks in a row is dead.
            for holder in silent - self._waiting.keys():
                self._taken.pop(holder, None)
            silent = self._taken.keys() - self._waiting.keys()
            if now - self._called_at > self._unused_s:
                ray.kill(ray.get_runtime_context().current_actor)
