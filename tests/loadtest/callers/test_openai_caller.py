"""`rejoinder talk` in real time against the real HTTP application with fake stages."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from loadtest.callers.openai_caller import ServerAddress, talk
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedLine
from loadtest.results.turn_record import WATERFALL, TurnRecord
from loadtest.scenario.clips import write_wave
from rejoinder.cli.talk import talk as talk_command
from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.loadtest.callers.scene import clip, silence, tone
from tests.loadtest.callers.server import free_socket, listening, scripted, send


def _wav(path: Path, pcm: bytes) -> str:
    write_wave(path, pcm)
    return str(path)


async def _command(*arguments: str) -> tuple[int, str]:
    """Run `rejoinder talk` in a separate process. Return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from rejoinder.cli.main import run; run()", "talk", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def test_a_conversation_with_a_barge_in(tmp_path: Path) -> None:
    """A second clip interrupts the reply to the first. Both turns are measured, written as JSON and recorded."""
    first = _wav(tmp_path / "first.wav", tone(0.8))
    second = _wav(tmp_path / "second.wav", silence(0.1) + tone(0.8))
    (tmp_path / "first.txt").write_text("what time is it", encoding="utf-8")
    play = Play(stt=ScriptedStt(deque(["What time is it?", "Stop, please."])), llm=WordyLlm("It is noon, go and eat."))
    async with listening(play) as (url, _):
        status, printed = await _command(
            *(first, second, "--barge-in", "2:0.5", "--url", url),
            *("--json", str(tmp_path / "out.json"), "--save", str(tmp_path / "heard")),
        )
    assert status == 0, printed
    cut, answered = json.loads((tmp_path / "out.json").read_text())
    assert tuple(cut) == tuple(TurnRecord.__dataclass_fields__)
    assert (cut["heard"], cut["expected"], cut["wer"]) == ("What time is it?", "what time is it", 0.0)
    assert (cut["interrupted"], cut["outcome"], answered["interrupted"]) == (True, "interrupted", False)
    assert cut["stop_ms"] > 0
    assert (answered["heard"], answered["answered"]) == ("Stop, please.", "It is noon, go and eat.")
    assert (answered["outcome"], answered["stop_ms"], answered["engines"]) == ("answered", None, {"llm": "fake"})
    for turn in (cut, answered):
        _check_waterfall(turn)
    names = sorted(path.name for path in (tmp_path / "heard").iterdir())
    assert names == ["conversation.wav", "reply-01.wav", "reply-02.wav"]
    assert "interrupted" in printed
    assert "failed" not in printed
    assert "What time is it?" in printed
    assert "tts_first_audio" in printed


def _check_waterfall(turn: dict[str, Any]) -> None:
    """Check that each stage takes at least its fake's time, and that all stages sum to the turn's latency."""
    stages = turn["stages_ms"]
    assert tuple(stages) == WATERFALL
    assert sum(stages.values()) == pytest.approx(turn["voice_to_voice_ms"], abs=0.01)
    # The fake stages take 40 ms (turn detector) and in parallel 150 ms (transcript), then 80 ms (first token) and 50 ms
    # (audio). 1 ms is for rounding.
    assert stages["endpoint"] + stages["stt"] >= 149
    assert stages["llm_first_token"] >= 79
    assert stages["tts_first_audio"] >= 49
    assert turn["rtt_ms"] is None or turn["rtt_ms"] > 0


async def test_an_unanswered_turn_gives_exit_status_one(tmp_path: Path) -> None:
    """An empty transcript gets no reply. After --timeout the turn is reported as unanswered and the status is 1."""
    first = _wav(tmp_path / "first.wav", tone(0.5))
    async with listening(Play(stt=ScriptedStt(deque([""])))) as (url, _):
        status, printed = await _command(first, "--url", url, "--timeout", "1", "--json", str(tmp_path / "out.json"))
    [turn] = json.loads((tmp_path / "out.json").read_text())
    assert status == 1, printed
    assert (turn["answered"], turn["voice_to_voice_ms"], turn["outcome"]) == ("", None, "unanswered")


async def test_an_unreachable_server_gives_one_line_and_exit_status_two(tmp_path: Path) -> None:
    """If the server's port is closed, the status is 2, and the output is one line with address and remedy."""
    first = _wav(tmp_path / "first.wav", tone(0.5))
    listener = free_socket()
    port = listener.getsockname()[1]
    listener.close()
    status, printed = await _command(first, "--url", f"ws://127.0.0.1:{port}/v1")
    assert status == 2
    assert len(printed.splitlines()) == 1
    assert f"No answer from ws://127.0.0.1:{port}/v1" in printed
    assert "rejoinder serve" in printed


async def _one_line(url: str, api_key: str = "none") -> list[TurnRecord]:
    call = await talk(
        ServerAddress(url, api_key), [ScriptedLine(clip(seconds=0.3))], ScriptedBehavior(timeout_s=1), lambda _: None
    )
    return call.dialogue.records()


async def test_a_full_server_reports_when_to_retry() -> None:
    """HTTP 503 becomes Overloaded with the server's Retry-After."""
    play = Play()
    play.settings = play.settings.model_copy(update={"host": play.settings.host.model_copy(update={"max_sessions": 1})})
    async with listening(play) as (url, host):
        with host.seat(), pytest.raises(Overloaded, match=r"no free session.*Try again in 5 s") as caught:
            await _one_line(url)
    assert caught.value.retry_after_s == 5


async def test_a_wrong_key_is_a_caller_error() -> None:
    """HTTP 401 becomes CallerError, which names the environment variable."""
    async with listening(Play(), keys=frozenset({"right"})) as (url, _):
        with pytest.raises(CallerError, match="REJOINDER_API_KEY"):
            await _one_line(url, "wrong")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "ws://", "ws://host:x/v1", "nonsense"])
def test_an_invalid_address_is_refused_before_connecting(url: str) -> None:
    """A server's URL must be a ws:// or wss:// URL with a host. It is checked before connecting."""
    with pytest.raises(ConfigError, match="not a WebSocket URL"):
        ServerAddress(url)


@pytest.mark.parametrize("option", ["1:1", "3:1", "2", "2:x", "2:-1", "2:inf", "two:1"])
def test_an_invalid_barge_in_is_refused(tmp_path: Path, option: str) -> None:
    """`--barge-in` must name a clip after the first and a positive time. It is checked before connecting."""
    clips = [Path(_wav(tmp_path / name, tone(0.3))) for name in ("a.wav", "b.wav")]
    with pytest.raises(ConfigError) as caught:
        talk_command(clips, barge_in=[option])
    assert caught.value.field == "--barge-in"


async def test_a_rejected_session_raises_the_server_s_message() -> None:
    """An error event instead of `session.updated` raises BackendError with the server's message."""

    async def refuse(connection: ServerConnection) -> None:
        await connection.recv()
        await send(connection, "error", error={"type": "invalid_request_error", "message": "no such voice"})
        await connection.wait_closed()

    async with scripted(refuse) as url:
        with pytest.raises(BackendError, match="no such voice"):
            await _one_line(url)


async def test_a_lost_connection_leaves_the_rest_unanswered() -> None:
    """If the server hangs up, the call ends at once with the reason and an unanswered record for each line."""

    async def hang_up(connection: ServerConnection) -> None:
        await connection.recv()
        await send(connection, "session.updated", session={"type": "realtime"})
        for _ in range(10):
            await connection.recv()
        await connection.close(1011, "out of memory")

    lines = [ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"))]
    async with scripted(hang_up) as url:
        call = await talk(ServerAddress(url), lines, ScriptedBehavior(), lambda _: None)
    assert [record.outcome for record in call.dialogue.records()] == ["unanswered", "unanswered"]
    assert any("out of memory" in fault for fault in call.dialogue.faults)
