"""Tests of the bandwidth caller, which speaks in turns, mutes if asked, and logs every message with its size."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from loadtest.bandwidth import caller
from loadtest.bandwidth.caller import AudioPath, BandwidthCall, CallTarget, hold_call
from loadtest.bandwidth.netns import Side
from loadtest.bandwidth.rows import append_length
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.formats import AudioFormat

PATH = AudioPath(AudioFormat.PCMU, 20)
UTTERANCE = (np.sin(np.arange(2400) * 0.3) * 8000).astype(np.int16)
"""300 ms of speech: fifteen messages."""
ANSWER_MS = 200


class Loopback(Side):
    """A caller's end of the network without a namespace: its sockets are ordinary sockets of this machine."""

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(socket.AF_INET, kind, socket.IPPROTO_TCP)


@dataclass
class ScriptedServer:
    """A server that answers 300 ms of speech with 200 ms of audio as soon as a silent message follows.

    If `refuses` is True, it sends an error event instead. It records the compression headers and audio formats that the
    caller requests, and the number of silent messages received after its answers began.
    """

    refuses: bool = False
    compression: list[str] = field(default_factory=list)
    formats: list[Any] = field(default_factory=list)
    messages_after_created: int = 0

    async def converse(self, connection: ServerConnection) -> None:
        self.compression += connection.request.headers.get_all("sec-websocket-extensions") if connection.request else []
        loud = answering = 0
        async for message in connection:
            event = json.loads(message)
            if event["type"] == "session.update":
                self.formats.append(event["session"]["audio"])
                await self._send(connection, "session.updated")
            elif self.refuses:
                await self._send(connection, "error", error={"message": "no"})
            elif len(set(base64.b64decode(event["audio"]))) > 1:
                loud += 1
            elif loud >= 15:
                loud, answering = 0, answering + 1
                await self._answer(connection)
            else:
                self.messages_after_created += answering

    async def _answer(self, connection: ServerConnection) -> None:
        await self._send(connection, "response.created")
        for _ in range(2):
            audio = base64.b64encode(bytes(ANSWER_MS // 2 * 8)).decode()
            await self._send(connection, "response.output_audio.delta", delta=audio)
        await self._send(connection, "response.done")

    async def _send(self, connection: ServerConnection, kind: str, **fields: Any) -> None:
        await connection.send(json.dumps({"type": kind} | fields))


@asynccontextmanager
async def _serving(
    server: ScriptedServer, *utterances: np.ndarray[Any, np.dtype[np.int16]]
) -> AsyncIterator[CallTarget]:
    async with serve(server.converse, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield CallTarget(Loopback("", "lo", "127.0.0.1"), "127.0.0.1", port, utterances)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "THINK_S", 0.1)


async def _call(server: ScriptedServer, path: AudioPath = PATH, turns: int = 2) -> BandwidthCall:
    async with _serving(server, *[UTTERANCE] * turns) as target:
        return await hold_call(path, target)


async def test_every_turn_is_spoken_and_heard() -> None:
    """The log of a two-turn call has the start and end of each sentence and answer, and every message."""
    server = ScriptedServer()
    call = await _call(server)
    assert len(call.spoken) == len(call.heard) == 2
    for start, end in call.spoken:
        # A sentence ends one message's length after its last message is sent. A late one is followed sooner.
        last = end - PATH.message_ms / 1000
        speech = [message for message in call.sent if start <= message.at < last + 0.0001]
        assert len(speech) == 15
        assert {message.length for message in speech} == {append_length(PATH.wire, 20)}
    for (_, ended), (created, done) in zip(call.spoken, call.heard, strict=True):
        answer = [message for message in call.received if created <= message.at <= done]
        assert [message.audio for message in answer] == [0, 800, 800, 0]
        assert created >= ended - 0.02
    assert call.heard_s == pytest.approx(2 * ANSWER_MS / 1000)
    assert call.began <= call.spoken[0][0]
    assert call.heard[-1][1] <= call.ended <= time.time()


async def test_it_asks_for_its_format_both_ways_and_never_for_compression() -> None:
    """The caller sets its audio format for both directions and does not negotiate compression."""
    server = ScriptedServer()
    await _call(server, turns=1)
    assert server.compression == []
    assert server.formats == [
        {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}
    ]


async def test_a_muted_caller_is_silent_from_the_answer_to_its_next_sentence() -> None:
    """A muted caller stops sending silence when an answer begins. An open microphone continues to send.

    During the answer and the pause after it, the muted caller sends less than half as many messages.
    """
    muted, open_ = ScriptedServer(), ScriptedServer()
    quiet = await _call(muted, AudioPath(AudioFormat.PCMU, 20, muted=True))
    loud = await _call(open_)
    # The muted caller sends only what is in transit when the answer begins. The open microphone sends during the whole
    # answer.
    assert muted.messages_after_created < open_.messages_after_created / 2
    assert len(quiet.sent) < len(loud.sent)


async def test_a_refusal_ends_the_call() -> None:
    """If the server sends an error event, the call raises BackendError with the server's message."""
    with pytest.raises(BackendError, match="sent an error: no"):
        await _call(ScriptedServer(refuses=True))


async def test_a_missing_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server does not answer within `ANSWER_S` seconds of the speech, the call raises BackendError."""
    monkeypatch.setattr(caller, "ANSWER_S", 0.5)

    class SilentServer(ScriptedServer):
        async def _answer(self, connection: ServerConnection) -> None:
            """Ignore the speech: send no answer to it."""

    with pytest.raises(BackendError, match="not answered"):
        await _call(SilentServer())
