"""A session's mailbox: two lanes, control before client.

What the system itself reports (speech edges, verdicts, ended replies) must never wait behind a client that floods us,
so it has its own lane; there are at most a handful of such events in flight, each from one known task. The client's
lane is bounded, and its overflow policy is backpressure: the transport stops reading the socket until the session
caught up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Control = TypeVar("Control")
Client = TypeVar("Client")

CLIENT_LANE = 64


class Mailbox(Generic[Control, Client]):
    """One consumer; any task of the session's loop may post."""

    def __init__(self, client_lane: int = CLIENT_LANE) -> None:
        self._control: deque[Control] = deque()
        self._client: deque[Client] = deque()
        self._client_lane = client_lane
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._answered = asyncio.Event()

    def post(self, event: Control) -> None:
        """Add a system event; never blocks."""
        self._control.append(event)
        self._filled.set()

    async def submit(self, event: Client) -> None:
        """Add a client event, waiting for room; cancelling it adds nothing."""
        while len(self._client) >= self._client_lane:
            self._room.clear()
            await self._room.wait()
        self._client.append(event)
        self._answered.clear()
        self._filled.set()

    async def answered(self) -> None:
        """Until the consumer is done with every client event submitted so far; there must have been one."""
        await self._answered.wait()

    async def get(self) -> Control | Client:
        """The next event, control first; cancelling it loses nothing. The one before is done with."""
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
