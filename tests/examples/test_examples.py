"""Tests of every example and of the README's client against a real server with fake or emulated stages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from collections import deque
from pathlib import Path

import httpx2
import pytest
import yaml

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from cluster.config_file import read_config
from cluster.environment import free_port
from deployments.llm import open_engine
from loadtest.results.result import RunResult
from loadtest.scenario.clips import write_wave
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.settings.serve_file import parse_serve_file
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.journal_table import JournalTable
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.replying.test_backend_faults import EventLlm
from tests.actors.stage_play import Play
from tests.loadtest.callers.scene import tone
from tests.loadtest.callers.server import listening, relayed

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUESTION, ANSWER = "What time is it?", "It is noon."
LINES_OF_THE_README_CLIENT = 13


def _play() -> Play:
    """Return a test scenario with fakes: any speech is transcribed as QUESTION and answered with ANSWER."""
    return Play(stt=ScriptedStt(deque([QUESTION])), llm=WordyLlm(ANSWER))


def _block(language: str) -> str:
    """Return the text of the README's only code block in this language."""
    [code] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(code)


async def _run(*command: str, folder: Path) -> str:
    """Run a command in `folder` and return what it printed. Fail if it takes over 60 s or exits with an error."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def test_the_example_with_a_tool_speaks_its_result(tmp_path: Path) -> None:
    """The stock OpenAI client runs the function that the model calls, and prints the answer to its result."""
    call = ToolCall("get_time", '{"city": "paris"}')
    llm = EventLlm(ANSWER, scripts=[(TokenDelta("", 0, "tool_calls", LlmUsage(9, 9), calls=(call,)),)])
    write_wave(tmp_path / "question.wav", tone(1.0))
    play = Play(stt=ScriptedStt(deque([QUESTION])), llm=llm)
    async with listening(play) as (url, _):
        script = str(EXAMPLES / "python_tools" / "agent.py")
        api = f"ws://{url.split('/')[2]}/v1"
        printed = await _run(sys.executable, script, "question.wav", "--url", api, folder=tmp_path)
    called, answer = printed.splitlines()
    assert called == 'call:      get_time {"city": "paris"}'
    assert answer == f"rejoinder: {ANSWER}"
    *_, result = llm.requests[-1][1].messages
    assert (result.role, result.content[-9:]) == ("tool", " in Paris")


async def test_the_client_in_the_readme_prints_the_answer(tmp_path: Path) -> None:
    """The README's client, at most 13 lines long, sends question.wav and prints the words of the answer."""
    code = _block("python")
    assert sum(bool(line) for line in code.splitlines()) <= LINES_OF_THE_README_CLIENT
    write_wave(tmp_path / "question.wav", tone(1.0))
    async with listening(_play()) as (url, _):
        (tmp_path / "client.py").write_text(code.replace("127.0.0.1:8000", url.split("/")[2]), encoding="utf-8")
        printed = await _run(sys.executable, "client.py", folder=tmp_path)
    assert printed.strip() == ANSWER


def test_the_configuration_in_the_readme_is_valid() -> None:
    """The configuration in the README is valid, and its language model reserves one L4 GPU per replica."""
    settings = parse_serve_file(yaml.safe_load(_block("yaml"))).application.args
    assert (settings.llm.engine, settings.llm.reservation.num_gpus) == ("vllm", 1)
    assert settings.llm.reservation.label_selector == {"ray.io/accelerator-type": "L4"}


@pytest.mark.timed
async def test_the_python_client_saves_the_answer(tmp_path: Path) -> None:
    """The Python example prints the transcripts of question and answer, and writes the answer to answer.wav."""
    write_wave(tmp_path / "question.wav", tone(1.0))
    client = str(EXAMPLES / "python_client" / "talk.py")
    async with listening(_play()) as (url, _):
        printed = await _run(sys.executable, client, "question.wav", "--url", url, folder=tmp_path)
    assert f"you:       {QUESTION}" in printed
    assert f"rejoinder: {ANSWER}" in printed
    with wave.open(str(tmp_path / "answer.wav")) as answer:
        assert answer.getnframes() / answer.getframerate() > 0.5


@pytest.mark.node
@pytest.mark.timed
async def test_the_javascript_client_gets_the_answer(tmp_path: Path) -> None:
    """The JavaScript example prints the transcripts of question and answer and the seconds of audio received."""
    node = shutil.which("node")
    assert node, "the marker node needs Node.js"
    write_wave(tmp_path / "question.wav", tone(1.0))
    client = str(EXAMPLES / "javascript_client" / "talk.mjs")
    async with listening(_play()) as (url, _):
        printed = await _run(node, "--experimental-websocket", client, "question.wav", url, folder=tmp_path)
    assert f"you:       {QUESTION}" in printed
    assert f"rejoinder: {ANSWER}" in printed
    assert re.search(r"[1-9]\.\d s of audio|0\.[1-9] s of audio", printed)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("after_s", "silent"),
    [(0.5, False), (2.5, False), (2.5, True)],
    ids=["in the question", "in the answer", "silent in the answer"],
)
@pytest.mark.parametrize("example", [pytest.param("js", marks=pytest.mark.node), "py"])
async def test_an_example_continues_after_a_lost_connection(
    tmp_path: Path, example: str, after_s: float, *, silent: bool
) -> None:
    """Both clients get the whole answer if their connection breaks while they ask, or while the answer is spoken.

    They also do if the server is `silent` from then on, and the connection stays open.
    """
    write_wave(tmp_path / "question.wav", tone(1.0))
    journal = Settings().journal
    table = JournalTable(journal.node_bytes, journal.keep_s)
    words = "One two three four five six seven eight."
    plays = [Play(stt=ScriptedStt(deque([QUESTION] * 3)), llm=WordyLlm(words), table=table) for _ in range(2)]
    async with (
        listening(plays[0]) as (first, host),
        listening(plays[1]) as (second, _),
        relayed(first, second) as (url, relay),
    ):
        python = (sys.executable, str(EXAMPLES / "python_client" / "talk.py"), "question.wav", "--url", url)
        node = ("node", "--experimental-websocket", str(EXAMPLES / "javascript_client" / "talk.mjs"))
        command = python if example == "py" else (*node, "question.wav", url)
        running = asyncio.create_task(_run(*command, folder=tmp_path))
        while not host.live:
            assert not running.done(), running.result()
            await asyncio.sleep(0.02)
        await asyncio.sleep(after_s)
        (relay.silence if silent else relay.cut)()
        printed = await running
    assert printed.count(QUESTION) == 1, printed
    said = " ".join(re.findall(r"rejoinder: (.*)", printed))
    assert words.endswith(said), printed
    assert "eight." in said


async def test_the_custom_engine_answers_through_its_configuration(tmp_path: Path) -> None:
    """The engine in the example's ray_config.yaml streams the words of the example's language model server."""
    port = free_port()
    text = (EXAMPLES / "custom_engine" / "ray_config.yaml").read_text(encoding="utf-8")
    (tmp_path / "ray_config.yaml").write_text(text.replace("127.0.0.1:8001", f"127.0.0.1:{port}"), encoding="utf-8")
    engine = open_engine(read_config(tmp_path / "ray_config.yaml").application.args)
    program = str(EXAMPLES / "custom_engine" / "echo_llm.py")
    server = await asyncio.create_subprocess_exec(sys.executable, program, "--port", str(port))
    try:
        await _answers(f"http://127.0.0.1:{port}/v1/models")
        await engine.check_health()
        request = LlmRequest((ChatMessage("user", "hello there"),), max_tokens=20)
        deltas = [delta async for delta in engine.stream(request)]
    finally:
        server.terminate()
        await server.wait()
    assert "".join(delta.text for delta in deltas).strip() == "You said: hello there"
    assert deltas[-1].finish == "stop"


async def _answers(url: str) -> None:
    """Wait until a GET of the URL returns status 200. Raise TimeoutError after 30 s."""
    async with asyncio.timeout(30), httpx2.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass  # the server does not listen yet
            await asyncio.sleep(0.1)


@pytest.mark.ray
@pytest.mark.models
@pytest.mark.timeout(400)
def test_the_load_test_exits_with_its_verdict(tmp_path: Path) -> None:
    """The example load test starts a server, makes calls, writes the result as JSON, and exits with its status."""
    program = str(EXAMPLES / "load_test_in_ci" / "load_test.py")
    options = ("--port", str(free_port()), "--sessions", "3", "--for", "12s", "--json", str(tmp_path / "result.json"))
    done = subprocess.run(
        (sys.executable, program, *options), cwd=ROOT, capture_output=True, text=True, timeout=380, check=False
    )
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert done.returncode == {"PASS": 0, "FAIL": 1, "INVALID": 3, "UNDECIDED": 4}[found["outcome"]], done.stdout
    assert set(found) == set(RunResult.__dataclass_fields__)
    assert found["counts"]["answered"] > 0
    assert all(found["engines"][stage].startswith("emulated") for stage in ("stt", "llm", "tts"))
