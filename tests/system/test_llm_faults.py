"""Faults of a language model's server, end to end: a client on a WebSocket, a host, the engine and a faulty server.

Everything runs in this process. Speech synthesis is a short tone for each character. Times are a tenth of those of a
real call: a server that "stalls for 2 s" stands for one that stalls for 20 s, and the timeouts are set accordingly.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
import websockets

from actors.host import Host, synthesize_held_clips
from actors.stages.ports import ANYWHERE, Stages, TtsRequest
from actors.stages.services import Services
from deployments.llm import Llm
from deployments.local.bare_host import BareHost
from deployments.local.in_process import DirectLlm
from deployments.serving.http_routes import http_app
from deployments.transports.call_protocol import CallProtocol
from rejoinder.core.settings.settings import ConversationSettings, LlmSettings, Settings
from tests.actors.fakes import CountingMetrics, LoudnessVad, ScriptedStt, ScriptedTurn, SilentJournal
from tests.deployments.engines.llm.faulty_server import ANSWER, DONE, FaultyServer, Reply, chunk, error, good, words

CONVERSATION = ConversationSettings(
    give_up_after_s=2, apology_after_ms=150, max_silence_s=0.6, fillers=("One moment.",), phrases=()
)
APOLOGY, FAILURE = CONVERSATION.apology, CONVERSATION.failure
NO_ANSWER, DECLINED = CONVERSATION.no_answer, CONVERSATION.declined
# Seconds until the client must hear something, and until the response must have ended. Machines for tests are slow.
FIRST_SOUND_S, END_S = 1.5, 6.0
SAMPLES_PER_CHARACTER = 240
STALL_S = 2.0


class ShortTones:
    """Fake text-to-speech: 10 ms of tone for each character."""

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._audio(request.text)

    async def _audio(self, text: str) -> AsyncIterator[bytes]:
        wave = np.sin(np.arange(len(text) * SAMPLES_PER_CHARACTER) * 0.1) * 3000
        yield wave.astype("<i2").tobytes()


@asynccontextmanager
async def calling(server: FaultyServer) -> AsyncIterator[Client]:
    """Run a host whose language model is `server`, and yield a client of the host."""
    async with server.open() as url:
        llm = LlmSettings(engine="openai_api", base_url=url, model="m", nice=0, call_timeout_s=1.0)
        settings = Settings(conversation=CONVERSATION, llm=llm)
        stages = Stages(
            LoudnessVad(),
            turn_detector=ScriptedTurn(),
            stt=ScriptedStt(),
            llm=DirectLlm(Llm(settings)),
            tts=ShortTones(),
        )
        phrases = await synthesize_held_clips(stages, settings.conversation)
        metrics, journal = CountingMetrics(), SilentJournal()
        host = Host(
            Services.over(
                stages, settings=settings, phrases=phrases, metrics=metrics, journal=journal, clock=time.monotonic
            )
        )
        app = http_app(BareHost(host))
        config = uvicorn.Config(app, "127.0.0.1", 0, lifespan="off", log_level="warning", ws=CallProtocol)
        web = uvicorn.Server(config)
        running = [asyncio.create_task(host.run()), asyncio.create_task(web.serve())]
        try:
            while not web.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)
            port = web.servers[0].sockets[0].getsockname()[1]
            async with websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime") as socket:
                yield Client(socket, f"http://127.0.0.1:{port}/healthz")
        finally:
            web.should_exit = True
            await asyncio.wait({running[1]})
            running[0].cancel()
            await asyncio.wait(running)


@dataclass
class Heard:
    """What the client received of one response.

    Attributes:
        transcript: The words of all audio.
        first_s: Seconds from the request to the first audio.
        end_s: Seconds from the request to response.done.
        audio_s: Length of the audio in seconds.
        response: The field `response` of the event response.done.
    """

    transcript: str = ""
    first_s: float = 1e9
    end_s: float = 1e9
    audio_s: float = 0.0
    response: dict[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The response's status, followed by the reason of an incomplete response or the error code of a failed one."""
        details = self.response["status_details"] or {}
        reason = details.get("reason") or details.get("error", {}).get("code", "")
        return f"{self.response['status']} {reason}".strip()


class Client:
    """A client of the OpenAI Realtime API that asks by text and receives the spoken answer."""

    def __init__(self, socket: Any, health_url: str) -> None:
        self.health_url = health_url
        self._socket = socket

    async def ask(self) -> Heard:
        """Ask a question and return what was heard until the response has ended."""
        content = [{"type": "input_text", "text": "What is the capital of France?"}]
        await self._send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self._send("response.create")
        began, heard = time.monotonic(), Heard()
        async with asyncio.timeout(20):
            while not heard.response:
                event = json.loads(await self._socket.recv())
                passed_s = time.monotonic() - began
                if event["type"] == "response.output_audio_transcript.delta":
                    heard.transcript += event["delta"]
                elif event["type"] == "response.output_audio.delta":
                    heard.first_s = min(heard.first_s, passed_s)
                    heard.audio_s += len(base64.b64decode(event["delta"])) / 48_000
                elif event["type"] == "response.done":
                    heard.response, heard.end_s = event["response"], passed_s
        return heard

    async def _send(self, kind: str, **fields: object) -> None:
        await self._socket.send(json.dumps({"type": kind} | fields))


@dataclass(frozen=True)
class Case:
    """A fault of the language model's server, and what the client must get.

    Attributes:
        replies: Responses of the server. The last one is repeated.
        reason: The expected status of the response, with the reason or code.
        said: The expected words of all audio without fillers; None if another test checks them.
        most_requests: Maximum number of requests that the server gets for the turn.
    """

    replies: tuple[Reply, ...]
    reason: str
    said: str | None
    most_requests: int = 1


EMPTY = "failed empty_answer"
DOWN = "failed llm_unavailable"
PART = "The capital of France"

CASES = {
    "empty stream": Case((Reply(),), DOWN, FAILURE, 3),
    "empty stream with done": Case((Reply((DONE,)),), EMPTY, NO_ANSWER),
    "white space": Case((Reply((chunk(content=" \n"), chunk("stop"), DONE)),), EMPTY, NO_ANSWER),
    "emoji": Case((Reply((chunk(content="\U0001f600"), chunk("stop"), DONE)),), EMPTY, NO_ANSWER),
    "content filter": Case((Reply((chunk("content_filter"), DONE)),), "incomplete content_filter", DECLINED),
    "refusal": Case(
        (Reply((chunk(refusal="I can't do that."), chunk("stop"), DONE)),), "completed", "I can't do that."
    ),
    "tool call": Case(
        (Reply((chunk(tool_calls=[{"index": 0, "id": "c"}]), chunk("tool_calls"), DONE)),),
        "failed unhandled_tool_call",
        NO_ANSWER,
    ),
    "no finish reason": Case((Reply((*words(ANSWER), DONE)),), "completed", ANSWER),
    "no end": Case((Reply(words(ANSWER)),), "completed", ANSWER),
    "error event": Case(
        (Reply((*words(PART), 'data: {"error": {"message": "oom"}}\n\n')), good()), "completed", ANSWER, 3
    ),
    "400": Case((error("400 Bad Request"),), "failed invalid_request", FAILURE, 2),
    "too long": Case(
        (error("400 Bad Request", "context_length_exceeded"),), "failed context_length_exceeded", FAILURE, 2
    ),
    "401": Case((error("401 Unauthorized"),), "failed llm_misconfigured", FAILURE),
    "403": Case((error("403 Forbidden"),), "failed llm_misconfigured", FAILURE),
    "404": Case((error("404 Not Found", "model_not_found"),), "failed llm_misconfigured", FAILURE),
    "429 for long": Case((error("429 Too Many Requests", headers="Retry-After: 20\r\n"),), DOWN, FAILURE),
    "429 for a second": Case(
        (error("429 Too Many Requests", headers="Retry-After: 1\r\n"), good()), "completed", f"{APOLOGY} {ANSWER}", 2
    ),
    "500": Case((error("500 Internal Server Error"),), DOWN, f"{APOLOGY} {FAILURE}", 12),
    "web page": Case((Reply(("<html></html>",), kind="text/html"),), DOWN, FAILURE, 3),
    "json answer": Case(
        (Reply((json.dumps({"choices": [{"message": {"content": ANSWER}}]}),), kind="application/json"),),
        "completed",
        ANSWER,
    ),
    "other json": Case((Reply(("{}",), kind="application/json"),), DOWN, FAILURE, 3),
    "garbage line": Case((Reply((*words(PART), "data: {x\n\n", *words(" is Paris."), DONE)),), "completed", ANSWER),
    "thoughts": Case(
        (Reply(((chunk(reasoning_content="hm"), 0.1) * 20 + (*words(ANSWER), chunk("stop"), DONE))),),
        "completed",
        ANSWER,
    ),
    "keep-alives": Case(
        (Reply(((": working\n\n", 0.1) * 20 + (*words(ANSWER), chunk("stop"), DONE))),), "completed", ANSWER
    ),
    "stall": Case((Reply((*words(PART), STALL_S * 5)), good()), "completed", None, 3),
    "trickle": Case((Reply((*words(ANSWER, 0.3), chunk("stop"), DONE)),), "completed", ANSWER),
    "NUL": Case((Reply((chunk(content="The capital\x00 of France is Paris."), DONE)),), "completed", ANSWER),
    "no usage": Case((Reply((*words(ANSWER), 'data: {"choices": [], "usage": null}\n\n', DONE)),), "completed", ANSWER),
    "empty choices": Case((Reply(('data: {"choices": []}\n\n', *words(ANSWER), DONE)),), "completed", ANSWER),
    "broken connection": Case((Reply(words(PART), cut=True), good()), "completed", ANSWER, 3),
    "split think block": Case(
        (Reply((*(chunk(content=part) for part in ("<th", "ink>hm", "</thi", "nk>")), *words(ANSWER), DONE)),),
        "completed",
        ANSWER,
    ),
    "Chinese": Case((Reply((*words("\u5df4\u9ece" * 1250), DONE)),), "incomplete max_output_tokens", None),
    "long word": Case((Reply((*words("ab" * 1500), DONE)),), "incomplete max_output_tokens", None),
    "huge answer": Case((Reply(words("word " * 5000)),), "incomplete max_output_tokens", None),
}


@pytest.mark.parametrize("name", CASES)
async def test_no_fault_is_silent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each fault in CASES, the caller hears audio within FIRST_SOUND_S seconds, and then the expected words.

    The words are an answer, or a sentence that there is none. The next turn is answered.
    """
    monkeypatch.setattr("deployments.engines.llm.answer_reader.GREETING_S", 0.2)
    case = CASES[name]
    server = FaultyServer(list(case.replies))
    async with calling(server) as client:
        heard = await client.ask()
        asked = len(server.requests)
        server.replies = [good()]
        # While the server asks to wait ("429 for long"), the host would refuse a second turn, so none is started.
        again = None if name == "429 for long" else await client.ask()
    assert heard.reason == case.reason
    assert heard.first_s < FIRST_SOUND_S
    assert heard.end_s < END_S or name == "huge answer"
    assert heard.audio_s > 0.1
    if case.said is not None:
        assert heard.transcript.replace(" One moment.", "").replace("One moment. ", "") == case.said
    assert asked <= case.most_requests
    assert again is None or (again.reason, again.transcript) == ("completed", ANSWER)


async def test_a_host_reports_a_wrong_configuration() -> None:
    """After a refused key, `/healthz` names the setting; after an answer it reports no problem."""
    server = FaultyServer([error("401 Unauthorized")])
    async with calling(server) as client:
        await client.ask()
        async with httpx2.AsyncClient() as web:
            problem = (await web.get(client.health_url)).json()["problem"]
            assert "args.llm.api_key_env" in problem
            server.replies = [good()]
            await client.ask()
            assert (await web.get(client.health_url)).json()["problem"] is None
