"""Language model engine that calls any OpenAI-compatible server: streamed chat completions over HTTP.

Cancelling closes the connection, which such servers treat as an abort. The first text is sent at once, later text every
`coalesce_ms`. While a model thinks, or a server sends keep-alives, deltas without text say that the request is alive.

A request with a prefix continues an answer that another replica began. vLLM can continue a message. Other servers start
the answer again; what it has in common with the prefix is dropped (`rejoinder.core.reply.continuation`).

Hosted servers cache prompts. They route requests with the same `prompt_cache_key` to the same cache. The key is a hash
of the instructions, which begin every prompt. A server that refuses the field does not get it again.
"""

from __future__ import annotations

import codecs
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import httpx2
import openai

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.llm.answer_reader import CHARACTERS_PER_TOKEN, AnswerReader
from deployments.engines.llm.api_faults import fault_of, filtered
from deployments.engines.llm.tools.messages import chat_message, tool_fields
from rejoinder.core.errors import BackendError, BadResponse, ConfigError
from rejoinder.core.reply.continuation import Continuation
from rejoinder.core.resilience.request_health import UNREACHABLE_S, RequestHealth

CONNECT_S = 2.0
# Request fields of vLLM with which the model continues the prompt's last message instead of answering it.
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
# Status codes with which servers refuse an unknown field.
UNKNOWN_FIELD = (400, 422)
# Length of `prompt_cache_key` in characters. OpenAI accepts at most 64.
CACHE_KEY_CHARACTERS = 32
# Timeout in seconds between two chunks of a running answer. The session has a shorter timeout for the first token.
READ_S = 30.0
# Longest line or whole response in characters. An answer is much shorter.
MOST_CHARACTERS = 1_000_000
BAD_ADDRESS = "Check llm.base_url: it may lead to another kind of server."


class OpenAiApi:
    """Client of one model on one server. It does not repeat a failed request; the session does."""

    prefills = False

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str,
        coalesce_ms: float,
        *,
        cache_hint: bool = True,
        unreachable_s: float = UNREACHABLE_S,
    ) -> None:
        """Create a client; connect nowhere yet.

        Args:
            base_url: The API's root, such as `https://HOST/v1`.
            model: The model's name on that server.
            api_key: Bearer token.
            coalesce_ms: Minimum time between two deltas, in milliseconds.
            cache_hint: Send `prompt_cache_key` until the server refuses it.
            unreachable_s: Seconds without a response to any request, after which the health check fails.
        """
        self.name = f"{model} (OpenAI API)"
        self._model = model
        self._coalesce_s = coalesce_ms / 1000
        self._continues = True
        self._health = RequestHealth(unreachable_s)
        self._sends_hint = cache_hint
        self._hint_accepted = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=openai.Timeout(READ_S, connect=CONNECT_S),
        )

    async def check_health(self) -> None:
        """Raise BackendError if the server has not responded to the requests of the last UNREACHABLE_S seconds.

        No request is sent for this. The replica's first health check sends one to the model (`Llm.check_health`).
        """
        if silent_s := self._health.unreachable_s(time.monotonic()):
            raise BackendError(f"{self._client.base_url} has not responded for {silent_s:.0f} s.", stage="llm")

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta, None]:
        """Generate an answer; closing the generator closes the connection.

        Raises:
            Overloaded: Status 429, 503 or 529. No replica should send a request in the next `retry_after_s` seconds.
            ConfigError: The server refuses the key, or has no such model or address.
            CallerError: The server refuses the request, for example because the prompt is too long.
            BadResponse: The response is not one of a language model.
            BackendError: Any other failure.
        """
        async with AsyncExitStack() as stack:
            try:
                response, continuation = await self._begin(request, stack)
                self._health.responded()
                async with aclosing(self._deltas(response, AnswerReader(self.name, request, continuation))) as deltas:
                    async for delta in deltas:
                        yield delta
            except openai.APIStatusError as fault:
                self._health.responded()
                error = fault.body if fault.body is not None else fault.message
                if filtered(error):
                    yield TokenDelta("", 0, "content_filter", LlmUsage(0, 0))
                    return
                retry_after = fault.response.headers.get("retry-after", "")
                raise fault_of(self.name, fault.status_code, error, retry_after) from fault
            except openai.APIResponseValidationError as fault:
                raise BadResponse(f"{self.name}: {fault}", stage="llm") from fault
            except (openai.APIError, httpx2.HTTPError) as fault:
                if isinstance(fault, openai.APIConnectionError):
                    self._health.failed(time.monotonic())
                raise BackendError(f"{self.name}: {fault or type(fault).__name__}", stage="llm") from fault
            except httpx2.InvalidURL as fault:
                raise ConfigError(f"{self.name}: {fault}", field="args.llm.base_url") from fault

    async def _begin(self, request: LlmRequest, stack: AsyncExitStack) -> tuple[Any, Continuation]:
        """Send the request. Return the response, which `stack` closes, and the filter of the answer's text."""
        if not request.prefix:
            return await self._create(request, request.answer_tokens, [], {}, stack=stack), Continuation(
                "", asked=False
            )
        if self._continues:
            prefix = [{"role": "assistant", "content": request.prefix}]
            try:
                response = await self._create(request, request.answer_tokens, prefix, CONTINUE, stack=stack)
                return response, Continuation(request.prefix, asked=True)
            except openai.APIStatusError as fault:
                if fault.status_code not in UNKNOWN_FIELD:
                    raise
                self._continues = False
        repeated_tokens = len(request.prefix) // CHARACTERS_PER_TOKEN
        response = await self._create(request, request.answer_tokens + repeated_tokens, [], {}, stack=stack)
        return response, Continuation(request.prefix, asked=False)

    async def _create(
        self,
        request: LlmRequest,
        max_tokens: int,
        prefix: list[dict[str, str]],
        extra: Mapping[str, object],
        *,
        stack: AsyncExitStack,
    ) -> Any:
        """Send a request and return the response, whose body is not read yet.

        If the server refuses the cache hint (`prompt_cache_key`), send the request again without it, and never send it
        again.

        Args:
            request: The prompt and the temperature.
            max_tokens: Maximum number of tokens of the answer.
            prefix: Messages to append to the prompt: the beginning of the answer, or nothing.
            extra: Additional fields of the request.
            stack: Closes the response.
        """
        hint = _cache_hint(request) if self._sends_hint else {}
        try:
            response = await self._send(request, max_tokens, prefix, {**extra, **hint}, stack=stack)
        except openai.APIStatusError as fault:
            if not hint or self._hint_accepted or fault.status_code not in UNKNOWN_FIELD:
                raise
            response = await self._send(request, max_tokens, prefix, extra, stack=stack)
            self._sends_hint = False
        self._hint_accepted = self._hint_accepted or (self._sends_hint and bool(hint))
        return response

    async def _send(
        self,
        request: LlmRequest,
        max_tokens: int,
        prefix: list[dict[str, str]],
        extra: Mapping[str, object],
        *,
        stack: AsyncExitStack,
    ) -> Any:
        messages: list[Any] = [chat_message(message) for message in request.messages]
        # The raw response, because the library's own stream hides comments and fails at a line that is not JSON.
        return await stack.enter_async_context(
            self._client.chat.completions.with_streaming_response.create(
                model=self._model,
                messages=messages + prefix,
                max_tokens=max_tokens,
                temperature=request.temperature,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={**tool_fields(request.tools), **extra} or None,
            )
        )

    async def _deltas(self, response: Any, answer: AnswerReader) -> AsyncGenerator[TokenDelta, None]:
        """Yield the deltas of one response. A server that sends more than was requested is cut off."""
        kind = response.headers.get("content-type", "").lower()
        if "html" in kind:
            raise BadResponse(f"{self.name}: the server sent a web page ({kind}).", BAD_ADDRESS, stage="llm")
        async for line in _lines(response, whole="event-stream" not in kind and "json" in kind, answer=answer):
            now = time.monotonic()
            if answer.read(line, now):
                break
            if delta := answer.due(now, self._coalesce_s):
                yield delta
        yield answer.last()


async def _lines(response: Any, answer: AnswerReader, *, whole: bool) -> AsyncIterator[str]:
    """Yield the lines of a response's body; with `whole`, the whole body as the data of one event.

    If the connection breaks after the end of the answer, the lines end normally.

    Raises:
        BadResponse: A line, or the whole body, is longer than MOST_CHARACTERS.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest = ""
    try:
        async for chunk in response.iter_bytes():
            *lines, rest = (rest + decode(chunk)).split("\n") if not whole else (rest + decode(chunk),)
            if len(rest) > MOST_CHARACTERS:
                raise BadResponse("a line of the response does not end.", BAD_ADDRESS, stage="llm")
            for line in lines:
                yield line.rstrip("\r")
    except httpx2.HTTPError:
        if not answer.ended:
            raise
    if rest:
        yield f"data: {rest}" if whole else rest.rstrip("\r")


def _cache_hint(request: LlmRequest) -> dict[str, str]:
    """Return the field `prompt_cache_key`, a hash of the request's instructions; an empty dict without instructions."""
    first = request.messages[0] if request.messages else None
    if first is None or first.role != "system":
        return {}
    return {"prompt_cache_key": hashlib.sha256(first.content.encode()).hexdigest()[:CACHE_KEY_CHARACTERS]}
