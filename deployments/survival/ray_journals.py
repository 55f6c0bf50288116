"""The session journal over Ray: a detached actor on every node, of which two keep each conversation.

The hosts start the actors, choose them in the same way (`rejoinder.core.survival.rendezvous`) and ask each for the
sessions that were taken over (a long poll, which also tells that a journal has died). A journal that is late is left
out for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.stages.ports import Metrics
from actors.stages.retry import contained
from deployments.survival.journal_actor import JournalActor
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import JournalSettings
from rejoinder.core.survival.journal_table import SnapshotClaim, SnapshotPut
from rejoinder.core.survival.rendezvous import ranked

logger = logging.getLogger(__name__)

NAMESPACE = "rejoinder"
NODES_S = 5.0
"""Seconds between two looks at the nodes of the cluster."""
POLL_S = 20.0
"""Seconds after which a journal answers a long poll in any case."""
POLL_MARGIN_S = 5.0
"""A journal that answers a long poll this much later is taken for dead."""
LEFT_OUT_S = 10.0
"""Seconds for which a journal that was late gets no snapshots."""
ANSWER_S = 0.5
"""Seconds in which the journals of a session must answer a claim. Then the other journals are asked too."""
SECOND_S = 0.05
"""Seconds for which a claim waits for a second journal when one has answered. It may have a newer snapshot."""
MESSAGE_BYTES = 80_000
"""Snapshots of about this size are sent in one message. Ray would put a message of 100 kB into its object store."""


@dataclass(slots=True)
class _Journal:
    """The journal of one node: the actor's handle, and the time until which it gets no snapshots.

    It gets none before its first answer. The actor may still be starting, or its node may not take it.
    """

    actor: Any
    left_out_until: float = math.inf
    polling: asyncio.Task[None] | None = field(default=None, repr=False)


class RayJournals:
    """The session journal of one host (`actors.survival.snapshot_store.SnapshotStore`). Keep `run` running."""

    def __init__(self, application: str, holder: str, settings: JournalSettings, metrics: Metrics) -> None:
        """Create the journal without connections.

        Args:
            application: Name of the Serve application. Each has its own journals.
            holder: Name of this host.
            settings: Section `journal`.
            metrics: Receiver of measurements.
        """
        self._application = application
        self._holder = holder
        # The actors never get the key, and Ray keeps the arguments with which an actor was started.
        self._settings = settings.model_copy(update={"key": "", "redis_url": ""})
        self._metrics = metrics
        self._journals: dict[str, _Journal] = {}
        self._found = asyncio.Event()
        self._taken: asyncio.Queue[dict[str, int]] = asyncio.Queue()

    async def run(self, refresh: Callable[[], None]) -> None:
        """Find the nodes and start their journals, until cancelled. `refresh` is called if journals come or go."""
        try:
            while True:
                with contained("journal", self._metrics):
                    await self._look(refresh)
                await asyncio.sleep(NODES_S)
        finally:
            for journal in self._journals.values():
                if journal.polling:
                    journal.polling.cancel()

    async def _look(self, refresh: Callable[[], None]) -> None:
        """Compare the journals with the nodes of the cluster. Start those that are missing, and drop the others."""
        nodes = {node["NodeID"] for node in await asyncio.to_thread(ray.nodes) if node["Alive"]}
        for gone in self._journals.keys() - nodes:
            self._drop(gone)
        new = nodes - self._journals.keys()
        opened = await asyncio.gather(*(asyncio.to_thread(self._open, node) for node in new))
        for node, actor in zip(new, opened, strict=True):
            journal = self._journals[node] = _Journal(actor)
            journal.polling = asyncio.create_task(self._poll(node, journal, refresh))

    def _open(self, node: str) -> Any:
        """Return the handle of a node's journal, which is started if there is none."""
        options: dict[str, Any] = {
            "name": f"journal:{self._application}:{node}",
            "namespace": NAMESPACE,
            "get_if_exists": True,
            "lifetime": "detached",
            "num_cpus": 0,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
        return ray.remote(JournalActor).options(**options).remote(self._settings)

    def _drop(self, node: str) -> None:
        journal = self._journals.pop(node, None)
        if journal and journal.polling:
            journal.polling.cancel()

    async def _poll(self, node: str, journal: _Journal, refresh: Callable[[], None]) -> None:
        """Ask a journal again and again for sessions that were taken over. Drop it if it is dead.

        `refresh` is called when it has answered for the first time.
        """
        while True:
            try:
                async with asyncio.timeout(POLL_S + POLL_MARGIN_S):
                    if journal.left_out_until == math.inf:
                        await journal.actor.put.remote([], self._holder)
                        journal.left_out_until = 0.0
                        self._found.set()
                        refresh()
                    found, dropped = await journal.actor.taken.remote(self._holder, POLL_S)
            except (RayError, TimeoutError) as fault:
                logger.warning("the journal of node %s does not answer (%s)", node[:8], type(fault).__name__)
                if self._journals.get(node) is journal:
                    del self._journals[node]  # the next look at the nodes finds or starts it again
                return
            journal.left_out_until = 0.0
            if found:
                self._taken.put_nowait(found)
            if dropped:
                logger.warning("the journal of node %s is full and has dropped %d conversations", node[:8], dropped)
                self._metrics.survival("dropped", dropped)

    async def put(self, puts: Sequence[SnapshotPut]) -> dict[str, int]:
        """Store each snapshot in the journals of its session (`SnapshotStore`)."""
        await self._found.wait()
        now = asyncio.get_running_loop().time()
        usable = [node for node, journal in self._journals.items() if journal.left_out_until <= now]
        batches: defaultdict[str, list[SnapshotPut]] = defaultdict(list)
        for put in puts:
            for node in ranked(put.session, usable)[: self._settings.copies]:
                batches[node].append(put)
        calls = [(node, call) for node, batch in batches.items() for call in self._send(node, batch)]
        answers = await self._answers(calls, self._settings.put_timeout_ms / 1000)
        newest: dict[str, int] = {}
        for session, generation in ((s, g) for answer in answers for s, g in answer.items()):
            newest[session] = max(generation, newest.get(session, 0))
        if len(newest) < len({put.session for put in puts}):
            raise BackendError("no journal has confirmed some conversations.", stage="journal")
        return newest

    def _send(self, node: str, batch: Sequence[SnapshotPut]) -> Iterator[Any]:
        """Send snapshots to the journal of a node in messages of MESSAGE_BYTES, and yield the calls."""
        for message in _messages(batch):
            yield self._journals[node].actor.put.remote(message, self._holder)

    async def _answers(self, calls: Sequence[tuple[str, Any]], timeout_s: float) -> list[Any]:
        """Return the answers to calls that come in time. Leave the other journals out for a while.

        Args:
            calls: Pairs of a node and a call of its journal.
            timeout_s: Seconds in which the journals must answer.
        """
        tasks = {asyncio.ensure_future(_answer(call)): node for node, call in calls}
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=timeout_s)
        failed = {tasks[task] for task in late} | {tasks[task] for task in done if task.exception()}
        for task in late:
            task.cancel()
        for node in failed:
            if journal := self._journals.get(node):
                until = asyncio.get_running_loop().time() + LEFT_OUT_S
                journal.left_out_until = max(journal.left_out_until, until)
        return [task.result() for task in done if not task.exception()]

    async def claim(self, session: str) -> SnapshotClaim | None:
        """Take a session over from its journals, or from any other that has it (`SnapshotStore`)."""
        await self._found.wait()
        nodes = ranked(session, self._journals)
        nonce = secrets.randbits(32)
        first, others = nodes[: self._settings.copies], nodes[self._settings.copies :]
        claims, answered = await self._claims(session, nonce, first)
        if not claims and others:
            claims, more = await self._claims(session, nonce, others)
            answered = answered or more
        if not claims and not answered:
            raise BackendError("no journal answers.", stage="journal")
        if not claims:
            return None
        newest = max(claims, key=lambda claim: claim.order)
        generation = max(claim.generation for claim in claims)
        return SnapshotClaim(generation, newest.order, newest.data, newest.holder)

    async def _claims(self, session: str, nonce: int, nodes: Sequence[str]) -> tuple[list[SnapshotClaim], bool]:
        """Ask journals for a session. Return the claims that they answer with, and whether all have answered."""
        journals = [self._journals[node] for node in nodes if node in self._journals]
        calls = [journal.actor.claim.remote(session, nonce, self._holder) for journal in journals]
        waiting = {asyncio.ensure_future(_answer(call)) for call in calls}
        loop = asyncio.get_running_loop()
        until, claims, failed = loop.time() + ANSWER_S, list[SnapshotClaim](), 0
        while waiting and loop.time() < until:
            done, waiting = await asyncio.wait(
                waiting, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception():
                    failed += 1
                elif claim := task.result():
                    claims.append(claim)
                    until = min(until, loop.time() + SECOND_S)
        for task in waiting:
            task.cancel()
        return claims, not waiting and not failed

    async def forget(self, session: str, generation: int) -> None:
        """Drop the snapshots of an ended session (`SnapshotStore`). A journal that misses it lets them expire."""
        for node in ranked(session, self._journals)[: self._settings.copies]:
            self._journals[node].actor.forget.remote(session, generation)

    async def taken(self) -> dict[str, int]:
        """Wait until a journal tells that sessions of this host were taken over (`SnapshotStore`)."""
        return await self._taken.get()

    async def share_keys(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Give signing keys to all journals, and return those that any of them has (`SnapshotStore`)."""
        await self._found.wait()
        calls = [(node, journal.actor.share_keys.remote(list(keys))) for node, journal in self._journals.items()]
        answers = await self._answers(calls, ANSWER_S)
        return tuple(dict.fromkeys(key for answer in answers for key in answer))


async def _answer(call: Any) -> Any:
    """Return what a call of an actor returns."""
    return await call


def _messages(batch: Sequence[SnapshotPut]) -> Iterator[list[SnapshotPut]]:
    """Yield the snapshots in groups of about MESSAGE_BYTES."""
    group, size = list[SnapshotPut](), 0
    for put in batch:
        group.append(put)
        size += len(put.data)
        if size >= MESSAGE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
