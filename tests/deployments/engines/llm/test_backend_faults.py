"""Tests of the OpenAI API engine against a server that imitates the faults of real servers.

The engine makes an answer of each fault, or raises an error whose class says whether a retry can help.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from email.utils import formatdate

import pytest

from actors.stages.ports import LlmRequest, TokenDelta
from cluster.environment import free_port
from deployments.engines.llm.openai_api import OpenAiApi
from deployments.llm import Llm
from rejoinder.core.errors import BackendError, BadResponse, CallerError, ConfigError, Overloaded, RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import LlmSettings, Settings
from tests.deployments.engines.llm.faulty_server import ANSWER, DONE, FaultyServer, Reply, chunk, error, good, words

WHOLE = json.dumps({"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]})
BAD_KEY = '{"error": {"message": "no", "code": 401}}'
JSON = "application/json"
STREAM = chunk(content=ANSWER) + DONE
QUESTION = (ChatMessage("user", "What is the capital of France?"),)
PART = "The capital of France"


async def ask(server: FaultyServer, *, prefix: str = "", max_tokens: int = 60) -> list[TokenDelta]:
    """Send one request to the server through the engine, and return all deltas."""
    async with server.open() as url:
        engine = OpenAiApi(url, "m", "none", 0)
        async with aclosing(engine.stream(LlmRequest(QUESTION, max_tokens, prefix=prefix))) as deltas:
            return [delta async for delta in deltas]


def text_of(deltas: list[TokenDelta]) -> str:
    return "".join(delta.text for delta in deltas)


# -- answers -----------------------------------------------------------------------------------------------------------

ANSWERS = {
    "done alone": (Reply((*words(ANSWER), DONE)), ANSWER, "stop"),
    "no end, whole sentence": (Reply(words(ANSWER)), ANSWER, "stop"),
    "cut after the finish reason": (Reply((*words(ANSWER), chunk("stop")), cut=True), ANSWER, "stop"),
    "no usage": (Reply((*words(ANSWER), 'data: {"choices": [], "usage": null}\n\n', DONE)), ANSWER, "stop"),
    "empty choices": (Reply(('data: {"choices": []}\n\n', *words(ANSWER), DONE)), ANSWER, "stop"),
    "only empty choices": (Reply(('data: {"choices": []}\n\n',)), "", "stop"),
    "done and nothing else": (Reply((DONE,)), "", "stop"),
    "white space": (Reply((chunk(content=" \n"), chunk("stop"), DONE)), " \n", "stop"),
    "filter": (Reply((chunk("content_filter"), DONE)), "", "content_filter"),
    "filter of the prompt": (error("400 Bad Request", "content_filter"), "", "content_filter"),
    "refusal": (
        Reply((chunk(refusal="I can't"), chunk(refusal=" help."), chunk("stop"), DONE)),
        "I can't help.",
        "stop",
    ),
    "tool call": (Reply((chunk(tool_calls=[{"index": 0}]), chunk("tool_calls"), DONE)), "", "tool_calls"),
    "tool call that stops": (Reply((chunk(tool_calls=[{"index": 0}]), chunk("stop"), DONE)), "", "tool_calls"),
    "old function call": (Reply((chunk(function_call={"name": "f"}), chunk("function_call"), DONE)), "", "tool_calls"),
    "garbage line": (Reply((*words(PART), "data: {broken\n\n", *words(" is Paris."), DONE)), ANSWER, "stop"),
    "json array line": (Reply(("data: [1]\n\n", *words(ANSWER), DONE)), ANSWER, "stop"),
    "carriage returns": (
        Reply((STREAM.replace("\n", "\r\n"),)),
        ANSWER,
        "stop",
    ),
    "no space after data:": (
        Reply((STREAM.replace("data: ", "data:"),)),
        ANSWER,
        "stop",
    ),
    "content parts": (Reply((chunk(content=[{"type": "text", "text": ANSWER}]), DONE)), ANSWER, "stop"),
    "NUL and escapes": (Reply((chunk(content="Hel\x00lo\x1b, \x9cyou."), DONE)), "Hello, you.", "stop"),
    "thoughts": (Reply((chunk(reasoning_content="hm"), *words(ANSWER), chunk("stop"), DONE)), ANSWER, "stop"),
    "null delta": (Reply(('data: {"choices": [{"delta": null}]}\n\n', *words(ANSWER), DONE)), ANSWER, "stop"),
    "no stream": (
        Reply(
            (json.dumps({"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}),),
            kind="application/json",
        ),
        ANSWER,
        "stop",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_deviation_from_the_protocol_is_still_an_answer(name: str) -> None:
    """Of a response in ANSWERS, which deviates from the protocol, the engine returns text and finish reason.

    It sends only one request.
    """
    reply, text, finish = ANSWERS[name]
    server = FaultyServer([reply])
    deltas = await ask(server)
    assert (text_of(deltas), deltas[-1].finish) == (text, finish)
    assert len(server.requests) == 1


async def test_a_server_that_ignores_the_limit_is_cut_off() -> None:
    """An answer without an end, or with one huge token, ends with "length" at about `max_tokens`."""
    endless = await ask(FaultyServer([Reply(words("word " * 5000))]), max_tokens=10)
    assert endless[-1].finish == "length"
    assert len(text_of(endless).split()) == 11
    huge = await ask(FaultyServer([Reply((chunk(content="x" * 3000), chunk(content="y" * 3000), DONE))]), max_tokens=10)
    assert huge[-1].finish == "length"
    assert len(text_of(huge)) == 3000


async def test_a_body_without_an_end_is_not_read_to_its_end() -> None:
    """A response of three million characters without a line break raises BadResponse, so it cannot fill the memory."""
    with pytest.raises(BadResponse):
        await ask(FaultyServer([Reply(tuple("x" * 100_000 for _ in range(30)))]))


async def test_first_text_is_not_delayed_by_a_greeting() -> None:
    """A first chunk that has only the role makes no delta. The first delta has the first word alone.

    So the chunk without text does not make the engine combine the first words into one later delta.
    """
    deltas = await ask(FaultyServer([Reply((chunk(role="assistant", content=""), *words(ANSWER, 0.01), DONE))]))
    assert deltas[0].text == "The"


SIGNS_OF_LIFE = {
    "thoughts": (chunk(reasoning_content="hm"), 0.3),
    "other thoughts": (chunk(reasoning="hm"), 0.3),
    "comments": (": still working\n\n", 2.4),
}


@pytest.mark.parametrize("name", SIGNS_OF_LIFE)
async def test_a_working_server_shows_that_it_is_alive(name: str) -> None:
    """While a server sends thoughts of its model, or comments for over 2 s, the engine returns deltas without text.

    Callers of the engine thus know that the server is working. The answer follows unchanged.
    """
    sign, seconds = SIGNS_OF_LIFE[name]
    signs = (sign, 0.1) * round(seconds / 0.1)
    deltas = await ask(FaultyServer([Reply((*signs, *words(ANSWER), DONE))]))
    silent = [delta for delta in deltas[:-1] if not delta.text]
    assert 1 <= len(silent) <= 3
    assert text_of(deltas) == ANSWER


async def test_a_model_that_thinks_for_too_long_has_used_up_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a model sends only thoughts for THINK_S seconds, the answer is empty with the finish reason "length"."""
    monkeypatch.setattr("deployments.engines.llm.answer_reader.THINK_S", 0.2)
    deltas = await ask(FaultyServer([Reply((chunk(reasoning_content="hm"), 0.05) * 20)]))
    assert (text_of(deltas), deltas[-1].finish) == ("", "length")


# -- errors ------------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[Reply, type[RejoinderError], str]] = {
    "400": (error("400 Bad Request"), CallerError, "invalid_request"),
    "422": (error("422 Unprocessable Entity"), CallerError, "invalid_request"),
    "long by code": (error("400 Bad Request", "context_length_exceeded"), CallerError, "context_length_exceeded"),
    "long by words": (
        error("400 Bad Request", message="This model's maximum context length is 8192 tokens."),
        CallerError,
        "context_length_exceeded",
    ),
    "413": (error("413 Payload Too Large", message="too large"), CallerError, "context_length_exceeded"),
    "401": (error("401 Unauthorized"), ConfigError, "args.llm.api_key_env"),
    "403": (error("403 Forbidden"), ConfigError, "args.llm.api_key_env"),
    "quota": (error("429 Too Many Requests", "insufficient_quota"), ConfigError, "args.llm.api_key_env"),
    "402": (error("402 Payment Required"), ConfigError, "args.llm.api_key_env"),
    "404 model": (error("404 Not Found", "model_not_found"), ConfigError, "args.llm.model"),
    "404 address": (Reply(("not here",), "404 Not Found", "text/plain"), ConfigError, "args.llm.base_url"),
    "405": (error("405 Method Not Allowed"), ConfigError, "args.llm.base_url"),
    "500": (error("500 Internal Server Error"), BackendError, "llm"),
    "502 page": (Reply(("<html>bad gateway</html>",), "502 Bad Gateway", "text/html"), BackendError, "llm"),
    "408": (error("408 Request Timeout"), BackendError, "llm"),
    "empty": (Reply(), BadResponse, "llm"),
    "page": (Reply(("<html>hello</html>",), kind="text/html"), BadResponse, "llm"),
    "page as stream": (Reply(("<html>\n<p>hello</p>\n</html>\n",)), BadResponse, "llm"),
    "other json": (Reply(('{"hello": 1}',), kind="application/json"), BadResponse, "llm"),
    "only garbage": (Reply(("data: {broken\n\n", "data: {broken\n\n")), BadResponse, "llm"),
    "error in the body": (
        Reply((BAD_KEY,), kind=JSON),
        ConfigError,
        "args.llm.api_key_env",
    ),
    "cut": (Reply(words(PART), cut=True), BackendError, "llm"),
    "no end, half a sentence": (Reply(words(PART)), BackendError, "llm"),
    "error event": (Reply((*words(PART), 'data: {"error": {"message": "oom"}}\n\n')), BackendError, "llm"),
    "named error event": (Reply((*words(PART), 'event: error\ndata: {"message": "oom"}\n\n')), BackendError, "llm"),
    "400 event": (
        Reply(('data: {"error": {"message": "bad", "type": "BadRequestError", "code": 400}}\n\n',)),
        CallerError,
        "invalid_request",
    ),
    "429 event": (Reply(('data: {"error": {"message": "slow", "type": "rate_limit_error"}}\n\n',)), Overloaded, "llm"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_a_fault_has_the_type_that_says_who_must_act(name: str) -> None:
    """The error's class says whether a retry can help. Its code, setting or stage says what is wrong.

    The class must be exact, because subclasses are treated differently. For example, BadResponse is given up sooner
    than BackendError, its base class.
    """
    reply, kind, what = ERRORS[name]
    with pytest.raises(RejoinderError) as raised:
        await ask(FaultyServer([reply]))
    fault = raised.value
    assert type(fault) is kind
    found = {CallerError: "code", ConfigError: "field", Overloaded: "resource"}.get(kind, "stage")
    assert getattr(fault, found) == what


IN_A_YEAR = formatdate(time.time() + 3600 * 24 * 365, usegmt=True)


@pytest.mark.parametrize(
    ("header", "shortest_s", "longest_s"),
    [("20", 20, 20), pytest.param(IN_A_YEAR, 3600 * 24 * 364, 3600 * 24 * 366, id="date")]
    + [(bad, 1, 1) for bad in ("nan", "inf", "soon", formatdate(0, usegmt=True))]
    + [("-5", 0, 0)],
)
async def test_the_time_to_wait_is_read(header: str, shortest_s: float, longest_s: float) -> None:
    """`retry_after_s` of the error is the seconds in Retry-After, or the seconds until its date.

    An unreadable value or a past date counts as 1 s. `shared` says that other replicas of the server must wait too.
    """
    with pytest.raises(Overloaded) as raised:
        await ask(FaultyServer([error("429 Too Many Requests", headers=f"Retry-After: {header}\r\n")]))
    assert shortest_s <= raised.value.retry_after_s <= longest_s
    assert raised.value.shared


async def test_a_refused_connection_can_be_repeated() -> None:
    """If nothing listens at the address, BackendError, which may be retried, is raised within 5 s."""
    engine = OpenAiApi(f"http://127.0.0.1:{free_port()}/v1", "m", "none", 0)
    async with asyncio.timeout(5):
        with pytest.raises(BackendError):
            async with aclosing(engine.stream(LlmRequest(QUESTION))) as deltas:
                [delta async for delta in deltas]


# -- continuing an answer ----------------------------------------------------------------------------------------------

NEW = "Our shop opens at nine."


@pytest.mark.parametrize(
    ("replies", "prefix", "text", "kept"),
    [
        # The server refuses to continue an answer. Asked without the prefix, it repeats the first answer and goes on.
        ([error("400 Bad Request"), good("On Monday we open at nine.")], "On Monday we open at", " nine.", None),
        # The server answers in other words.
        ([error("400 Bad Request"), good(NEW)], "On Monday we open at", NEW, 0),
        # The server answers in other words after the first sentence, which is not repeated.
        ([error("400 Bad Request"), good(f"Hello. {NEW}")], "Hello. On Monday we open at", NEW, 7),
        # The second answer ends where the first one ended, so no text is added.
        ([error("400 Bad Request"), Reply(words("On Monday"))], "On Monday", "", None),
        # The server continues as requested.
        ([good(" nine.")], "On Monday we open at", " nine.", None),
        ([Reply((chunk(content="ur to nine."), DONE))], "On Monday we open at fo", "ur to nine.", None),
        ([good("I am Paul.")], "Hello.", "I am Paul.", None),
        # The server ignores the request to continue, and begins a new message.
        ([good(NEW)], "On Monday we open at", NEW, 0),
        ([good(NEW)], "Hello. On Monday we open at", NEW, 7),
        ([good("On Monday we open at nine.")], "On Monday we open at", " nine.", None),
        ([good("")], "On Monday we open at nine.", "", None),
    ],
)
async def test_half_a_sentence_is_never_joined_to_another(
    replies: list[Reply], prefix: str, text: str, kept: int | None
) -> None:
    """If the server's answer continues the prefix, the engine returns only the new text.

    If not, the new text begins with a sentence, and `continues` is the number of characters of the prefix to keep
    before it.
    """
    deltas = await ask(FaultyServer(replies), prefix=prefix)
    assert text_of(deltas) == text
    assert next((delta.continues for delta in deltas if delta.continues is not None), None) == kept
    assert deltas[-1].finish == "stop"


# -- health ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (error("401 Unauthorized"), "args.llm.api_key_env"),
        (error("404 Not Found", "model_not_found"), "args.llm.model"),
    ],
)
async def test_a_wrong_configuration_is_an_error_at_the_start(reply: Reply, field: str) -> None:
    """A replica's first health check sends a request to the model. A refused key or model raises ConfigError.

    The error names the setting, so the deployment does not start and its message says why.
    """
    server = FaultyServer([reply])
    async with server.open() as url:
        llm = Llm(Settings(llm=LlmSettings(engine="openai_api", base_url=url, model="m", nice=0)))
        with pytest.raises(ConfigError) as raised:
            await llm.check_health()
    assert raised.value.field == field
