"""Tests of the speech-to-text queue, which is compared with a plain list of jobs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.stages.ports import Priority
from deployments.serving.stt_queue import SttQueue
from rejoinder.core.errors import Overloaded

LIMIT = 5


@dataclass(eq=False)
class Job:
    number: int
    priority: Priority
    expires: float


class QueueMachine(RuleBasedStateMachine):
    """The queue's operations in any order, while time passes, compared with a list of the waiting jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: SttQueue[Job] = SttQueue(LIMIT)
        self.waiting: list[Job] = []
        self.now = 0.0
        self.made = 0

    @rule(priority=st.sampled_from(Priority), deadline_s=st.floats(0, 10))
    def push(self, priority: Priority, deadline_s: float) -> None:
        """A full queue accepts a job in place of its youngest recording or interim job of a lower priority, or not."""
        self.made += 1
        job = Job(self.made, priority, self.now + deadline_s)
        recordings = [other for other in self.waiting if other.priority is Priority.RECORDING]
        interim = [other for other in self.waiting if other.priority is Priority.INTERIM]
        partials = [] if priority is Priority.RECORDING else recordings if priority is Priority.INTERIM else interim
        partials = recordings if recordings and priority is not Priority.RECORDING else partials
        full = len(self.waiting) == LIMIT
        if full and not partials:
            with pytest.raises(Overloaded):
                self.queue.push(job, priority, deadline_s, self.now)
            return
        displaced = self.queue.push(job, priority, deadline_s, self.now)
        assert displaced is (partials[-1] if full else None)
        if displaced:
            self.waiting.remove(displaced)
        self.waiting.append(job)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A removed job is gone at once and cannot be removed twice."""
        if self.waiting:
            job = data.draw(st.sampled_from(self.waiting))
            assert self.queue.remove(job)
            self.waiting.remove(job)
            assert not self.queue.remove(job)

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        """`take` returns the oldest waiting jobs of the highest priority as a batch, and the expired jobs.

        A recording is alone in its batch.
        """
        batch, expired = self.queue.take(most, self.now)
        alive = [job for job in self.waiting if job.expires >= self.now]
        highest = min((job.priority.value for job in alive), default=0)
        size = 1 if highest == Priority.RECORDING.value else most
        assert batch == [job for job in alive if job.priority.value == highest][:size]
        assert all(job.expires < self.now for job in expired)
        for job in batch + expired:
            self.waiting.remove(job)

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        """Advance the time by `seconds`. Waiting jobs whose deadline passes expire."""
        self.now += seconds

    @invariant()
    def holds_the_waiting_jobs(self) -> None:
        """The queue's length is the number of waiting jobs and within the limit."""
        assert len(self.queue) == len(self.waiting) <= LIMIT


TestQueue = QueueMachine.TestCase


def test_everything_expired_is_handed_back() -> None:
    """If all jobs are expired, `take` returns all of them as expired."""
    queue: SttQueue[Job] = SttQueue(LIMIT)
    jobs = [Job(number, priority, 1.0) for number, priority in enumerate(Priority)]
    for job in jobs:
        queue.push(job, job.priority, 1.0, 0.0)
    assert queue.take(4, 2.0) == ([], jobs)
    assert len(queue) == 0
