"""The caller of the bandwidth rows talks in turns, mutes when told to, and logs what and when it sent and heard."""

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
from loadtest.bandwidth.caller import Appointment, AudioPath, BandwidthCall, hold_call
from loadtest.bandwidth.netns import Side
from loadtest.bandwidth.rows import append_length
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.formats import AudioFormat

LINE = AudioPath(AudioFormat.PCMU, 20)
UTTERANCE = (np.sin(np.arange(2400) * 0.3) * 8000).astype(np.int16)
"""Three tenths of a second: fifteen messages."""
ANSWER_MS = 200


class Loopback(Side):
    """Sockets of the machine's own namespace."""

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        return socket.socket(socket.AF_INET, kind, socket.IPPROTO_TCP)


@dataclass
class Scripted:
    """A server that answers every 300 ms of speech with 200 ms of audio, once silence follows."""

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
async def _serving(server: Scripted, *utterances: np.ndarray[Any, np.dtype[np.int16]]) -> AsyncIterator[Appointment]:
    async with serve(server.converse, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield Appointment(Loopback("", "lo", "127.0.0.1"), "127.0.0.1", port, utterances)


@pytest.fixture(autouse=True)
def _no_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "THINK_S", 0.1)


async def _call(server: Scripted, line: AudioPath = LINE, turns: int = 2) -> BandwidthCall:
    async with _serving(server, *[UTTERANCE] * turns) as appointment:
        return await hold_call(line, appointment)


async def test_every_turn_is_spoken_and_heard() -> None:
    """Two sentences of fifteen messages, two answers of 200 ms, each with its span; all messages are logged."""
    server = Scripted()
    call = await _call(server)
    assert len(call.spoken) == len(call.heard) == 2
    for start, end in call.spoken:
        said = [message for message in call.sent if start <= message.at < end - 0.001]
        assert len(said) == 15
        assert {message.length for message in said} == {append_length(LINE.wire, 20)}
    for (_, ended), (created, done) in zip(call.spoken, call.heard, strict=True):
        answer = [message for message in call.received if created <= message.at <= done]
        assert [message.audio for message in answer] == [0, 800, 800, 0]
        assert created >= ended - 0.02
    assert call.heard_s == pytest.approx(2 * ANSWER_MS / 1000)
    assert call.began <= call.spoken[0][0]
    assert call.heard[-1][1] <= call.ended <= time.time()


async def test_it_asks_for_its_format_both_ways_and_never_for_compression() -> None:
    """What is measured is what the line's name says."""
    server = Scripted()
    await _call(server, turns=1)
    assert server.compression == []
    assert server.formats == [
        {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}
    ]


async def test_a_muted_caller_is_silent_from_the_answer_to_its_next_sentence() -> None:
    """An open microphone goes on sending; a muted one sends silence only until the answer begins."""
    muted, open_ = Scripted(), Scripted()
    quiet = await _call(muted, AudioPath(AudioFormat.PCMU, 20, muted=True))
    loud = await _call(open_)
    # What was on its way when the answer began, against all that an open microphone sends meanwhile.
    assert muted.messages_after_created < open_.messages_after_created / 2
    assert len(quiet.sent) < len(loud.sent)


async def test_a_refusal_ends_the_call() -> None:
    """An error event is a BackendError with the server's own words."""
    with pytest.raises(BackendError, match="refused: no"):
        await _call(Scripted(refuses=True))


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for an answer: BackendError."""
    monkeypatch.setattr(caller, "ANSWER_S", 0.5)

    class Mute(Scripted):
        async def _answer(self, connection: ServerConnection) -> None:
            """Say nothing."""

    with pytest.raises(BackendError, match="not answered"):
        await _call(Mute())
