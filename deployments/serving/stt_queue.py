"""The order of speech-to-text work: finals before partials, oldest first, bounded, each with a deadline.

Pure: it takes `now`. A job that waited past its deadline is handed back as expired instead of being decoded for
nobody.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from actors.stages.ports import Priority
from rejoinder.core.errors import Overloaded

Job = TypeVar("Job")


@dataclass(order=True)
class _Entry(Generic[Job]):
    rank: tuple[int, int]
    expires: float = field(compare=False)
    job: Job = field(compare=False)
    gone: bool = field(default=False, compare=False)


class SttQueue(Generic[Job]):
    """At most `limit` waiting jobs; a final pushed into a full queue displaces the youngest partial, if there is
    one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[_Entry[Job]] = []
        self._numbers = itertools.count()
        self._waiting: dict[int, _Entry[Job]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, job: Job, priority: Priority, deadline_s: float, now: float) -> Job | None:
        """Add a job; returns the partial it displaced, raises Overloaded when nothing can be displaced."""
        displaced = None
        if len(self._waiting) >= self._limit:
            displaced = self._displace(priority)
        entry = _Entry((priority.value, next(self._numbers)), now + deadline_s, job)
        heapq.heappush(self._heap, entry)
        self._waiting[id(job)] = entry
        return displaced

    def remove(self, job: Job) -> bool:
        """Take back a waiting job; False if it is not waiting any more."""
        entry = self._waiting.pop(id(job), None)
        if entry is None:
            return False
        entry.gone = True
        return True

    def take(self, most: int, now: float) -> tuple[list[Job], list[Job]]:
        """Up to `most` jobs of the first one's priority, and the expired ones met on the way."""
        batch: list[Job] = []
        expired: list[Job] = []
        priority: int | None = None
        while self._heap and len(batch) < most:
            entry = self._heap[0]
            if not entry.gone and entry.expires >= now and priority not in (None, entry.rank[0]):
                break
            heapq.heappop(self._heap)
            if entry.gone:
                continue
            del self._waiting[id(entry.job)]
            if entry.expires < now:
                expired.append(entry.job)
                continue
            priority = entry.rank[0]
            batch.append(entry.job)
        return batch, expired

    def _displace(self, priority: Priority) -> Job:
        partials = [entry for entry in self._waiting.values() if entry.rank[0] == Priority.PARTIAL.value]
        if priority is Priority.PARTIAL or not partials:
            raise Overloaded("The speech-to-text queue is full.", "Try again.", retry_after_s=1.0, resource="stt")
        youngest = max(partials)
        self.remove(youngest.job)
        return youngest.job
