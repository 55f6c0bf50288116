"""A server with known answer times, so that tests can compare what the generator measures with what was injected.

`python -m tests.loadtest.generator.known_server '{"median_ms": 400, ...}'` prints its port. The server recognizes a
clip by its first frame, and its end by the first frame of digital silence. The answer starts a drawn time after the
arrival of the frame with the last sample of speech.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from loadtest.scenario.utterances import FRAME_S, Utterance, default_clips, encode
from rejoinder.core.measuring.service_curves import ServiceCurve, ServiceSampler
from rejoinder.core.wire.formats import AudioFormat

DELTA_S = 0.1
LEAD_S = 0.3
# The stages that the server reports. The generator attributes the rest of the latency to delivery.
STAGES_MS = {"silence": 40, "endpoint": 40, "stt": 30, "llm_first_token": 220, "first_segment": 20}
STAGES_MS |= {"tts_first_audio": 50, "delivery": 1}
TONE = (b"\x00\x20" * 12 + b"\x00\xe0" * 12) * 100


@dataclass(frozen=True)
class Answers:
    """Settings of the answers of a `KnownServer`.

    Attributes:
        median_ms: Median of the log-normal voice-to-voice latency.
        sigma: Standard deviation of the logarithm of the latency.
        reply_s: Length of a reply in seconds.
        freeze_at_s: Time after the server's start at which the whole process stops for `freeze_s`.
        freeze_s: Length of that stop in seconds, or 0.
        swallow: Share of turns that are never answered, 0 to 1.
        refuse_above: Number of calls above which calls are refused, or 0.
        seed: Seed of everything that is drawn.
    """

    median_ms: float = 400.0
    sigma: float = 0.0
    reply_s: float = 0.6
    freeze_at_s: float = 0.0
    freeze_s: float = 0.0
    swallow: float = 0.0
    refuse_above: int = 0
    seed: int = 1


class KnownServer:
    """A WebSocket server with known answer times, as set by `Answers`. Await `run` to start it."""

    def __init__(self, settings: Answers) -> None:
        self._settings = settings
        speech = encode(default_clips(), AudioFormat.PCM)
        self._silence = speech.silence.decode()
        self._by_first_frame = {clip.messages[0].decode(): clip for clip in speech.utterances}
        self._draw = random.Random(settings.seed)
        self._service = ServiceSampler(ServiceCurve(settings.median_ms, settings.sigma), self._draw.random)
        self.live = 0

    async def converse(self, socket: ServerConnection) -> None:
        """Serve one call until the caller leaves: answer each recognized clip at its drawn time."""
        self.live += 1
        frames = 0
        clip: Utterance | None = None
        speech_end_at = 0.0
        spoken = 0
        answers: set[asyncio.Task[None]] = set()
        try:
            async for message in socket:
                text = str(message)
                if text.startswith('{"type":"session.update"'):
                    await socket.send('{"type":"session.updated","session":{}}')
                    continue
                if not text.startswith('{"type":"input_audio_buffer.append"'):
                    continue
                frames += 1
                if clip is None:
                    clip, spoken = self._by_first_frame.get(text), 0
                if clip is None:
                    continue
                if spoken == int(clip.speech_end_s / FRAME_S):
                    speech_end_at = time.monotonic()
                spoken += 1
                if text == self._silence:
                    clip = None
                    if self._draw.random() >= self._settings.swallow:
                        at = speech_end_at + self._service.next_s(1)
                        answers.add(asyncio.create_task(self._answer(socket, at, frames)))
        finally:
            self.live -= 1
            for answer in answers:
                answer.cancel()

    async def _answer(self, socket: ServerConnection, at: float, frames: int) -> None:
        async def send(event: dict[str, Any]) -> None:
            await socket.send(json.dumps(event))

        key = f"resp_{frames}"
        end_ms = round(frames * FRAME_S * 1000)
        await send({"type": "input_audio_buffer.speech_stopped", "item_id": "i", "audio_end_ms": end_ms})
        await send({"type": "response.created", "response": {"id": key}})
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        audio = base64.b64encode(TONE).decode()
        deltas = round(self._settings.reply_s / DELTA_S)
        for number in range(deltas):
            await asyncio.sleep(max(0.0, at + number * DELTA_S - LEAD_S - time.monotonic()))
            await send({"type": "response.output_audio.delta", "response_id": key, "item_id": "a", "delta": audio})
        done = {"type": "response.done", "response": {"id": key, "status": "completed"}}
        await send(done | {"rejoinder": {"stages_ms": STAGES_MS, "unattributed_ms": 0.5}})

    async def run(self) -> None:
        """Print the port and serve until the process is killed."""
        limit = self._settings.refuse_above

        async def admit(connection: ServerConnection, request: Any) -> Any:
            if request.path.startswith("/v1/models"):
                body = json.dumps({"data": [{"engines": {"all": "emulated known times"}}]})
                return connection.respond(200, body)
            return connection.respond(503, "full") if limit and self.live >= limit else None

        async with serve(self.converse, "127.0.0.1", 0, process_request=admit, compression=None) as server:
            print(server.sockets[0].getsockname()[1], flush=True)
            if self._settings.freeze_s:
                await asyncio.sleep(self._settings.freeze_at_s)
                time.sleep(self._settings.freeze_s)  # noqa: ASYNC251  # the whole process must stop
            await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(KnownServer(Answers(**json.loads(sys.argv[1]))).run())
