"""The host's requests to the turn detector: a few at once, newest first, and none that would be answered too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rejoinder.core.errors import Overloaded
from rejoinder.core.resilience.deadline_queue import DeadlineQueue

# Two keep the model busy: one runs while the next is on its way. More would wait in the model's own queue, where
# withdrawing a request costs more than here.
AT_ONCE = 2


class TurnDetectorQueue:
    """Admission of one host's turn detector requests. Deadlines are seconds of the event loop's clock."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._queue: DeadlineQueue[asyncio.Future[None]] = DeadlineQueue(at_once)

    @asynccontextmanager
    async def slot(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a slot and hold it; make the request inside. Cancelling gives the slot or the place in the queue up.

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
            # A withdrawn request tells nothing about the service time. One that hit its deadline sets a lower bound.
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
