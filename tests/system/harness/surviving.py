"""Caller for tests that resumes its call on another host when its connection breaks.

It asks in text and hears the answer. Its player plays all audio that it has received, also while it has no connection.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import websockets
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from tests.system.harness.wire_caller import realtime_url

MOVE = "rejoinder.session.move"


@dataclass
class SurvivingCaller:
    """One call, over all its connections.

    Attributes:
        url: Base URL of the server (http).
        events: Every event with its arrival time (`time.monotonic`), of all connections.
        connections: Number of connections so far.
        back_s: For each break, the seconds until `rejoinder.session.resumed` arrived.
        gaps_s: For each break during an answer, the seconds of silence that the caller heard.
        refused: Number of attempts to resume that failed.
        stays: True if the client ignores the request to move.
    """

    url: str
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    connections: int = 0
    back_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    refused: int = 0
    token: str = ""
    item_id: str = ""
    received_ms: float = 0.0
    plays_until: float = 0.0
    broke_at: float | None = None
    ended: bool = False
    stays: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _socket: websockets.ClientConnection | None = None

    async def run(self) -> None:
        """Keep the call up until `hang_up`, or until the session is lost."""
        while not self.ended:
            try:
                async with websockets.connect(self._address()) as socket:
                    self._socket = socket
                    self.connections += 1
                    async for message in socket:
                        self._take(json.loads(message))
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                self.refused += 1
            if not self.ended:
                self.broke_at = self.broke_at or time.monotonic()
                await asyncio.sleep(random.uniform(0.02, 0.1))  # jitter

    def _address(self) -> str:
        resume = f"&resume_token={self.token}" if self.token else ""
        heard = f"&heard={self.item_id}:{self.received_ms:.0f}" if self.item_id else ""
        return realtime_url(self.url) + resume + heard

    def _take(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        self.events.append((now, event))
        kind = event["type"]
        if kind == "session.created":
            self.token = event["rejoinder"]["resume_token"]
        elif kind == "rejoinder.session.resumed" and self.broke_at:
            self.back_s.append(now - self.broke_at)
            if event["response"] is None:
                self.broke_at = None
        elif kind == "response.output_audio.delta":
            self._play(event, now)
        elif kind == MOVE and self._socket and not self.stays:
            self.broke_at = now
            asyncio.get_running_loop().create_task(self._socket.close(1001))
        self._news.set()

    def _play(self, event: dict[str, Any], now: float) -> None:
        if event["item_id"] != self.item_id:
            self.item_id, self.received_ms = event["item_id"], 0.0
        if self.broke_at:
            self.gaps_s.append(max(0.0, now - max(self.plays_until, self.broke_at)))
            self.broke_at = None
        length_s = len(base64.b64decode(event["delta"])) / SAMPLE_BYTES / WIRE_RATE
        self.received_ms += length_s * 1000
        self.plays_until = max(self.plays_until, now) + length_s

    async def send(self, **event: Any) -> None:
        """Send an event with these fields, once there is a connection."""
        while self.broke_at or self._socket is None:
            self._news.clear()
            await self._news.wait()
        await self._socket.send(json.dumps(event))

    async def ask(self, text: str) -> None:
        """Add a question in text, and request the answer."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send(type="conversation.item.create", item=item)
        await self.send(type="response.create")

    async def until(self, kind: str, count: int = 1, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until `count` events of a type have arrived, and return the last of these."""
        async with asyncio.timeout(timeout_s):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [event for _, event in self.events if event["type"] == kind]

    async def text_of(self, item_id: str) -> str:
        """Return the words of an item as the server has it."""
        count = len(self.of("conversation.item.retrieved")) + 1
        await self.send(type="conversation.item.retrieve", item_id=item_id)
        item = (await self.until("conversation.item.retrieved", count))["item"]
        return " ".join(part.get("transcript") or part.get("text") or "" for part in item["content"])

    async def hang_up(self) -> None:
        """End the call."""
        self.ended = True
        if self._socket:
            with suppress(ConnectionClosed):
                await self._socket.close()
