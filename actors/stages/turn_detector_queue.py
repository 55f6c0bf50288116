"""Queue of a host's turn detector requests. A few run at once, the newest starts first, and late ones are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rejoinder.core.errors import Overloaded
from rejoinder.core.resilience.deadline_queue import DeadlineQueue

# Maximum number of requests that run at once. Two keep the model busy: one runs while the next is sent. More would wait
# in the model's own queue, where cancelling a request costs more than in this one.
AT_ONCE = 2


class TurnDetectorQueue:
    """Queue of one host's turn detector requests, which limits how many run at once and refuses late ones.

    Deadlines are times of the event loop's clock, in seconds.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._queue: DeadlineQueue[asyncio.Future[None]] = DeadlineQueue(at_once)

    @asynccontextmanager
    async def slot(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a slot, and occupy it while the caller makes its request inside the context manager.

        Cancelling frees the slot, or leaves the queue.

        Raises:
            Overloaded: No answer can arrive by `deadline`.
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
            # The queue learns the service time. A cancelled request tells nothing about it. A request that reached its
            # deadline took at least this long.
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
                ticket.set_exception(Overloaded("the turn detector has more requests than it can answer in time."))
