"""`rejoinder chat` against the real HTTP application with fake stages: spoken and typed turns, and its errors."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Callable

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loadtest.callers.openai_caller import ServerAddress
from rejoinder.cli.chat import hold
from rejoinder.cli.main import app
from rejoinder.core.errors import BackendError, ConfigError
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.loadtest.callers.scene import silence, tone
from tests.loadtest.callers.server import listening

FRAME_BYTES = 960


class FakeCard:
    """A sound card whose microphone speaks given audio in real time, then silence."""

    output_latency_s = 0.0

    def __init__(self, pcm: bytes) -> None:
        self.played = bytearray()
        self.sent: list[bytes] = []
        self._frames = deque(pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES))
        self._due = asyncio.get_running_loop().time()

    async def record(self) -> bytes:
        self._due += 0.02
        await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
        return self._frames.popleft() if self._frames else bytes(FRAME_BYTES)

    def play(self, pcm: bytes) -> None:
        self.played += pcm

    def stop(self) -> None:
        self.played.clear()


class Output(io.StringIO):
    """Printed text that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = asyncio.Event()

    def write(self, text: str) -> int:
        self._printed.set()
        return super().write(text)

    async def until(self, word: str, timeout_s: float = 20.0) -> None:
        """Wait until `word` was printed. Raise TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            while word not in self.getvalue():
                self._printed.clear()
                await self._printed.wait()


def the_lines(*lines: str) -> Callable[[], str]:
    """Return a function that returns the next typed line at each call, and "" after the last."""
    rest = deque(lines)
    return lambda: rest.popleft() + "\n" if rest else ""


async def test_a_spoken_turn_is_played_and_printed_with_its_stages() -> None:
    """A sentence into the microphone: both transcripts and the waterfall are printed, and the reply is played."""
    play = Play(stt=ScriptedStt(deque(["What time is it?"])), llm=WordyLlm("It is noon, go and eat."))
    output = Output()
    async with listening(play) as (url, _):
        card = FakeCard(silence(0.5) + tone(0.8))
        console = Console(file=output, width=120)
        chatting = asyncio.create_task(hold(console, ServerAddress(url), card))
        await output.until("voice to voice")
        chatting.cancel()
        await asyncio.gather(chatting, return_exceptions=True)
    printed = output.getvalue()
    assert "you        What time is it?" in printed
    assert "rejoinder  It is noon, go and eat." in printed
    assert "tts_first_audio" in printed
    assert any(card.played)


async def test_typed_turns_are_answered_one_after_the_other() -> None:
    """Two typed turns are answered and the time to the first audio is printed. An empty line is no turn."""
    play = Play(llm=WordyLlm("It is noon, go and eat."))
    output = Output()
    async with listening(play) as (url, _), asyncio.timeout(30):
        console = Console(file=output, width=120)
        await hold(console, ServerAddress(url), None, read_line=the_lines("What time is it?", " ", "And now?"))
    assert output.getvalue().count("rejoinder  It is noon, go and eat.") == 2
    assert output.getvalue().count("first audio") == 2


async def test_no_server_is_an_error_with_its_remedy() -> None:
    """If no server listens, the error says how to start one."""
    with pytest.raises(BackendError, match="rejoinder serve"):
        await hold(Console(file=io.StringIO()), ServerAddress("ws://127.0.0.1:9/v1"), None, read_line=the_lines())


def test_an_invalid_url_names_its_option() -> None:
    """A URL that is not a WebSocket URL is refused before anything is opened."""
    result = CliRunner().invoke(app, ["chat", "--typed", "--mute", "--url", "http://127.0.0.1"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.field == "--url"
