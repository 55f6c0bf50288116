"""Scripted Twilio in this process: it calls the application by ASGI, signs its requests and plays what it gets.

It runs in the time of the event loop, which in most tests is virtual.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import numpy as np
from fastapi import FastAPI

from deployments.serving.http_routes import http_app
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.audio.g711 import MU_LAW
from rejoinder.core.telephony.twilio_signature import signature_of
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served, free_socket

TOKEN = "an auth token"
PUBLIC = "https://voice.example"
TWILIO = {"enabled": True, "public_url": PUBLIC, "auth_token": TOKEN}
FRAME_S, FRAME_BYTES = 0.02, 160
TONE = MU_LAW.encode((np.sin(np.arange(FRAME_BYTES) * 0.4) * 8000).astype("<i2").tobytes())
HUSH = MU_LAW.encode(bytes(2 * FRAME_BYTES))


@asynccontextmanager
async def application(play: Play, access: AccessControl | None = None) -> AsyncIterator[tuple[FastAPI, int]]:
    """Run a host with the stages of `play`. Yield its application and a port on which this process listens."""
    with free_socket() as listener:
        async with play.open() as host:
            yield http_app(Served(host, access or AccessControl())), listener.getsockname()[1]


class Twilio:
    """Twilio's side of calls to one system.

    Attributes:
        call: Id of the call.
        token: The auth token with which requests are signed.
    """

    def __init__(self, served: tuple[FastAPI, int], call: str = "CA1", token: str = TOKEN) -> None:
        self._app, self._port = served
        self.call = call
        self.token = token

    async def voice(self, url: str = f"{PUBLIC}/v1/telephony/twilio/voice", **headers: str) -> tuple[int, str]:
        """Ask how a call goes on. Return status and body. `headers` replace the right signature."""
        form = {"CallSid": self.call, "From": "+15550001", "To": "+15550002", "CallStatus": "ringing"}
        signed = {"x-twilio-signature": signature_of(self.token, url, form.items())} | headers
        sent: list[dict[str, Any]] = []
        bodies = iter([{"type": "http.request", "body": urlencode(form).encode()}])

        async def receive() -> dict[str, Any]:
            return next(bodies)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        content_type = {"content-type": "application/x-www-form-urlencoded"}
        await self._app(self._scope("http", url, signed | content_type) | {"method": "POST"}, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()

    def _scope(self, kind: str, url: str, headers: dict[str, str]) -> dict[str, Any]:
        parts = urlsplit(url)
        return {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": parts.scheme,
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", self._port),
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}},
        }

    def stream(self, twiml: str) -> TwilioStream:
        """Return the stream that TwiML asks for, not yet open."""
        verb = ElementTree.fromstring(twiml).find("Connect/Stream")
        assert verb is not None, twiml
        parameters = {child.get("name", ""): child.get("value", "") for child in verb}
        url = verb.get("url", "")
        scope = self._scope("websocket", url, {"x-twilio-signature": signature_of(self.token, url)})
        return TwilioStream(self._app, scope, self.call, parameters)

    @asynccontextmanager
    async def talking(self, url: str = f"{PUBLIC}/v1/telephony/twilio/voice") -> AsyncIterator[TwilioStream]:
        """Answer the call as the system says, and open its stream until the block ends."""
        status, twiml = await self.voice(url)
        assert status == 200, twiml
        stream = self.stream(twiml)
        async with stream.open():
            yield stream


class TwilioStream:
    """One media stream: a caller who sends audio all the time, and a player with Twilio's marks.

    Attributes:
        heard: All audio that was played, mu-law.
        got: All audio that arrived.
        messages: All messages that arrived.
        status: HTTP status with which the stream was refused; 101 if it was accepted, 0 before.
        close_code: Code with which the system closed the stream; None while it is open.
        most_ahead_s: Most seconds of audio that ever waited to be played.
    """

    _ids = itertools.count(1)

    def __init__(self, app: FastAPI, scope: dict[str, Any], call: str, parameters: dict[str, str]) -> None:
        self._app, self._scope = app, scope
        self.call, self.parameters = call, parameters
        self.id = f"MZ{next(self._ids)}"
        self.heard = self.got = b""
        self.messages: list[dict[str, Any]] = []
        self.status = 0
        self.close_code: int | None = None
        self.most_ahead_s = 0.0
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._buffer: list[bytes | str] = []
        self._say: list[bytes] = []
        self._news = asyncio.Event()

    @asynccontextmanager
    async def open(self, *, start: dict[str, Any] | None = None) -> AsyncIterator[None]:
        """Open the stream, send `connected` and `start` and then audio, until the block ends. Then drop it.

        `start` replaces fields of the start message.
        """
        self._incoming.put_nowait({"type": "websocket.connect"})
        self.send(event="connected", protocol="Call", version="1.0.0")
        body = {"streamSid": self.id, "callSid": self.call, "customParameters": self.parameters} | (start or {})
        self.send(event="start", start=body | {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000}})
        serving = asyncio.create_task(self._app(self._scope, self._incoming.get, self._receive))
        clock = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
            await asyncio.wait({serving}, timeout=30)
            for task in (clock, serving):
                task.cancel()

    def send(self, **message: Any) -> None:
        """Send a message."""
        self.throw(json.dumps({**message, "streamSid": self.id}))

    def throw(self, text: str) -> None:
        """Send any text."""
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def speak(self, seconds: float) -> None:
        """Speak for some seconds from now on."""
        self._say += [TONE] * round(seconds / FRAME_S)

    async def until(self, reached: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Wait until a condition is true, which is checked in each frame."""
        async with asyncio.timeout(limit_s):
            while not reached():  # noqa: ASYNC110  # the condition is checked at each frame
                await asyncio.sleep(FRAME_S)

    def count(self, event: str) -> int:
        """Return how many messages of a kind have arrived."""
        return sum(message["event"] == event for message in self.messages)

    @property
    def playing(self) -> bool:
        """True while audio waits to be played."""
        return any(isinstance(piece, bytes) for piece in self._buffer)

    async def _receive(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        elif kind == "websocket.close":
            self.close_code = message["code"]
        elif kind == "websocket.send":
            self._take(json.loads(message["text"]))

    def _take(self, message: dict[str, Any]) -> None:
        assert message["streamSid"] == self.id
        self.messages.append(message)
        if message["event"] == "media":
            audio = base64.b64decode(message["media"]["payload"], validate=True)
            self.got += audio
            self._buffer.append(audio)
            waiting = sum(len(piece) for piece in self._buffer if isinstance(piece, bytes))
            self.most_ahead_s = max(self.most_ahead_s, waiting / 8000)
        elif message["event"] == "mark":
            self._buffer.append(message["mark"]["name"])
            self._return_marks()
        else:
            assert message["event"] == "clear", message
            marks = [piece for piece in self._buffer if isinstance(piece, str)]
            self._buffer.clear()
            for mark in marks:
                self.send(event="mark", mark={"name": mark})

    def _return_marks(self) -> None:
        while self._buffer and isinstance(self._buffer[0], str):
            self.send(event="mark", mark={"name": self._buffer.pop(0)})

    async def _run(self) -> None:
        """Send a frame of the caller's audio and play a frame of the agent's, every 20 ms."""
        for number in itertools.count():
            await asyncio.sleep(FRAME_S)
            audio = self._say.pop(0) if self._say else HUSH
            payload = base64.b64encode(audio).decode()
            media = {"track": "inbound", "chunk": str(number), "timestamp": str(number * 20), "payload": payload}
            self.send(event="media", media=media)
            room = FRAME_BYTES
            while room and self._buffer:
                self._return_marks()
                if not self._buffer:
                    break
                piece = self._buffer[0]
                assert isinstance(piece, bytes)
                self.heard += piece[:room]
                self._buffer[0] = piece[room:]
                room -= len(piece[:room])
                if not self._buffer[0]:
                    self._buffer.pop(0)
            self._return_marks()
