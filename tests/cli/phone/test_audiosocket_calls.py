"""Tests of calls of a scripted Asterisk through the gateway, with hosts of this process, mostly in virtual time."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import struct
from collections import deque
from typing import Any

import pytest

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.telephony.phone_webhook import ACCEPTED, FAILED, PhoneWebhook
from rejoinder.cli.phone.gateway import PhoneGateway
from rejoinder.cli.phone.session_link import SessionServer
from rejoinder.core.audio.g711 import MU_LAW
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.survival.journal_table import JournalTable
from rejoinder.core.telephony.audiosocket import HANG_UP, FrameKind, SocketFrame
from rejoinder.core.telephony.phone_tools import PhoneProfile, Transfer
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.replying.test_backend_faults import EventLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual
from tests.cli.phone.asterisk_peer import FRAME_S, HUSH, TONE, Asterisk, HostsServer, Refusing
from tests.loadtest.callers.server import listening

ANSWER = "One two three four five six seven eight nine ten eleven twelve."


def _play(*words: str, llm: WordyLlm | None = None, table: JournalTable | None = None) -> Play:
    stt = ScriptedStt(deque(words or ["What time is it?"]))
    return Play(stt=stt, llm=llm or WordyLlm(ANSWER), table=table)


def _appended(messages: list[str]) -> bytes:
    """Return the audio of the append events among the messages of a client."""
    events = [json.loads(message) for message in messages]
    return b"".join(base64.b64decode(event["audio"]) for event in events if event["type"].endswith(".append"))


@virtual
async def test_a_call_holds_a_turn_in_paced_frames() -> None:
    """A caller asks and hears the whole answer, one frame each 20 ms."""
    asterisk = Asterisk()
    async with _play().open() as host, asterisk.calling(HostsServer(host)):
        asterisk.speak(1.0)
        await asterisk.until(lambda: asterisk.heard_s > 3.0)
        await asyncio.sleep(5.0)
        assert asterisk.heard_s == pytest.approx(len(ANSWER) * 0.08, rel=0.1)
        times = asterisk.audio_times
        assert len(times) * FRAME_S <= times[-1] - times[0] + 2 * FRAME_S
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(gaps) >= FRAME_S / 2 - 1e-6
    assert asterisk.closed
    assert asterisk.got[-1][1].kind == FrameKind.HANG_UP


@virtual
async def test_mu_law_passes_the_gateway_bit_exact() -> None:
    """Audio of a mu-law telephone, which Asterisk decodes, reaches the session as the telephone has sent it."""
    asterisk = Asterisk()
    codes = bytes(code for code in range(256) if code != 0x7F) * 4  # 0x7F and 0xFF both mean zero
    pcm = MU_LAW.decode(codes + b"\xff" * (-len(codes) % 160))
    async with _play().open() as host:
        server = HostsServer(host)
        asterisk._say = [pcm[at : at + 320] for at in range(0, len(pcm), 320)]
        async with asterisk.calling(server):
            await asterisk.until(lambda: len(server.connections) == 1)
            await asterisk.until(lambda: len(_appended(server.connections[0].sent)) > 2000)
        assert _appended(server.connections[0].sent)[: len(codes)] == codes
        assert json.loads(server.connections[0].sent[0])["type"] == "session.update"


@virtual
async def test_speech_silences_the_reply() -> None:
    """After a barge-in nothing more of the reply is played, and the history has only what was heard."""
    llm = WordyLlm(ANSWER)
    asterisk = Asterisk()
    async with _play("What time is it?", "Stop that please now", llm=llm).open() as host:
        server = HostsServer(host)
        async with asterisk.calling(server):
            asterisk.speak(1.0)
            await asterisk.until(lambda: asterisk.heard_s > 1.0)
            asterisk.speak(1.5)
            await asyncio.sleep(0.3)
            count = len(asterisk.audio_times)
            await asyncio.sleep(0.5)
            assert len(asterisk.audio_times) == count
            await asterisk.until(lambda: llm.requests[-1][1].messages[-1].content.startswith("Stop"))
            heard_s = count * FRAME_S
        (truncate,) = (
            event for event in map(json.loads, server.connections[0].sent) if event["type"].endswith(".truncate")
        )
        assert truncate["audio_end_ms"] / 1000 == pytest.approx(heard_s, abs=0.05)
        said = next(message.content for message in llm.requests[-1][1].messages if message.role == "assistant")
    assert ANSWER.startswith(said)
    assert 0 < len(said) * 0.08 <= heard_s + 0.05


@virtual
async def test_keys_reach_the_model() -> None:
    """DTMF frames become a turn at #."""
    llm = WordyLlm(ANSWER)
    asterisk = Asterisk()
    async with _play(llm=llm).open() as host, asterisk.calling(HostsServer(host)):
        await asyncio.sleep(0.5)
        for key in (b"1", b"?", b"9", b"#"):
            asterisk.send(FrameKind.DTMF, key)
        await asterisk.until(lambda: asterisk.heard_s > 0.5, 5.0)
        assert "1 9 #" in llm.requests[-1][1].messages[-1].content


@virtual
async def test_a_call_goes_on_at_another_host() -> None:
    """The connection to the host breaks in the middle of the answer: the next host speaks the rest, none twice."""
    table = JournalTable(1_000_000, 120)
    first, second = _play(table=table), _play(table=table)
    asterisk = Asterisk()
    async with first.open() as one, second.open() as two:
        server = HostsServer(one, two)
        object.__setattr__(server, "urls", ["0"])
        async with asterisk.calling(server):
            asterisk.speak(1.0)
            await asterisk.until(lambda: asterisk.heard_s > 1.5)
            object.__setattr__(server, "urls", ["1"])
            server.connections[0].cut()
            await asterisk.until(lambda: len(server.connections) == 2)
            await asyncio.sleep(8.0)
            assert asterisk.heard_s == pytest.approx(len(ANSWER) * 0.08, abs=1.0)
    assert not " ".join(second.tts.texts).startswith("One")
    assert " ".join(second.tts.texts).endswith("twelve.")
    assert not any("session.update" in message for message in server.connections[1].sent)


@virtual
async def test_the_agent_hangs_up() -> None:
    """After `hang_up` the goodbye is played to its end, and then Asterisk gets the frame that hangs up."""
    call = TokenDelta("", 0, "tool_calls", LlmUsage(9, 9), calls=(ToolCall("hang_up", "{}"),))
    llm = EventLlm(ANSWER, scripts=[(TokenDelta("Goodbye then. ", 0), call)])
    asterisk = Asterisk()
    async with _play(llm=llm).open() as host:
        async with asterisk.calling(HostsServer(host), PhoneProfile(hang_up=True)):
            asterisk.speak(1.0)
            await asterisk.until(lambda: asterisk.closed)
        assert asterisk.heard_s == pytest.approx(len("Goodbye then.") * 0.08, abs=0.1)
        assert host.live == 0


@pytest.mark.parametrize("why", ["hang-up", "error", "end", "expired", "refused", "no id", "short id"])
@virtual
async def test_every_end_hangs_up(why: str) -> None:
    """Whoever ends the call, however it begins: Asterisk gets a hang-up and the session ends."""
    asterisk = Asterisk()
    async with _play().open() as host:
        server = HostsServer(host)
        if why in ("no id", "short id"):
            asterisk.send(FrameKind.AUDIO if why == "no id" else FrameKind.UUID, HUSH if why == "no id" else b"1")
        async with asterisk.calling(Refusing(["a", "b"]) if why == "refused" else server):
            if why not in ("refused", "no id", "short id"):
                await asyncio.sleep(1.0)
                if why == "end":
                    asterisk.reader.feed_eof()
                    asterisk.send = lambda *_: None  # type: ignore[method-assign]  # nothing follows the end
                elif why == "expired":
                    server.connections[0].cut(1001)
                else:
                    asterisk.send(FrameKind.HANG_UP if why == "hang-up" else FrameKind.ERROR)
            await asterisk.until(lambda: asterisk.closed, 12.0)
        assert asterisk.got[-1][1].encode() == HANG_UP
        assert len(server.connections) == (0 if why in ("refused", "no id", "short id") else 1)


async def test_the_gateway_answers_on_a_socket_and_limits_its_calls() -> None:
    """Over TCP and a real WebSocket: a pressed # is answered with audio. A call beyond the limit is hung up at once."""
    async with listening(_play(llm=WordyLlm("Yes."))) as (url, _):
        gateway = PhoneGateway(SessionServer([url]), PhoneProfile(), max_calls=1)
        async with gateway.listening("127.0.0.1", 0) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SocketFrame(FrameKind.UUID, bytes(16)).encode())
            writer.write(SocketFrame(FrameKind.AUDIO, TONE).encode())
            await asyncio.sleep(0.1)
            writer.write(SocketFrame(FrameKind.DTMF, b"#").encode())
            kind, size = struct.unpack(">BH", await reader.readexactly(3))
            assert (kind, size) == (FrameKind.AUDIO, 320)
            busy, other = await asyncio.open_connection("127.0.0.1", port)
            assert await busy.read() == HANG_UP
            other.close()
            writer.write(SocketFrame(FrameKind.HANG_UP).encode())
            assert (await reader.read()).endswith(HANG_UP)
            writer.close()
            assert gateway.live == 0


@pytest.mark.parametrize(("status", "result"), [(200, ACCEPTED), (204, ACCEPTED), (302, FAILED), (500, FAILED)])
async def test_the_webhook_decides_about_a_transfer(status: int, result: str) -> None:
    """A status from 200 to 299 accepts the transfer. The request has the call, the destination and a signature."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        requests.append(head + await reader.readexactly(length))
        location = "Location: http://127.0.0.1:1/\r\n" if status == 302 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    transfer = Transfer("call_1", "sales", "+4930", "price")
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        webhook = PhoneWebhook(f"http://127.0.0.1:{port}/x", 2.0, "secret")
        assert await webhook.transfer(transfer, "CA1", "+1") == result
    head, _, body = requests[0].partition(b"\r\n\r\n")
    found: dict[str, Any] = json.loads(body)
    assert (found["call_id"], found["to"], found["caller"]) == ("CA1", "+4930", "+1")
    assert b"sha256=" in head


async def test_a_webhook_that_does_not_answer_has_failed() -> None:
    """A silent webhook fails after its timeout, one that cannot be reached at once."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    transfer = Transfer("call_1", "sales", "+4930", "")
    async with await asyncio.start_server(silence, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert await PhoneWebhook(f"http://127.0.0.1:{port}/", 0.05).transfer(transfer, "CA1", "") == FAILED
    assert await PhoneWebhook(f"http://127.0.0.1:{port}/", 0.5).transfer(transfer, "CA1", "") == FAILED
