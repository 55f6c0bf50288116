"""Tests of the WebSocket transport: audio formats that change during a call."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from deployments.transports.realtime_ws import RealtimeSocket
from rejoinder.core.wire.formats import AudioFormat, WireEncoder
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

SPEECH_S = 1.0


class ScriptedSocket:
    """Client that sends its messages without waiting, then listens for `listen_s` and disconnects."""

    def __init__(self, messages: list[dict[str, Any]], listen_s: float) -> None:
        self._messages = [json.dumps(message) for message in messages]
        self._listen_s = listen_s
        self.events: list[dict[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        if self._messages:
            return {"type": "websocket.receive", "text": self._messages.pop(0)}
        await asyncio.sleep(self._listen_s)
        return {"type": "websocket.disconnect"}

    async def send_text(self, data: str) -> None:
        self.events.append(json.loads(data))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        raise AssertionError(f"closed with {code}: {reason}")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of the type `kind` that the client has received."""
        return [event for event in self.events if event["type"] == kind]


def _append(wire: AudioFormat) -> list[dict[str, Any]]:
    """Return messages that append audio in a format, 100 ms each: one second of loud audio and two of silence."""
    encode = WireEncoder(wire)
    loud = (b"\0\x40" * 12 + b"\0\xc0" * 12) * 100
    return [
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(encode(pcm)).decode()}
        for pcm in [loud] * 10 + [bytes(4800)] * 20
    ]


def _format(wire: AudioFormat) -> dict[str, Any]:
    """Return a session update that sets the input format."""
    return {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"format": wire.wire()}}}}


@pytest.mark.parametrize("wire", list(AudioFormat), ids=lambda wire: wire.name)
@virtual
async def test_audio_after_an_update_is_read_in_its_format(wire: AudioFormat) -> None:
    """Audio that follows a change of format at once, without waiting for session.updated, is read in the new format."""
    socket = ScriptedSocket([_format(wire), *_append(wire)], 30)
    async with Play().open() as host:
        await RealtimeSocket(socket, host, "rejoinder").converse()
    assert socket.of("session.updated")[0]["session"]["audio"]["input"]["format"] == wire.wire()
    started, stopped = socket.of("input_audio_buffer.speech_started"), socket.of("input_audio_buffer.speech_stopped")
    assert (len(started), len(stopped)) == (1, 1)
    assert started[0]["audio_start_ms"] == 0
    assert 1000 <= stopped[0]["audio_end_ms"] <= 3000
    assert socket.of("response.done")[0]["response"]["status"] == "completed"


@virtual
async def test_formats_may_change_between_messages() -> None:
    """Each message is decoded in the format that was set last. Three formats with 3 s of audio each give 9 s."""
    formats = [AudioFormat.PCMU, AudioFormat.PCM, AudioFormat.PCMA]
    manual = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}}
    messages = [manual, *(message for wire in formats for message in (_format(wire), *_append(wire)))]
    socket = ScriptedSocket([*messages, {"type": "input_audio_buffer.commit"}], 5)
    play = Play()
    async with play.open() as host:
        await RealtimeSocket(socket, host, "rejoinder").converse()
    assert not socket.of("error")
    assert [len(job.pcm) for job in play.stt.jobs] == [9 * 16_000 * 2]


@pytest.mark.parametrize("size", [1, 883])
@virtual
async def test_messages_that_end_within_a_sample_are_heard(size: int) -> None:
    """PCM in messages of an odd number of bytes is heard as a whole: none is refused, and no sample is lost."""
    audio = b"".join(base64.b64decode(message["audio"]) for message in _append(AudioFormat.PCM)[:12])
    pieces = [audio[at : at + size] for at in range(0, len(audio), size)][: 60_000 // size]
    appends = [{"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()} for piece in pieces]
    manual = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}}
    socket = ScriptedSocket([manual, *appends, {"type": "input_audio_buffer.commit"}], 5)
    play = Play()
    async with play.open() as host:
        await RealtimeSocket(socket, host, "rejoinder").converse()
    assert not socket.of("error")
    assert len(play.stt.jobs[0].pcm) == pytest.approx(len(b"".join(pieces)) * 2 / 3, abs=4)


@pytest.mark.parametrize("kind", ["input_audio_buffer.clear", "input_audio_buffer.commit"])
@virtual
async def test_half_a_sample_does_not_survive_a_clear_or_commit(kind: str) -> None:
    """After a clear or a commit, audio begins with a whole sample, even if the audio before ended within one."""
    manual = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}}
    quiet = base64.b64encode(b"\x05\0\xfb\xff" * 12_000).decode()
    odd = base64.b64encode(bytes(9601)).decode()
    socket = ScriptedSocket(
        [
            manual,
            {"type": "input_audio_buffer.append", "audio": odd},
            {"type": kind},
            {"type": "input_audio_buffer.append", "audio": quiet},
            {"type": "input_audio_buffer.commit"},
        ],
        5,
    )
    play = Play()
    async with play.open() as host:
        await RealtimeSocket(socket, host, "rejoinder").converse()
    assert not socket.of("error")
    assert np.abs(np.frombuffer(play.stt.jobs[-1].pcm, "<i2")).max() <= 5
