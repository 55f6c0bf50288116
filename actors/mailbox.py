"""A session's mailbox. It has two lanes, and control events are handled before client events.

Control events come from the session's own tasks: starts and ends of speech, verdicts, ended replies. They must not wait
because a client floods the session. Only a few of them wait at any time, each from one known task, so their lane has no
limit. The lane of the client's events is limited and applies backpressure: while it is full, the transport does not
read the socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

Control = TypeVar("Control")
Client = TypeVar("Client")

# Maximum number of client events that wait in a mailbox.
CLIENT_LANE = 64


class Mailbox(Generic[Control, Client]):
    """Mailbox with one consumer, the session. Any task of the session's event loop may add events."""

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
        """Add a client event; wait while its lane is full. If the wait is cancelled, the event is not added."""
        while len(self._client) >= self._client_lane:
            self._room.clear()
            await self._room.wait()
        self._client.append(event)
        self._answered.clear()
        self._filled.set()

    async def answered(self) -> None:
        """Wait until the consumer has handled every client event submitted so far.

        Call this only after at least one event was submitted.
        """
        await self._answered.wait()

    async def get(self) -> Control | Client:
        """Wait for the next event and return it, control events first.

        The call also means that the consumer has handled the previous event. Cancelling it loses no event.
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
