"""A caller on a virtual Ethernet pair: sends recorded speech, receives the answers, logs the size of every message.

All times are in seconds since the Unix epoch (`time.time`), like those of the packet capture. Caller and capture run on
one machine, so they share one clock.
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
# Timeout for a complete answer, in seconds.
ANSWER_S = 60.0
# Pause between the end of an answer's playout and the next sentence, in seconds.
THINK_S = 0.5


@dataclass(frozen=True, slots=True)
class AudioPath:
    """How a call transports its audio: format, message length, encryption and muting.

    Attributes:
        wire: Audio format in both directions.
        message_ms: Milliseconds of audio per message from the caller.
        tls: True if the connection uses TLS.
        muted: True if the caller sends no audio from the start of an answer until its own next sentence.
    """

    wire: AudioFormat
    message_ms: int
    tls: bool = False
    muted: bool = False

    @property
    def name(self) -> str:
        """Label in tables, such as `G.711 mu-law, 20 ms up, TLS`."""
        codec = {"audio/pcm": "PCM16 24 kHz", "audio/pcmu": "G.711 mu-law", "audio/pcma": "G.711 A-law"}
        parts = [codec[self.wire.value], f"{self.message_ms} ms up"]
        return ", ".join([*parts, *(["TLS"] if self.tls else []), *(["muted between turns"] if self.muted else [])])


@dataclass(frozen=True, slots=True)
class WireMessage:
    """One WebSocket text message of a call.

    Attributes:
        at: Time of sending or receiving, in seconds since the Unix epoch.
        length: Number of characters of the JSON text.
        audio: Number of bytes of coded audio in the message, before base64 encoding. 0 for messages without audio.
    """

    at: float
    length: int
    audio: int = 0


@dataclass(slots=True)
class BandwidthCall:
    """Log of one call. All times are in seconds since the Unix epoch (`time.time`).

    Attributes:
        path: How the call transported its audio.
        port: The caller's TCP port.
        began: Time at which the caller began to send audio, after the session was configured.
        ended: Time at which the last turn ended.
        sent: Messages with audio that the caller sent, in order.
        received: All messages that the server sent, in order.
        spoken: (start, end) of each of the caller's sentences. A sentence ends `path.message_ms` after its last message
            was sent.
        heard: (start, end) of each answer: the arrival times of its `response.created` and its `response.done`.
    """

    path: AudioPath
    port: int = 0
    began: float = 0.0
    ended: float = 0.0
    sent: list[WireMessage] = field(default_factory=list)
    received: list[WireMessage] = field(default_factory=list)
    spoken: list[tuple[float, float]] = field(default_factory=list)
    heard: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Length of the call in seconds."""
        return self.ended - self.began

    @property
    def spoken_s(self) -> float:
        """Length of all of the caller's sentences in seconds."""
        return sum(end - start for start, end in self.spoken)

    @property
    def heard_s(self) -> float:
        """Length of the audio of all answers in seconds."""
        return sum(message.audio for message in self.received) / (self.path.wire.rate * self.path.wire.sample_bytes)


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Server to call, and sentences to speak.

    Attributes:
        side: The caller's end of the virtual Ethernet pair.
        address: The server's IPv4 address.
        port: The server's port: a TLS port if the call's path uses TLS, else a plain one.
        utterances: One sentence per turn: 16-bit samples at the sample rate of the path's audio format.
        trust: TLS settings that accept the server's certificate. Used only if the path uses TLS.
    """

    side: Side
    address: str
    port: int
    utterances: tuple[Pcm, ...]
    trust: ssl.SSLContext | None = None


async def hold_call(path: AudioPath, target: CallTarget) -> BandwidthCall:
    """Make one call with one turn per sentence in `target.utterances`, and return its log.

    Raises:
        BackendError: An answer did not complete within `ANSWER_S`, or the server sent an error event.
    """
    call = BandwidthCall(path)
    sock = target.side.socket(socket.SOCK_STREAM)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (target.address, target.port))
    scheme = "wss" if path.tls else "ws"
    url = f"{scheme}://{target.address}:{target.port}/v1/realtime"
    trust = target.trust if path.tls else None
    async with connect(url, sock=sock, ssl=trust, compression=None, max_size=None, ping_interval=None) as connection:
        call.port = connection.local_address[1]
        try:
            await _Conversation(call, connection).run(target.utterances)
        except* TimeoutError:
            raise BackendError("a call was not answered in time.", "See the server's output.", stage="call") from None
        except* BackendError as errors:
            raise first(errors) from None
    return call


def first(group: BaseExceptionGroup[BackendError]) -> BackendError:
    """Return the first BackendError in an exception group. If the first entry is a group, search inside it."""
    error = group.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error


class _Conversation:
    """Tasks of one call: one sends audio at fixed deadlines, one receives events, and one runs the turns."""

    def __init__(self, call: BandwidthCall, connection: ClientConnection) -> None:
        self._call = call
        self._connection = connection
        self._speech: deque[bytes] = deque()
        self._event_received = asyncio.Event()
        self._event_times: defaultdict[str, list[float]] = defaultdict(list)
        self._answering = False
        self._sentence_began: float | None = None
        self._plays_until = 0.0

    async def run(self, utterances: Sequence[Pcm]) -> None:
        """Run one turn per utterance. Raise TimeoutError if an answer is not complete within `ANSWER_S`."""
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
        formats = {"format": self._call.path.wire.wire()}
        session = {"type": "realtime", "audio": {"input": formats, "output": formats}}
        await self._connection.send(json.dumps({"type": "session.update", "session": session}))
        await self._until("session.updated", 1)

    async def _take_turn(self, utterance: Pcm, turn: int) -> None:
        self._answering = False
        self._speech.extend(messages(self._call.path, utterance))
        await self._until("response.done", turn)
        self._call.heard.append(
            (self._event_times["response.created"][turn - 1], self._event_times["response.done"][turn - 1])
        )
        await asyncio.sleep(max(0.0, self._plays_until - time.time()) + THINK_S)

    async def _until(self, kind: str, count: int) -> None:
        async with asyncio.timeout(ANSWER_S):
            while len(self._event_times[kind]) < count:
                self._event_received.clear()
                await self._event_received.wait()

    async def _send(self) -> None:
        path, loop = self._call.path, asyncio.get_running_loop()
        silence = messages(path, np.zeros(path.wire.rate * path.message_ms // 1000, np.int16))[0]
        began, number = loop.time(), 0
        while True:
            muted = path.muted and self._answering
            speaking = bool(self._speech)
            audio = self._speech.popleft() if speaking else b"" if muted else silence
            if audio:
                text = APPEND % base64.b64encode(audio).decode()
                self._call.sent.append(WireMessage(time.time(), len(text), len(audio)))
                if speaking:
                    self._log_speech(self._call.sent[-1].at)
                await self._connection.send(text)
            number += 1
            await asyncio.sleep(max(0.0, began + number * path.message_ms / 1000 - loop.time()))

    def _log_speech(self, at: float) -> None:
        """Update the call's list `spoken`, the (start, end) times of the caller's sentences, for a message with speech.

        `at` is the time of sending, in seconds since the Unix epoch. The first message of a sentence adds an entry, and
        each later message moves the end of that entry.
        """
        due = at + self._call.path.message_ms / 1000
        if self._sentence_began is None:
            self._sentence_began = at
            self._call.spoken.append((at, due))
        else:
            self._call.spoken[-1] = (self._sentence_began, due)
        if not self._speech:
            self._sentence_began = None

    async def _listen(self) -> None:
        async for text in self._connection:
            now, event = time.time(), json.loads(text)
            audio = len(base64.b64decode(event["delta"])) if event["type"] == "response.output_audio.delta" else 0
            self._call.received.append(WireMessage(now, len(text), audio))
            if audio:
                wire = self._call.path.wire
                self._plays_until = max(now, self._plays_until) + audio / (wire.rate * wire.sample_bytes)
            if event["type"] == "response.created":
                self._answering = True
            if event["type"] == "error":
                raise BackendError(f"the server sent an error: {event['error']['message']}", stage="call")
            self._event_times[event["type"]].append(now)
            self._event_received.set()


def messages(path: AudioPath, pcm: Pcm) -> list[bytes]:
    """Split 16-bit audio into messages of `path.message_ms` and return them, encoded in the path's audio format.

    The last message is padded with silence.
    """
    law, size = path.wire.law, path.wire.rate * path.message_ms // 1000
    padded = np.concatenate([pcm, np.zeros(-pcm.size % size, np.int16)])
    parts = [padded[start : start + size].astype("<i2").tobytes() for start in range(0, padded.size, size)]
    return [law.encode(part) if law else part for part in parts]
