"""Tests of stock clients, unmodified and at pinned versions, against the real HTTP application with fake stages.

Each client holds one conversation, which its tests share. `scripts/test-clients` installs the clients.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.stages.ports import LlmRequest
from cluster.self_signed import self_signed
from rejoinder.core.reply.prompt_window import ChatMessage
from tests.clients.stand_in import (
    ANSWERS,
    FORECAST,
    HUM,
    MEMORY,
    POEM,
    QUESTIONS,
    RESULT,
    STOP,
    STORY,
    TALE,
    TIME,
    VERSES,
    WEATHER,
    knowing_play,
    spoken,
)
from tests.loadtest.callers.server import listening, relayed

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).with_name("drivers")
PYTHON = str(ROOT / ".venv-clients" / "bin" / "python")
FILES = {TIME: "time", WEATHER: "weather", STORY: "story", STOP: "stop", POEM: "poem", HUM: "hum", MEMORY: "memory"}


@dataclass(frozen=True)
class StockClient:
    """A client under test.

    Attributes:
        program: What runs its driver: the Python of the clients' environment, or Node.
        driver: File name of the driver.
        replays: Whether the client can give its history to a new session.
        splits: Whether the client makes two messages of a reply that was paused.
        tls: Whether the client connects by wss only.
        plays: Whether audio is measured where it is played. A jitter buffer stretches it a little.
    """

    program: str
    driver: str
    replays: bool = True
    splits: bool = False
    tls: bool = False
    plays: bool = False


CLIENTS = {
    "openai-python": StockClient(PYTHON, "openai_python.py", replays=False),
    "livekit": StockClient(PYTHON, "livekit_agent.py"),
    "openai-agents": StockClient(PYTHON, "openai_agent.py", replays=False),
    "pipecat": StockClient(PYTHON, "pipecat_bot.py", splits=True),
    "agents-realtime": StockClient("node", "openai_agents.mjs"),
    "openai-node": StockClient("node", "openai_node.mjs", replays=False, tls=True),
}
if shutil.which("chromium"):
    CLIENTS["agents-realtime-webrtc"] = StockClient("node", "openai_agents_webrtc.mjs", plays=True)

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]


@dataclass
class Held:
    """A conversation that a client held.

    Attributes:
        client: The client.
        seen: What the driver printed.
        requests: Requests to the language model.
        log: The end of what else the client wrote.
    """

    client: StockClient
    seen: list[dict[str, Any]] = field(default_factory=list)
    requests: list[LlmRequest] = field(default_factory=list)
    log: str = ""

    def after(self, question: str, kind: str) -> list[dict[str, Any]]:
        """Return the observations of a kind between this question and the next."""
        found, current = [], ""
        for line in self.seen:
            if line["kind"] == "asked":
                current = line["question"]
            elif line["kind"] == kind and current == FILES[question]:
                found.append(line)
        return found

    def words(self, question: str, kind: str = "agent") -> list[str]:
        """Return the transcripts of the caller or the agent after a question."""
        return [line["text"] for line in self.after(question, kind)]

    def history(self, question: str) -> tuple[ChatMessage, ...]:
        """Return the messages of the last request that this question made."""
        made = [request.messages for request in self.requests if request.messages[-1].content == question]
        assert made, f"the language model was never asked {question!r}"
        return made[-1]


@asynccontextmanager
async def _driving(client: StockClient, url: str, folder: Path, trust: dict[str, str]) -> AsyncIterator[Process]:
    """Start the driver of a client. At the end, kill it and whatever it has started."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            client.program,
            str(DRIVERS / client.driver),
            url,
            str(folder),
            cwd=folder,
            env=os.environ | {"PYTHONPATH": "", "OPENAI_AGENTS_DISABLE_TRACING": "1"} | trust,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _prepare(folder: Path) -> None:
    """Make the folder of a driver, with the questions."""
    folder.mkdir()
    for question in QUESTIONS:
        (folder / f"{FILES[question]}.pcm").write_bytes(spoken(question))


async def _hold(client: StockClient, folder: Path, ready: asyncio.Barrier) -> Held:
    """Run the driver of a client to its end, and cut its connection when it asks for that."""
    tls = self_signed(folder / "tls", ("127.0.0.1",)) if client.tls else None
    trust = {"NODE_EXTRA_CA_CERTS": str(tls.authority)} if tls else {}
    play, held = knowing_play(), Held(client)
    async with listening(play, tls=tls) as (direct, _), relayed(direct) as (url, relay):
        url = url.replace("ws:", direct.partition("//")[0])
        async with _driving(client, url, folder, trust) as process:
            assert process.stdin
            assert process.stdout
            async for line in process.stdout:
                held.seen.append(json.loads(line))
                if held.seen[-1]["kind"] == "ready":
                    await ready.wait()
                    process.stdin.write(b"\n")
                elif held.seen[-1]["kind"] == "cut":
                    relay.cut()
    held.log = (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
    assert held.seen, f"{client.driver} did not begin: {held.log}"
    held.requests = [request for _, request in play.llm.requests]
    return held


async def _hold_all(folder: Path) -> dict[str, Held]:
    """Let every client hold its conversation, all at the same time, since they mostly wait."""
    ready = asyncio.Barrier(len(CLIENTS))
    for name in CLIENTS:
        _prepare(folder / name)
    async with asyncio.timeout(110), asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(_hold(client, folder / name, ready)) for name, client in CLIENTS.items()}
    return {name: task.result() for name, task in tasks.items()}


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Held]:
    """Return the conversations that the clients held."""
    return asyncio.run(_hold_all(tmp_path_factory.mktemp("clients")))


@pytest.fixture(params=CLIENTS)
def held(request: pytest.FixtureRequest, conversations: dict[str, Held]) -> Held:
    """Return the conversation that a client held. The tests of one client share it."""
    return conversations[request.param]


def test_no_error_is_reported(held: Held) -> None:
    """The client comes to the end of its conversation and reports no error, of the server or its own."""
    assert [line for line in held.seen if line["kind"] == "error"] == [], held.log
    assert held.seen[-1]["kind"] == "end", held.log


def test_a_spoken_question_is_answered(held: Held) -> None:
    """The client has the caller's words, the answer's words and all of its audio."""
    assert held.words(TIME, "user") == [TIME]
    assert "".join(held.words(TIME)).strip() == ANSWERS[TIME]
    # The fake voice speaks for 80 ms a character.
    seconds = sum(line["bytes"] for line in held.after(TIME, "audio")) / 48_000
    assert seconds == pytest.approx(0.08 * len(ANSWERS[TIME]), abs=0.3 if held.client.plays else 0.1)


def test_a_tool_is_called_and_its_result_spoken(held: Held) -> None:
    """The client runs the tool once, with the model's arguments. The model gets its result, which is spoken."""
    (call,) = held.after(WEATHER, "tool")
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Paris"})
    (asked,) = [request for request in held.requests if request.messages[-1].role == "tool"]
    assert RESULT in asked.messages[-1].content
    assert "".join(held.words(WEATHER)).strip() == FORECAST
    assert sum(line["bytes"] for line in held.after(WEATHER, "audio")) / 48_000 > 0.07 * len(FORECAST)


def test_talking_over_a_reply_stops_it(held: Held) -> None:
    """The client stops playing within a second of the caller's words, and the model learns what was heard."""
    began = next(line["at"] for line in held.seen if line["kind"] == "asked" and line["question"] == FILES[STOP])
    stopped = held.after(STOP, "stopped")[0]["at"]
    assert stopped - began < 1.0
    heard = held.history(STOP)[-2]
    assert heard.role == "assistant"
    assert heard.content.split()[:2] == TALE.split()[:2]
    assert len(heard.content) < len(TALE) / 2
    assert "".join(held.words(STOP)).strip().endswith(ANSWERS[STOP])


def test_a_hum_does_not_end_the_reply(held: Held) -> None:
    """After "mm-hmm" over a reply, the client still gets the rest of its audio, and all of its words.

    Pipecat alone keeps two messages of it, and loses the words that were said but not played when the reply paused.
    """
    seconds = sum(line["bytes"] for line in held.after(POEM, "audio")) / 48_000
    assert seconds == pytest.approx(0.08 * len(VERSES), abs=0.3)
    words = "".join(held.words(POEM)).strip()
    assert words.endswith("A verse about number three.") if held.client.splits else words == VERSES


@pytest.mark.parametrize("held", [name for name, client in CLIENTS.items() if client.replays], indirect=True)
def test_the_history_is_replayed(held: Held) -> None:
    """After the client has given its history to a new session, the model knows what was said before, in order.

    Pipecat puts the whole history into one message, the others make an item of each.
    """
    *earlier, question = held.history(MEMORY)
    assert (question.role, question.content) == ("user", MEMORY)
    text = "\n".join(message.content for message in earlier)
    places = [text.find(words) for words in (TIME, ANSWERS[TIME], WEATHER, STORY, STOP, ANSWERS[STOP])]
    assert -1 not in places, text
    assert places == sorted(places), text
