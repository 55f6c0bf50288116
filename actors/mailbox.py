"""A session's mailbox: two lanes, control before client.

Control events come from the system itself: speech edges, verdicts, ended replies. They must never wait behind a client
that floods the session. A handful are in flight at most, each from one known task, so their lane has no bound. The
client's lane is bounded and applies backpressure: the transport stops reading the socket until the session has caught
up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Control = TypeVar("Control")
Client = TypeVar("Client")

# Client events that may wait.
CLIENT_LANE = 64


class Mailbox(Generic[Control, Client]):
    """Mailbox with one consumer. Any task of the session's event loop may post."""

    def __init__(self, client_lane: int = CLIENT_LANE) -> None:
        self._control: deque[Control] = deque()
        self._client: deque[Client] = deque()
        self._client_lane = client_lane
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._answered = asyncio.Event()

    def post(self, event: Control) -> None:
        """Add a control event. Never blocks."""
        self._control.append(event)
        self._filled.set()

    async def submit(self, event: Client) -> None:
        """Add a client event; wait while its lane is full. Cancelling the wait adds nothing."""
        while len(self._client) >= self._client_lane:
            self._room.clear()
            await self._room.wait()
        self._client.append(event)
        self._answered.clear()
        self._filled.set()

    async def answered(self) -> None:
        """Wait until the consumer has handled every client event submitted so far. There must have been one."""
        await self._answered.wait()

    async def get(self) -> Control | Client:
        """Return the next event, control events first. Calling it says that the previous event is handled.

        Cancelling it loses no event.
        """
        if not self._client:
            self._answered.set()
        while True:
            if self._control:
                return self._control.popleft()
            if self._client:
                self._room.set()
                return self._client.popleft()
            self._filled.clear()
            await self._filled.wait()
