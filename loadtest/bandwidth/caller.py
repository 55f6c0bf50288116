"""One caller over the pair: real speech up, our server's answers down, and a log of every message's size.

Times are the wall clock's, as the capture's are; caller and capture run on one machine.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from loadtest.bandwidth.netns import Side
from loadtest.bandwidth.speech import Pcm
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.formats import AudioFormat

APPEND = '{"type":"input_audio_buffer.append","audio":"%s"}'
# An answer that has not ended by then never will.
ANSWER_S = 60.0
THINK_S = 0.5


@dataclass(frozen=True, slots=True)
class AudioPath:
    """How a caller's audio travels. `muted`: nothing is sent between a turn's end and the next one's beginning."""

    wire: AudioFormat
    message_ms: int
    tls: bool = False
    muted: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        codec = {"audio/pcm": "PCM16 24 kHz", "audio/pcmu": "G.711 mu-law", "audio/pcma": "G.711 A-law"}
        parts = [codec[self.wire.value], f"{self.message_ms} ms up"]
        return ", ".join([*parts, *(["TLS"] if self.tls else []), *(["muted between turns"] if self.muted else [])])


@dataclass(frozen=True, slots=True)
class WireMessage:
    """One WebSocket message; `audio`: bytes of coded audio inside its base64."""

    at: float
    length: int
    audio: int = 0


@dataclass(slots=True)
class BandwidthCall:
    """What was said and heard. `spoken`: from the first message of each sentence to where the one after its last was
    due; `heard`: from the first event of each answer to its last.
    """

    line: AudioPath
    port: int = 0
    began: float = 0.0
    ended: float = 0.0
    sent: list[WireMessage] = field(default_factory=list)
    received: list[WireMessage] = field(default_factory=list)
    spoken: list[tuple[float, float]] = field(default_factory=list)
    heard: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def spoken_s(self) -> float:
        """Seconds in which the caller spoke."""
        return sum(end - start for start, end in self.spoken)

    @property
    def heard_s(self) -> float:
        """Seconds of answer."""
        return sum(message.audio for message in self.received) / (self.line.wire.rate * self.line.wire.sample_bytes)


@dataclass(frozen=True, slots=True)
class Appointment:
    """Where and what to call: the server's port by whether it speaks TLS, and the sentences, at the line's rate."""

    side: Side
    address: str
    port: int
    utterances: tuple[Pcm, ...]
    trust: ssl.SSLContext | None = None


async def hold_call(line: AudioPath, appointment: Appointment) -> BandwidthCall:
    """One conversation, a turn an utterance; raises BackendError if an answer does not come."""
    call = BandwidthCall(line)
    door = appointment.side.socket(socket.SOCK_STREAM)
    door.setblocking(False)
    await asyncio.get_running_loop().sock_connect(door, (appointment.address, appointment.port))
    scheme = "wss" if line.tls else "ws"
    url = f"{scheme}://{appointment.address}:{appointment.port}/v1/realtime"
    trust = appointment.trust if line.tls else None
    async with connect(url, sock=door, ssl=trust, compression=None, max_size=None, ping_interval=None) as connection:
        call.port = connection.local_address[1]
        try:
            await _Talk(call, connection).run(appointment.utterances)
        except* TimeoutError:
            raise BackendError("a call was not answered in time.", "See the server's output.", stage="call") from None
        except* BackendError as refused:
            raise first(refused) from None
    return call


def first(group: BaseExceptionGroup[BackendError]) -> BackendError:
    """One of the errors that tasks ended with at the same time."""
    found = group.exceptions[0]
    return first(found) if isinstance(found, BaseExceptionGroup) else found


class _Talk:
    """A microphone that sends on absolute deadlines for the whole call, an ear, and the turns between them."""

    def __init__(self, call: BandwidthCall, connection: ClientConnection) -> None:
        self._call = call
        self._connection = connection
        self._speech: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._answering = False
        self._began: float | None = None
        self._plays_until = 0.0

    async def run(self, utterances: Sequence[Pcm]) -> None:
        """Raises TimeoutError when the server does not answer."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            await self._configure()
            self._call.began = time.time()
            speaking = group.create_task(self._send())
            for turn, utterance in enumerate(utterances, 1):
                await self._take_turn(utterance, turn)
            self._call.ended = time.time()
            speaking.cancel()
            listening.cancel()

    async def _configure(self) -> None:
        formats = {"format": self._call.line.wire.wire()}
        session = {"type": "realtime", "audio": {"input": formats, "output": formats}}
        await self._connection.send(json.dumps({"type": "session.update", "session": session}))
        await self._until("session.updated", 1)

    async def _take_turn(self, utterance: Pcm, turn: int) -> None:
        self._answering = False
        self._speech.extend(messages(self._call.line, utterance))
        await self._until("response.done", turn)
        self._call.heard.append((self._seen["response.created"][turn - 1], self._seen["response.done"][turn - 1]))
        await asyncio.sleep(max(0.0, self._plays_until - time.time()) + THINK_S)

    async def _until(self, kind: str, count: int) -> None:
        async with asyncio.timeout(ANSWER_S):
            while len(self._seen[kind]) < count:
                self._news.clear()
                await self._news.wait()

    async def _send(self) -> None:
        line, loop = self._call.line, asyncio.get_running_loop()
        silence = messages(line, np.zeros(line.wire.rate * line.message_ms // 1000, np.int16))[0]
        began, number = loop.time(), 0
        while True:
            muted = line.muted and self._answering
            speaking = bool(self._speech)
            audio = self._speech.popleft() if speaking else b"" if muted else silence
            if audio:
                text = APPEND % base64.b64encode(audio).decode()
                self._call.sent.append(WireMessage(time.time(), len(text), len(audio)))
                if speaking:
                    self._spoke(self._call.sent[-1].at)
                await self._connection.send(text)
            number += 1
            await asyncio.sleep(max(0.0, began + number * line.message_ms / 1000 - loop.time()))

    def _spoke(self, at: float) -> None:
        """A message of speech left: the sentence's first, or the next one of it."""
        due = at + self._call.line.message_ms / 1000
        if self._began is None:
            self._began = at
            self._call.spoken.append((at, due))
        else:
            self._call.spoken[-1] = (self._began, due)
        if not self._speech:
            self._began = None

    async def _listen(self) -> None:
        async for text in self._connection:
            now, event = time.time(), json.loads(text)
            audio = len(base64.b64decode(event["delta"])) if event["type"] == "response.output_audio.delta" else 0
            self._call.received.append(WireMessage(now, len(text), audio))
            if audio:
                wire = self._call.line.wire
                self._plays_until = max(now, self._plays_until) + audio / (wire.rate * wire.sample_bytes)
            if event["type"] == "response.created":
                self._answering = True
            if event["type"] == "error":
                raise BackendError(f"the server refused: {event['error']['message']}", stage="call")
            self._seen[event["type"]].append(now)
            self._news.set()


def messages(line: AudioPath, pcm: Pcm) -> list[bytes]:
    """Coded audio, a message each; the last one is filled up with silence."""
    law, size = line.wire.law, line.wire.rate * line.message_ms // 1000
    padded = np.concatenate([pcm, np.zeros(-pcm.size % size, np.int16)])
    parts = [padded[start : start + size].astype("<i2").tobytes() for start in range(0, padded.size, size)]
    return [law.encode(part) if law else part for part in parts]
