"""CPU time that a call costs a host, by transport: Realtime WebSocket with PCM or mu-law, WebRTC, and Twilio.

    python -m benchmarks.phone_cost --calls 40 --seconds 15

The host runs in a process of its own: HTTP routes, transport, sessions, Silero and web server are the product's; speech
to text, language model and voice are emulated and share the process. Each caller sends 20 ms frames of silence all the
time (with `webrtc-dtx` a packet every 400 ms, as a browser does), presses # every 6 s, and gets a spoken answer. The
transports take turns, because other programs of the machine change the figures more than their ratios. Printed are ms
of CPU time of the host for each second of a call.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from xml.etree import ElementTree

import httpx2
import psutil
import uvicorn
import uvloop
from aiortc import RTCPeerConnection
from websockets.asyncio.client import ClientConnection, connect

from cluster.environment import free_port
from deployments.local.bare_host import BareHost, emulated_settings, running_host, stages_of
from deployments.serving.http_routes import http_app
from deployments.telephony.twilio_routes import STREAM, VOICE
from deployments.transports.call_protocol import CallProtocol
from deployments.transports.webrtc.aiortc_internals import bind_media, decode_with
from loadtest.bandwidth.webrtc_peer import PacketTrack, WebRtcPeer
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.telephony.twilio_signature import signature_of

TOKEN, PUBLIC = "benchmark", "https://voice.example"
FRAME_S, KEY_EVERY_S, SETTLE_S = 0.02, 6.0, 3.0
TRANSPORTS = ("websocket-pcm", "websocket-pcmu", "webrtc", "webrtc-dtx", "twilio")


def _settings() -> Settings:
    twilio = {"enabled": True, "public_url": PUBLIC, "auth_token": TOKEN}
    document = emulated_settings("guide-800").model_dump(mode="json", exclude_unset=True)
    return parse_settings(
        document
        | {
            "telephony": {"twilio": twilio},
            "host": {"max_sessions": 1000},
            "webrtc": {"addresses": ["127.0.0.1"]},
        }
    )


async def _serve(port: int) -> None:
    settings = _settings()
    async with running_host(stages_of(settings), settings, time.monotonic) as host:
        app = http_app(BareHost(host))
        await uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_level="error", ws=CallProtocol)).serve()


async def _open(address: str, transport: str, number: int) -> ClientConnection:
    """Open a call and configure it."""
    if transport != "twilio":
        socket = await connect(f"ws://{address}/v1/realtime", compression=None)
        wire = {"type": "audio/pcmu"} if transport.endswith("pcmu") else {"type": "audio/pcm", "rate": 24000}
        audio = {"input": {"format": wire}, "output": {"format": wire}}
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": audio}}))
        return socket
    form = {"CallSid": f"CA{number}"}
    headers = {"X-Twilio-Signature": signature_of(TOKEN, PUBLIC + VOICE, form.items())}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"http://{address}{VOICE}", data=form, headers=headers)
    ticket = ElementTree.fromstring(answer.text).find("Connect/Stream/Parameter")
    if ticket is None:
        raise SystemExit(f"no TwiML: {answer.text}")
    signature = signature_of(TOKEN, f"wss{PUBLIC.removeprefix('https')}{STREAM}")
    socket = await connect(
        f"ws://{address}{STREAM}", additional_headers={"X-Twilio-Signature": signature}, compression=None
    )
    parameters = {ticket.get("name"): ticket.get("value")}
    start = {"streamSid": "MZ", "callSid": form["CallSid"], "customParameters": parameters}
    await socket.send(json.dumps({"event": "start", "streamSid": "MZ", "start": start}))
    return socket


async def _talk_webrtc(address: str, number: int, count: Callable[[int], None], *, dtx: bool) -> None:
    """Hold one call over WebRTC until cancelled. `count` gets the bytes of packets that arrive."""

    def prepare(connection: RTCPeerConnection) -> None:
        bind_media(connection, ["127.0.0.1"], range(0))
        decode_with(connection.getTransceivers()[0].receiver, lambda packet: count(len(packet)))

    peer = await WebRtcPeer.open(f"http://{address}/v1", PacketTrack(dtx=dtx), prepare=prepare)
    try:
        await asyncio.sleep(KEY_EVERY_S * (number % 20) / 20)
        while True:
            peer.send({"type": "rejoinder.dtmf", "digit": "#"})
            await asyncio.sleep(KEY_EVERY_S)
    finally:
        await peer.close()


async def _talk(address: str, transport: str, number: int, count: Callable[[int], None]) -> None:
    """Hold one call until cancelled. `count` gets the bytes of audio messages that arrive."""
    if transport.startswith("webrtc"):
        return await _talk_webrtc(address, number, count, dtx=transport.endswith("dtx"))
    socket = await _open(address, transport, number)
    if transport == "twilio":
        payload = base64.b64encode(b"\xff" * 160).decode()
        media = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload}
        frame = json.dumps({"event": "media", "sequenceNumber": "1", "media": media, "streamSid": "MZ"})
        key = json.dumps({"event": "dtmf", "streamSid": "MZ", "dtmf": {"digit": "#"}})
    else:
        payload = base64.b64encode(bytes(960) if transport.endswith("pcm") else b"\xff" * 160).decode()
        frame = json.dumps({"type": "input_audio_buffer.append", "audio": payload})
        key = json.dumps({"type": "rejoinder.dtmf", "digit": "#"})

    async def listen() -> None:
        async for message in socket:
            text = str(message)
            if transport == "twilio" and '"mark"' in text:
                await socket.send(text)
            elif '"media"' in text or "response.output_audio.delta" in text:
                count(len(text))

    loop = asyncio.get_running_loop()
    listening = asyncio.create_task(listen())
    due = loop.time()
    press_at = due + KEY_EVERY_S * (number % 20) / 20
    try:
        while True:
            await socket.send(frame)
            if due >= press_at:
                press_at += KEY_EVERY_S
                await socket.send(key)
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))
    finally:
        listening.cancel()
        await socket.close()


async def _measure(host: psutil.Process, address: str, transport: str, calls: int, *, seconds: float) -> None:
    arrived = [0]

    def count(size: int) -> None:
        arrived[0] += size

    tasks = [asyncio.create_task(_talk(address, transport, number, count)) for number in range(calls)]
    await asyncio.sleep(SETTLE_S)
    before, began, arrived[0] = sum(host.cpu_times()[:2]), time.monotonic(), 0
    await asyncio.sleep(seconds)
    used_s, took_s = sum(host.cpu_times()[:2]) - before, time.monotonic() - began
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [fault for fault in done if not isinstance(fault, asyncio.CancelledError)]
    print(
        f"{transport:15} {used_s * 1000 / took_s / calls:6.2f} ms of CPU time a call-second, "
        f"{used_s / took_s:.0%} of a core, {arrived[0] / took_s / calls:.0f} B/s of audio messages"
        + (f", faults: {faults}" if faults else "")
    )


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    """Run the host in a process of its own. Yield (its HOST:PORT, the id of the process)."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.phone_cost", "--serve", str(port)]
    server = await asyncio.create_subprocess_exec(*command)
    try:
        address = f"127.0.0.1:{port}"
        async with asyncio.timeout(60), httpx2.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"http://{address}/v1/places")
                    break
                except httpx2.HTTPError:
                    await asyncio.sleep(0.2)
        yield address, server.pid
    finally:
        server.terminate()
        await server.wait()


async def _compare(calls: int, seconds: float, rounds: int) -> None:
    async with serving() as (address, pid):
        for _ in range(rounds):
            for transport in TRANSPORTS:
                await _measure(psutil.Process(pid), address, transport, calls, seconds=seconds)
                await asyncio.sleep(1.0)


def main() -> None:
    """Read the command line, and measure each transport in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", type=int, default=0, help="internal: run the host on this port")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.serve) if options.serve else _compare(options.calls, options.seconds, options.rounds))


if __name__ == "__main__":
    main()
