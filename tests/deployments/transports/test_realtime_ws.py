"""Tests of the WebSocket transport: audio formats that change during a call."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from deployments.transports.realtime_ws import AGENT_ENDED, CLOSE_S, RealtimeSocket
from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.settings.settings import Settings
from rejoinder.core.wire.formats import AudioFormat, WireEncoder
from rejoinder.core.wire.session import SessionConfig
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

SPEECH_S = 1.0


class ScriptedSocket:
    """Client that sends its messages without waiting, then listens for `listen_s` and disconnects.

    `end` has the further fields of the ASGI message about that; by default those of a connection that broke.
    """

    def __init__(self, messages: list[dict[str, Any]], listen_s: float, end: Mapping[str, Any] | None = None) -> None:
        self._end = end or {"code": 1005}
        self._messages = [json.dumps(message) for message in messages]
        self._listen_s = listen_s
        self.events: list[dict[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        if self._messages:
            return {"type": "websocket.receive", "text": self._messages.pop(0)}
        await asyncio.sleep(self._listen_s)
        return {"type": "websocket.disconnect", **self._end}

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
        await RealtimeSocket(socket, host, SessionConfig()).converse()
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
        await RealtimeSocket(socket, host, SessionConfig()).converse()
    assert not socket.of("error")
    assert [len(job.pcm) for job in play.stt.jobs] == [9 * 16_000 * 2]


@pytest.mark.parametrize(
    ("end", "hung_up"),
    [
        ({"code": 1000, "reason": ""}, 1),
        ({"code": 1001, "reason": ""}, 1),
        ({"code": 1005, "reason": ""}, 1),
        ({"code": 1000, "reason": AGENT_ENDED}, 0),
        ({"code": 1011, "reason": ""}, 0),
        ({"code": 1005}, 0),
    ],
    ids=str,
)
@virtual
async def test_a_client_hangs_up_by_closing_the_connection(end: dict[str, Any], hung_up: int) -> None:
    """A close frame without a code hangs up.

    The agent's own hang-up, a broken connection and a failed client are not counted.
    """
    play = Play()
    async with play.open() as host:
        await RealtimeSocket(ScriptedSocket([], 1, end), host, SessionConfig()).converse()
    assert play.metrics.counts["hung up before_reply after 0"] == hung_up


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
        await RealtimeSocket(socket, host, SessionConfig()).converse()
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
        await RealtimeSocket(socket, host, SessionConfig()).converse()
    assert not socket.of("error")
    assert np.abs(np.frombuffer(play.stt.jobs[-1].pcm, "<i2")).max() <= 5


class ClosableSocket:
    """Client that sends a message each `every_s` seconds, and reads events only if `reads` is True.

    A client that does not read never lets the server send anything, not even a close frame.
    """

    def __init__(self, message: dict[str, Any] | None, every_s: float, *, reads: bool) -> None:
        self._message = message
        self._every_s = every_s
        self._reads = reads
        self.closed: tuple[int, str | None] | None = None
        self.sent = 0
        self.aborted_after: float | None = None

    def when_stopped(self, act: object) -> None: ...
    def when_pinged(self, act: object) -> None: ...

    async def receive(self) -> Mapping[str, Any]:
        if self._message is None:
            await asyncio.Event().wait()
        await asyncio.sleep(self._every_s)
        return {"type": "websocket.receive", "text": json.dumps(self._message)}

    async def send_text(self, data: str) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.sent += len(data)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.closed = (code, reason)

    def attend(self, take: Any) -> None: ...
    def answered(self) -> None: ...
    def charge(self, size: int) -> None: ...

    def abort_after(self, seconds: float) -> None:
        self.aborted_after = seconds


UPDATE = {"type": "session.update", "session": {"type": "realtime"}}


async def _converse(socket: ClosableSocket, limits: LimitSettings) -> tuple[float, Play]:
    """Run a conversation with a socket until the server ends it. Return its length in seconds, and the scenario."""
    play, loop = Play(settings=Settings(limits=limits)), asyncio.get_running_loop()
    async with play.open() as host:
        began = loop.time()
        await RealtimeSocket(socket, host, SessionConfig(), socket).converse()
        assert host.services.stored.used == 0
        return loop.time() - began, play


@virtual
async def test_a_client_that_reads_nothing_is_dropped() -> None:
    """A client that sends and never reads is dropped after `unread_s`, though no close frame can reach it."""
    socket = ClosableSocket(UPDATE, 1, reads=False)
    took, play = await _converse(socket, LimitSettings(unread_s=10))
    assert 10 <= took <= 12 + CLOSE_S
    assert socket.aborted_after == 0
    assert play.metrics.counts["caller unread"] == 1


@virtual
async def test_unread_events_have_a_maximum_size() -> None:
    """A client that never reads is dropped when its events take `unsent_bytes`, though they are few."""
    instructions = {"type": "session.update", "session": {"type": "realtime", "instructions": "x" * 90_000}}
    socket = ClosableSocket(instructions, 0.01, reads=False)
    took, play = await _converse(socket, LimitSettings(unsent_bytes=1_000_000))
    assert took <= 0.2 + CLOSE_S
    assert socket.aborted_after == 0
    assert play.metrics.counts["caller slow_client"] == 1


@virtual
async def test_a_silent_client_gives_its_place_back() -> None:
    """A connection without any message ends after `first_event_s` with code 1001 and a reason."""
    socket = ClosableSocket(None, 0, reads=True)
    took, _ = await _converse(socket, LimitSettings(first_event_s=30))
    assert 30 <= took <= 32
    assert socket.closed == (1001, "the client sent no event and no audio")


@virtual
async def test_an_idle_client_gives_its_place_back() -> None:
    """A session ends when its client has sent nothing for `idle_s`, and not while it sends."""

    class Quitting(ClosableSocket):
        async def receive(self) -> Mapping[str, Any]:
            if asyncio.get_running_loop().time() > began + 1000:
                await asyncio.Event().wait()
            return await super().receive()

    began = asyncio.get_running_loop().time()
    socket = Quitting(UPDATE, 20, reads=True)
    took, _ = await _converse(socket, LimitSettings(idle_s=60))
    assert 1060 <= took <= 1100
    assert socket.closed == (1001, "the client sent no event and no audio")


@virtual
async def test_a_large_audio_message_lets_other_calls_run() -> None:
    """While a message with five minutes of audio is decoded, other tasks of the event loop run many times."""
    manual = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}}
    audio = {
        "event_id": "e",
        "type": "input_audio_buffer.append",
        "audio": base64.b64encode(bytes(14_400_000)).decode(),
    }
    turns = 0
    turns_at: list[int] = []

    class Noting(ScriptedSocket):
        async def receive(self) -> Mapping[str, Any]:
            turns_at.append(turns)
            return await super().receive()

    async def other() -> None:
        nonlocal turns
        for _ in range(2000):
            await asyncio.sleep(0)
            turns += 1

    socket = Noting([manual, audio, {"type": "input_audio_buffer.commit"}], 5)
    play = Play()
    async with play.open() as host:
        running = asyncio.create_task(other())
        await RealtimeSocket(socket, host, SessionConfig()).converse()
        await running
    assert not socket.of("error")
    # Long speech is transcribed in parts.
    assert sum(len(job.pcm) for job in play.stt.jobs) >= 14_400_000 * 2 // 3
    assert turns_at[2] - turns_at[1] > 200


@virtual
async def test_a_burst_of_items_lets_other_calls_run() -> None:
    """Between two messages of a burst, such as a long history, other calls are served."""
    received = 0
    seen: set[int] = set()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}

    class Noting(ScriptedSocket):
        async def receive(self) -> Mapping[str, Any]:
            nonlocal received
            received += 1
            return await super().receive()

    async def other() -> None:
        for _ in range(3000):
            seen.add(received)
            await asyncio.sleep(0)

    play = Play()
    async with play.open() as host:
        socket = Noting([{"type": "conversation.item.create", "item": item}] * 200, 1.0)
        task = asyncio.create_task(other())
        with host.seat():
            await RealtimeSocket(socket, host, SessionConfig(model="m")).converse()
        task.cancel()
    assert len(seen) >= 200


class ForeignSocket(ScriptedSocket):
    """Client that sends other messages than events of the Realtime API."""

    closed: tuple[int, str | None] | None = None

    def __init__(self, messages: list[str | bytes]) -> None:
        super().__init__([], 5)
        self._frames = messages

    async def receive(self) -> Mapping[str, Any]:
        if not self._frames:
            return await super().receive()
        frame = self._frames.pop(0)
        return {"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame}

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed = (code, reason)


TWILIO = json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": "//8="}})


@pytest.mark.parametrize("frame", [bytes(640), TWILIO, "hello"], ids=["audio", "twilio", "text"])
@virtual
async def test_messages_of_another_protocol_end_the_connection(frame: str | bytes) -> None:
    """After ten messages in a row that are not events of this API, the connection ends with code 1003 and a reason."""
    socket = ForeignSocket([frame] * 50)
    async with Play().open() as host:
        await RealtimeSocket(socket, host, SessionConfig()).converse()
    assert socket.closed == (1003, "these are no events of the OpenAI Realtime API")
    assert len(socket.of("error")) == 10


@virtual
async def test_a_client_with_some_broken_messages_stays() -> None:
    """Broken messages between valid ones get an error each and do not end the connection."""
    broken: list[str | bytes] = ["{", TWILIO] * 4
    socket = ForeignSocket([*broken, json.dumps(UPDATE), *broken])
    async with Play().open() as host:
        await RealtimeSocket(socket, host, SessionConfig()).converse()
    assert socket.closed is None
    assert len(socket.of("error")) == 16


@virtual
async def test_a_recording_in_an_item_has_the_input_format() -> None:
    """The audio of an item is read in the session's input format: one second of mu-law is one second of speech."""
    clip = {"type": "input_audio", "audio": base64.b64encode(bytes(8000)).decode()}
    item = {"type": "message", "role": "user", "content": [clip]}
    socket = ScriptedSocket([_format(AudioFormat.PCMU), {"type": "conversation.item.create", "item": item}], 5)
    play = Play()
    async with play.open() as host:
        await RealtimeSocket(socket, host, SessionConfig()).converse()
    assert not socket.of("error")
    assert [len(job.pcm) for job in play.stt.jobs] == [pytest.approx(32_000, abs=100)]
