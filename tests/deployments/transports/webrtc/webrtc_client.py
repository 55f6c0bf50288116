"""Test client of calls over WebRTC: a peer of aiortc in the test's process, with real Opus and a real data channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import httpx2
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack

from deployments.transports.webrtc.aiortc_internals import bind_media

FRAME_S = 0.02
RATE = 48_000
LOUD = 500
"""Largest sample from which a frame counts as loud."""


class Microphone(MediaStreamTrack):
    """Track that plays a tone while `speaking` is True, and silence otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.speaking = False
        self._tone = (np.sin(np.arange(960) * 2 * np.pi * 500 / RATE) * 8000).astype("<i2").tobytes()
        self._start: float | None = None
        self._frames = 0

    async def recv(self) -> av.AudioFrame:
        clock = asyncio.get_running_loop().time
        self._start = self._start or clock()
        await asyncio.sleep(max(0.0, self._start + self._frames * FRAME_S - clock()))
        frame = av.AudioFrame(format="s16", layout="mono", samples=960)
        frame.planes[0].update(self._tone if self.speaking else bytes(1920))
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._frames * 960, Fraction(1, RATE)
        self._frames += 1
        return frame


class WebRtcClient:
    """One end of a call. Stores every event, and for each loud frame when it arrived."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection()
        self.microphone = Microphone()
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.loud: list[float] = []
        self.packets = 0
        self.location = ""
        self._news = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.channel = self.connection.createDataChannel("oai-events")
        self.channel.on("message", self._take)
        self.connection.addTrack(self.microphone)
        self.connection.on("track", self._heard)

    async def offer(self) -> str:
        """Return the offer of this end, which uses loopback only."""
        bind_media(self.connection, ["127.0.0.1"], range(0))
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: httpx2.Response) -> None:
        """Connect with the response of the server."""
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"].split(";")[0] == "application/sdp"
        self.location = answer.headers["location"]
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    def send(self, **event: Any) -> None:
        """Send an event."""
        self.channel.send(json.dumps(event))

    async def until(self, kind: str, count: int = 1, timeout_s: float = 15) -> dict[str, Any]:
        """Wait for the `count`-th event of a type and return it."""
        async with asyncio.timeout(timeout_s):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1]

    async def until_loud(self, count: int = 1) -> None:
        """Wait for `count` loud frames in total."""
        async with asyncio.timeout(15):
            while len(self.loud) < count:
                self._news.clear()
                await self._news.wait()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [event for event in self.events if event["type"] == kind]

    def time_of(self, kind: str) -> float:
        """Return when the first event of a type arrived, on the clock of the event loop."""
        return next(at for at, event in zip(self.times, self.events, strict=True) if event["type"] == kind)

    async def speak(self, seconds: float) -> None:
        """Speak for some seconds, in real time."""
        self.microphone.speaking = True
        await asyncio.sleep(seconds)
        self.microphone.speaking = False

    def _take(self, message: str) -> None:
        self.events.append(json.loads(message))
        self.times.append(asyncio.get_running_loop().time())
        self._news.set()

    def _heard(self, track: AudioStreamTrack) -> None:
        self._listening = asyncio.ensure_future(self._listen(track))

    async def _listen(self, track: AudioStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.packets += 1
            assert isinstance(frame, av.AudioFrame)
            if np.abs(frame.to_ndarray()).max() >= LOUD:
                self.loud.append(asyncio.get_running_loop().time())
                self._news.set()

    async def close(self) -> None:
        """Hang up."""
        await self.connection.close()
        if self._listening:
            self._listening.cancel()


Post = Callable[[str, WebRtcClient], Any]


async def post_offer(url: str, client: WebRtcClient, **headers: str) -> httpx2.Response:
    """Send the offer of a client to the server at `url` (http://...), and return the response."""
    body = await client.offer()
    sent = {"content-type": "application/sdp", **headers}
    async with httpx2.AsyncClient() as http:
        return await http.post(f"{url}/realtime/calls?model=rejoinder", content=body, headers=sent, timeout=10)


@asynccontextmanager
async def calling(url: str, **headers: str) -> AsyncIterator[WebRtcClient]:
    """Yield a client whose session has begun."""
    client = WebRtcClient()
    try:
        await client.accept(await post_offer(url, client, **headers))
        await client.until("session.created")
        yield client
    finally:
        await client.close()
