"""The OpenAI API engine against a real server (`transformers serve`), and against faulty responses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from actors.stages.ports import LlmRequest, TokenDelta
from cluster.environment import free_port
from deployments.engines.llm.openai_api import OpenAiApi
from rejoinder.core.errors import BackendError, CallerError, Overloaded
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.resilience.request_health import LEAST_FAILURES
from rejoinder.store import ModelStore

START_S = 90.0
QUESTION = (ChatMessage("user", "What is the capital of France?"),)
STORY = (ChatMessage("user", "Tell me a very long story about a brave little fox."),)
ANSWER = "The capital of France is Paris."


@dataclass(frozen=True)
class Server:
    """A running server process, `transformers serve`."""

    process: psutil.Process
    url: str
    model: str

    def engine(self) -> OpenAiApi:
        """Return a new engine for this server, whose connections belong to the current event loop."""
        return OpenAiApi(self.url, self.model, "none", 15)

    def cores(self, window_s: float) -> float:
        """Measure for `window_s` seconds, and return how many cores the server used on average."""
        return float(self.process.cpu_percent(window_s)) / 100


@pytest.fixture(scope="module")
def server(store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`transformers serve` with SmolLM2 on the CPU."""
    model, port = str(store.converted("smollm2-135m-instruct", "hf")), free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_health(process, port, log)
        yield Server(psutil.Process(process.pid), f"http://127.0.0.1:{port}/v1", model)
    finally:
        process.kill()
        process.wait()


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # the server does not listen yet
        time.sleep(0.2)
    raise RuntimeError(f"`transformers serve` did not come up:\n{log.read_text(encoding='utf-8')[-4000:]}")


async def _all(engine: OpenAiApi, request: LlmRequest) -> list[TokenDelta]:
    async with aclosing(engine.stream(request)) as deltas:
        return [delta async for delta in deltas]


@pytest.mark.models
async def test_an_answer_streams_with_usage(server: Server) -> None:
    """The answer arrives in several deltas, and the last one has the finish reason and the usage."""
    deltas = await _all(server.engine(), LlmRequest(QUESTION, max_tokens=40))
    assert "".join(delta.text for delta in deltas) == ANSWER
    assert len(deltas) > 2
    assert [delta.finish for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    usage = deltas[-1].usage
    assert usage is not None
    assert usage.prompt_tokens > usage.completion_tokens > 5


@pytest.mark.models
async def test_max_tokens_ends_by_length(server: Server) -> None:
    """An answer that reaches `max_tokens` has the finish reason "length"."""
    deltas = await _all(server.engine(), LlmRequest(STORY, max_tokens=5))
    assert deltas[-1].finish == "length"


@pytest.mark.models
@pytest.mark.parametrize("prefix", ["The capital of", ANSWER[:-1]])
async def test_an_answer_continues_after_its_prefix(server: Server, prefix: str) -> None:
    """The engine returns only the text after the request's prefix.

    `transformers serve` cannot continue an answer: it repeats the prefix, and the engine removes it.
    """
    deltas = await _all(server.engine(), LlmRequest(QUESTION, max_tokens=9, prefix=prefix))
    assert prefix + "".join(delta.text for delta in deltas) == ANSWER


@pytest.mark.models
async def test_closing_stops_the_server(server: Server) -> None:
    """After a stream is closed at its first delta, the server becomes idle and serves the next request."""
    async with aclosing(server.engine().stream(LlmRequest(STORY, max_tokens=1000))) as deltas:
        await anext(deltas)
        assert await asyncio.to_thread(server.cores, 0.3) > 0.5
    idle = False
    for _ in range(10):
        idle = idle or await asyncio.to_thread(server.cores, 0.3) < 0.3
    assert idle
    deltas_after = await asyncio.wait_for(_all(server.engine(), LlmRequest(QUESTION, max_tokens=40)), 10)
    assert deltas_after[-1].finish == "stop"


@pytest.mark.models
async def test_a_running_server_is_healthy(server: Server) -> None:
    """A running server passes the health check, whether or not it can list its models."""
    await server.engine().check_health()


@asynccontextmanager
async def _answering(status: str, headers: str = "", body: str = "") -> AsyncIterator[OpenAiApi]:
    """Yield an engine whose server sends the same response to every request and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield OpenAiApi(f"http://127.0.0.1:{port}/v1", "m", "none", 0)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [("Retry-After: 7\r\n", 7.0), ("", 1.0), ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", 1.0)],
)
async def test_a_full_server_is_overload(status: str, headers: str, wait_s: float) -> None:
    """Status 429 and 503 raise Overloaded.

    `retry_after_s` is the number in the header Retry-After. It is 1 s without the header, or if it is a date.
    """
    async with _answering(status, headers) as engine:
        with pytest.raises(Overloaded) as refused:
            await _all(engine, LlmRequest(QUESTION))
        assert refused.value.retry_after_s == wait_s


async def test_a_refused_connection_is_a_backend_error() -> None:
    """If the server refuses the connection, an answer raises BackendError. After five of them the health check does."""
    engine = OpenAiApi(f"http://127.0.0.1:{free_port()}/v1", "m", "none", 0, unreachable_s=0.001)
    for _ in range(LEAST_FAILURES):
        await engine.check_health()
        with pytest.raises(BackendError):
            await _all(engine, LlmRequest(QUESTION))
    await asyncio.sleep(0.002)
    with pytest.raises(BackendError, match="has not responded"):
        await engine.check_health()


async def test_a_health_check_sends_no_request() -> None:
    """A thousand health checks of a server that gets no requests connect nowhere, and pass."""
    connections: list[object] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        engine = OpenAiApi(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", "m", "none", 0)
        for _ in range(1000):
            await engine.check_health()
        await asyncio.sleep(0.05)
    assert connections == []


def _chunk(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


EVENTS = "Content-Type: text/event-stream\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (EVENTS, _chunk("Hel")),  # no finish reason before the end of the stream
        (EVENTS + "Content-Length: 10000\r\n", _chunk("Hel")),  # the connection ends before the announced length
        (EVENTS, _chunk("Hel") + 'data: {"error": {"message": "out of memory"}}\n\n'),
        (EVENTS, _chunk("Hel") + "data: {broken\n\n"),
    ],
)
async def test_a_broken_stream_is_a_backend_error(headers: str, body: str) -> None:
    """A stream that breaks within a sentence yields the text received so far, then raises BackendError."""
    async with _answering("200 OK", headers, body) as engine:
        deltas = engine.stream(LlmRequest(QUESTION))
        assert (await anext(deltas)).text == "Hel"
        with pytest.raises(BackendError):
            await anext(deltas)


async def test_a_stream_without_usage_is_an_answer() -> None:
    """If a server sends no token usage, the answer still ends normally."""
    async with _answering("200 OK", EVENTS, _chunk("Hello.") + _chunk("", "stop") + "data: [DONE]\n\n") as engine:
        deltas = await _all(engine, LlmRequest(QUESTION))
    assert "".join(delta.text for delta in deltas) == "Hello."
    assert deltas[-1].finish == "stop"


# -- Cache key --------------------------------------------------------------------------------------------------------

GOOD = _chunk("Hello.") + _chunk("", "stop") + "data: [DONE]\n\n"
KIND, STRICT = "Be kind.", "Be strict."


@dataclass
class SelectiveServer:
    """A server that refuses requests with certain fields.

    Attributes:
        unknown: Fields that it refuses.
        refusal: Status line of a refusal.
        requests: Bodies of all requests.
    """

    unknown: tuple[str, ...] = ()
    refusal: str = "400 Bad Request"
    requests: list[dict[str, Any]] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, *, cache_hint: bool = True) -> AsyncIterator[OpenAiApi]:
        async with await asyncio.start_server(self._answer, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            yield OpenAiApi(url, "m", "none", 0, cache_hint=cache_hint)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.requests.append(body)
        refused = any(name in body for name in self.unknown)
        status, text = (self.refusal, "") if refused else ("200 OK", GOOD)
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n{EVENTS}\r\n{text}".encode())
        await writer.drain()
        writer.close()

    @property
    def keys(self) -> list[str | None]:
        return [body.get("prompt_cache_key") for body in self.requests]


def _request(question: str, instructions: str = KIND, prefix: str = "") -> LlmRequest:
    return LlmRequest((ChatMessage("system", instructions), ChatMessage("user", question)), prefix=prefix)


async def test_prompts_with_the_same_instructions_have_the_same_cache_key() -> None:
    """Prompts with equal instructions have the same cache key.

    Prompts with other instructions have another key, and prompts without instructions have no key.
    """
    server = SelectiveServer()
    async with server.open() as engine:
        for request in (_request("Who?"), _request("Where?"), _request("Who?", STRICT), LlmRequest(QUESTION)):
            await _all(engine, request)
    who, where, strict, bare = server.keys
    assert who == where
    assert who != strict
    assert bare is None
    assert who is not None
    assert 0 < len(who) <= 64
    assert KIND not in who


@pytest.mark.parametrize("refusal", ["400 Bad Request", "422 Unprocessable Entity"])
async def test_a_server_that_refuses_the_key_does_not_get_it_again(refusal: str) -> None:
    """If a server refuses the cache key, the first answer is requested again without it.

    Later answers need one request.
    """
    server = SelectiveServer(unknown=("prompt_cache_key",), refusal=refusal)
    async with server.open() as engine:
        for _ in range(3):
            assert (await _all(engine, _request("Who?")))[0].text == "Hello."
    assert [key is not None for key in server.keys] == [True, False, False, False]


async def test_a_request_that_is_refused_for_something_else_keeps_the_key() -> None:
    """If a request also fails without the cache key, later requests still contain the key.

    After the server has accepted the key once, a refused request is not repeated without it.
    """
    server = SelectiveServer(unknown=("messages",))
    async with server.open() as engine:
        with pytest.raises(CallerError):
            await _all(engine, _request("Who?"))
        server.unknown = ()
        await _all(engine, _request("Who?"))
        server.unknown = ("messages",)
        with pytest.raises(CallerError):
            await _all(engine, _request("Who?"))
    assert [key is not None for key in server.keys] == [True, False, True, True]


async def test_key_and_continuation_are_independent() -> None:
    """A server that refuses vLLM's fields for continuing an answer still gets the cache key, and vice versa."""
    for unknown in ("continue_final_message", "prompt_cache_key"):
        server = SelectiveServer(unknown=(unknown,))
        async with server.open() as engine:
            for _ in range(2):
                assert (await _all(engine, _request("Who?", prefix="Hel")))[-1].finish == "stop"
        last = server.requests[-1]
        assert [name in last for name in ("continue_final_message", "prompt_cache_key")] == [
            name != unknown for name in ("continue_final_message", "prompt_cache_key")
        ]


async def test_the_key_can_be_switched_off() -> None:
    """With the setting `llm.cache_hint: false`, requests contain no cache key."""
    server = SelectiveServer()
    async with server.open(cache_hint=False) as engine:
        await _all(engine, _request("Who?"))
    assert server.keys == [None]


async def test_cached_tokens_are_reported() -> None:
    """The server's number of cached prompt tokens is in the answer's usage."""
    usage = {"prompt_tokens": 2000, "completion_tokens": 3, "total_tokens": 2003}
    usage_chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": []}
    last_chunk = usage_chunk | {"usage": usage | {"prompt_tokens_details": {"cached_tokens": 1920}}}
    body = _chunk("Hello.") + _chunk("", "stop") + f"data: {json.dumps(last_chunk)}\n\ndata: [DONE]\n\n"
    async with _answering("200 OK", EVENTS, body) as engine:
        found = (await _all(engine, LlmRequest(QUESTION)))[-1].usage
    assert found is not None
    assert (found.prompt_tokens, found.cached_tokens) == (2000, 1920)
