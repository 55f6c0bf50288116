"""Test of a call of Twilio over real HTTP and a real WebSocket, through `CallProtocol` and its limits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from typing import Any
from xml.etree import ElementTree

import httpx2
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from deployments.serving.http_routes import http_app
from deployments.telephony.twilio_routes import STREAM, VOICE
from deployments.transports.call_protocol import CallProtocol
from deployments.transports.realtime_ws import RealtimeSocket
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.telephony.twilio_signature import signature_of
from rejoinder.core.wire.formats import WireDecoder
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.deployments.telephony.twilio_peer import HUSH, PUBLIC, TOKEN, TWILIO
from tests.loadtest.callers.server import Served, running

FORM = {"CallSid": "CA1", "From": "+15550001", "To": "+15550002"}
FRAMES = [bytes([number]) * 160 for number in range(100)]


async def test_a_call_over_real_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/voice` gives TwiML, and the stream is refused without a signature and carries audio and a key with one.

    More than 64 messages are sent at once. Once the session has handled them, audio takes the fast path, and all of it
    reaches the decoder in the order in which it was sent.
    """
    decoded, fast = list[bytes](), list[bool]()
    decode, take = WireDecoder.__call__, RealtimeSocket._take_audio

    def recording(self: WireDecoder, audio: bytes) -> bytes:
        decoded.append(audio)
        return decode(self, audio)

    def taking(self: RealtimeSocket, session: Any, message: bytes) -> bool:
        fast.append(take(self, session, message))
        return fast[-1]

    monkeypatch.setattr(WireDecoder, "__call__", recording)
    monkeypatch.setattr(RealtimeSocket, "_take_audio", taking)
    settings = parse_settings({"telephony": {"twilio": TWILIO}})
    play = Play(settings=settings, stt=ScriptedStt(deque(["Hello"])), llm=WordyLlm("Yes."))
    async with (
        play.open() as host,
        asyncio.timeout(20),
        running(http_app(Served(host, AccessControl())), lifespan="off", ws=CallProtocol) as address,
    ):
        async with httpx2.AsyncClient() as client:
            headers = {"X-Twilio-Signature": signature_of(TOKEN, PUBLIC + VOICE, FORM.items())}
            answer = await client.post(f"http://{address}{VOICE}", data=FORM, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
        ticket = ElementTree.fromstring(answer.text).find("Connect/Stream/Parameter")
        assert ticket is not None
        with pytest.raises(InvalidStatus, match="403"):
            await websockets.connect(f"ws://{address}{STREAM}")
        signature = signature_of(TOKEN, f"wss{PUBLIC.removeprefix('https')}{STREAM}")
        await _call(f"ws://{address}{STREAM}", signature, {ticket.get("name"): ticket.get("value")})
        assert host.live == 0
        assert fast == [True] * 100
        # The session's beginning keeps 2 s of audio.
        assert b"".join(decoded).endswith(HUSH * 50 + b"".join(FRAMES))


async def _call(url: str, signature: str, parameters: dict[str | None, str | None]) -> None:
    """Open a stream, send much silence at once and then #, and wait for audio and its mark."""
    async with websockets.connect(url, additional_headers={"X-Twilio-Signature": signature}) as socket:

        async def send(event: str, **fields: object) -> None:
            await socket.send(json.dumps({"event": event, "streamSid": "MZ1", **fields}))

        await send("connected", protocol="Call")
        await send("start", start={"streamSid": "MZ1", "callSid": "CA1", "customParameters": parameters})
        for _ in range(200):
            await send("media", media={"track": "inbound", "payload": base64.b64encode(HUSH).decode()})
        await send("dtmf", dtmf={"digit": "#"})
        kinds: set[str] = set()
        while kinds != {"media", "mark"}:
            kinds.add(json.loads(await socket.recv())["event"])
        for frame in FRAMES:
            await send("media", media={"track": "inbound", "payload": base64.b64encode(frame).decode()})
        await asyncio.sleep(0.2)
        await send("stop", stop={"callSid": "CA1"})
        async for _ in socket:
            pass
