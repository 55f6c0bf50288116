"""Bounded priority queue for speech-to-text jobs.

Final transcripts come first, then second opinions, interim transcripts and recordings. Jobs of the same priority are
served oldest first.

Each job has a deadline. A job that is still waiting after its deadline is returned as expired and is not decoded. The
queue has no clock: its methods take `now`, in seconds.
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
    """A queued job, ordered by `rank`: its priority, then its number in order of arrival.

    `expires` is its deadline in seconds. A removed entry stays in the heap until it is popped.
    """

    rank: tuple[int, int]
    expires: float = field(compare=False)
    job: Job = field(compare=False)
    removed: bool = field(default=False, compare=False)


class SttQueue(Generic[Job]):
    """Priority queue of at most `limit` jobs.

    A job that is pushed into a full queue displaces the youngest interim job or recording of a lower priority.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[_Entry[Job]] = []
        self._numbers = itertools.count()
        self._waiting: dict[int, _Entry[Job]] = {}

    def __len__(self) -> int:
        """Return the number of waiting jobs."""
        return len(self._waiting)

    def push(self, job: Job, priority: Priority, deadline_s: float, now: float) -> Job | None:
        """Add a job.

        Args:
            job: The job. It must not be in the queue already.
            priority: The job's rank.
            deadline_s: Number of seconds after `now` at which the job expires.
            now: The current time in seconds.

        Returns:
            The job that was removed to make room for this one, or None.

        Raises:
            Overloaded: If the queue is full and there is no job to displace.
        """
        displaced = None
        if len(self._waiting) >= self._limit:
            displaced = self._displace(priority)
        entry = _Entry((priority.value, next(self._numbers)), now + deadline_s, job)
        heapq.heappush(self._heap, entry)
        self._waiting[id(job)] = entry
        return displaced

    def remove(self, job: Job) -> bool:
        """Remove a waiting job. Return False if it is not in the queue any more."""
        entry = self._waiting.pop(id(job), None)
        if entry is None:
            return False
        entry.removed = True
        return True

    def take(self, most: int, now: float) -> tuple[list[Job], list[Job]]:
        """Take the next batch out of the queue.

        Args:
            most: Maximum size of the batch.
            now: The current time in seconds.

        Returns:
            The batch, whose jobs all have the same priority, and the expired jobs. Both are removed from the queue. A
            recording is alone in its batch, because a batch cannot be stopped for a caller.
        """
        batch: list[Job] = []
        expired: list[Job] = []
        priority: int | None = None
        while self._heap and len(batch) < most:
            entry = self._heap[0]
            if not entry.removed and entry.expires >= now and priority not in (None, entry.rank[0]):
                break
            heapq.heappop(self._heap)
            if entry.removed:
                continue
            del self._waiting[id(entry.job)]
            if entry.expires < now:
                expired.append(entry.job)
                continue
            priority = entry.rank[0]
            batch.append(entry.job)
            if priority == Priority.RECORDING.value:
                break
        return batch, expired

    def _displace(self, priority: Priority) -> Job:
        least = max(Priority.INTERIM.value, priority.value + 1)
        lower = [entry for entry in self._waiting.values() if entry.rank[0] >= least]
        if not lower:
            raise Overloaded("The speech-to-text queue is full.", "Try again.", retry_after_s=1.0, resource="stt")
        youngest = max(lower)
        self.remove(youngest.job)
        return youngest.job
