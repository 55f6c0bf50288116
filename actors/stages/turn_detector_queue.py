"""The host's questions to the turn model: a few at once, the newest first, and none that would be answered too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rejoinder.core.errors import Overloaded
from rejoinder.core.resilience.deadline_queue import DeadlineQueue

# One is being answered while the next is on its way: more would only wait in the turn model's queue, and can be
# withdrawn here for less.
AT_ONCE = 2


class TurnDetectorQueue:
    """Deadlines are the event loop's seconds."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._queue: DeadlineQueue[asyncio.Future[None]] = DeadlineQueue(at_once)

    @asynccontextmanager
    async def slot(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a place and hold it; raises Overloaded as soon as no answer can be there by the deadline.

        Cancelling it withdraws the question.
        """
        loop = asyncio.get_running_loop()
        ticket: asyncio.Future[None] = loop.create_future()
        self._queue.join(ticket, deadline)
        self._admit(loop.time())
        answered = False
        try:
            await ticket
            yield
            answered = True
        finally:
            # A question that was withdrawn says nothing about how long answers take; one cut off says it was longer.
            now = loop.time()
            self._queue.leave(ticket, now, learn=answered or now >= deadline)
            self._admit(now)

    def _admit(self, now: float) -> None:
        admitted, late = self._queue.calls(now)
        for ticket in admitted:
            if not ticket.done():
                ticket.set_result(None)
        for ticket in late:
            if not ticket.done():
                ticket.set_exception(Overloaded("the turn model has more questions than it can answer in time."))
