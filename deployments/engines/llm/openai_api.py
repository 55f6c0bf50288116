"""Language model engine that calls any OpenAI-compatible server: streamed chat completions over HTTP.

Cancelling closes the connection, which such servers treat as an abort. The first text is sent at once, later text every
`coalesce_ms`.

A request with a prefix continues an answer that another replica began. vLLM can continue a message. Other servers start
the answer again, and the text that repeats the prefix is dropped.

Hosted servers cache prompts. They route requests with the same `prompt_cache_key` to the same cache. The key is a hash
of the instructions, which begin every prompt. A server that refuses the field does not get it again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

import httpx2
import openai

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from rejoinder.core.errors import BackendError, Overloaded

CONNECT_S = 2.0
# vLLM's fields that continue the last message.
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
# Status codes with which servers refuse an unknown field.
UNKNOWN_FIELD = (400, 422)
# OpenAI accepts at most 64 characters.
CACHE_KEY_CHARACTERS = 32
# A low estimate for English text. An answer that starts again generates its prefix again, which needs extra tokens.
CHARACTERS_PER_TOKEN = 3
# Timeout in seconds between two chunks of a running answer. The session has a shorter timeout for the first token.
READ_S = 30.0


class OpenAiApi:
    """Client of one model on one server. It does not repeat a failed request; the session does."""

    prefills = False

    def __init__(self, base_url: str, model: str, api_key: str, coalesce_ms: float, *, cache_hint: bool = True) -> None:
        """Create a client; connect nowhere yet.

        Args:
            base_url: The API's root, such as `https://HOST/v1`.
            model: The model's name on that server.
            api_key: Bearer token.
            coalesce_ms: Minimum time between two deltas, in milliseconds.
            cache_hint: Send `prompt_cache_key` until the server refuses it.
        """
        self.name = f"{model} (OpenAI API)"
        self._model = model
        self._coalesce_s = coalesce_ms / 1000
        self._continues = True
        self._sends_hint = cache_hint
        self._hint_accepted = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=openai.Timeout(READ_S, connect=CONNECT_S),
        )

    async def check_health(self) -> None:
        """Raise BackendError if the server does not respond to a request for its models."""
        try:
            await self._client.with_options(timeout=CONNECT_S).models.list()
        except openai.APIStatusError:
            return  # an error status is a response too: not every server lists models
        except openai.APIError as fault:
            raise BackendError(f"{self._client.base_url} does not respond: {fault}", stage="llm") from fault

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta, None]:
        """Generate an answer; closing the generator closes the connection.

        Raises Overloaded on status 429 and 503, BackendError on any other failure.
        """
        try:
            stream, repeated = await self._begin(request)
            async with stream:
                async for delta in self._deltas(stream, repeated):
                    yield delta
        except openai.APIStatusError as fault:
            if fault.status_code in (429, 503):
                wait_s = _seconds(fault.response.headers.get("retry-after", ""))
                raise Overloaded(f"{self.name}: {fault}", retry_after_s=wait_s, resource="llm") from fault
            raise BackendError(f"{self.name}: {fault}", stage="llm") from fault
        except (openai.APIError, httpx2.HTTPError, ValueError) as fault:  # ValueError: a chunk that is not JSON
            raise BackendError(f"{self.name}: {fault}", stage="llm") from fault

    async def _begin(self, request: LlmRequest) -> tuple[Any, str]:
        """Send the request. Return the stream of chunks, and the text to drop at its beginning.

        The text to drop is the prefix, if the server starts the answer again. It is "" if there is no prefix or the
        server continues after it.
        """
        if not request.prefix:
            return await self._create(request, request.max_tokens, [], {}), ""
        if self._continues:
            prefix = [{"role": "assistant", "content": request.prefix}]
            try:
                return await self._create(request, request.max_tokens, prefix, CONTINUE), ""
            except openai.APIStatusError as fault:
                if fault.status_code not in UNKNOWN_FIELD:
                    raise
                self._continues = False
        repeated_tokens = len(request.prefix) // CHARACTERS_PER_TOKEN
        return await self._create(request, request.max_tokens + repeated_tokens, [], {}), request.prefix

    async def _create(
        self, request: LlmRequest, max_tokens: int, prefix: list[dict[str, str]], extra: Mapping[str, object]
    ) -> Any:
        """Send a request and return its stream of chunks.

        If the server refuses the cache hint (`prompt_cache_key`), send the request again without it, and never send it
        again.

        Args:
            request: The prompt and the temperature.
            max_tokens: Maximum number of tokens of the answer.
            prefix: Messages to append to the prompt: the beginning of the answer, or nothing.
            extra: Additional fields of the request.
        """
        hint = _cache_hint(request) if self._sends_hint else {}
        try:
            stream = await self._send(request, max_tokens, prefix, {**extra, **hint})
        except openai.APIStatusError as fault:
            if not hint or self._hint_accepted or fault.status_code not in UNKNOWN_FIELD:
                raise
            stream = await self._send(request, max_tokens, prefix, extra)
            self._sends_hint = False
        self._hint_accepted = self._hint_accepted or (self._sends_hint and bool(hint))
        return stream

    async def _send(
        self, request: LlmRequest, max_tokens: int, prefix: list[dict[str, str]], extra: Mapping[str, object]
    ) -> Any:
        messages: list[Any] = [{"role": message.role, "content": message.content} for message in request.messages]
        return await self._client.chat.completions.create(
            model=self._model,
            messages=messages + prefix,
            max_tokens=max_tokens,
            temperature=request.temperature,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra or None,
        )

    async def _deltas(self, stream: Any, repeated: str) -> AsyncGenerator[TokenDelta, None]:
        text, tokens, due_at = "", 0, 0.0
        finish: Literal["stop", "length"] | None = None
        usage = LlmUsage(0, 0)
        async for chunk in stream:
            if chunk.usage:
                cached = getattr(chunk.usage.prompt_tokens_details, "cached_tokens", 0) or 0
                usage = LlmUsage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached)
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    new, repeated = _without_repetition(choice.delta.content, repeated)
                    text, tokens = text + new, tokens + bool(new)
                if choice.finish_reason:
                    finish = "length" if choice.finish_reason == "length" else "stop"
            if text and time.monotonic() >= due_at:
                yield TokenDelta(text, tokens)
                text, tokens, due_at = "", 0, time.monotonic() + self._coalesce_s
        if finish is None:
            raise BackendError(f"{self.name}: the stream ended before the answer did.", stage="llm")
        yield TokenDelta(text, tokens, finish, usage)


def _cache_hint(request: LlmRequest) -> dict[str, str]:
    """Return the field `prompt_cache_key`, a hash of the request's instructions; an empty dict without instructions."""
    first = request.messages[0] if request.messages else None
    if first is None or first.role != "system":
        return {}
    return {"prompt_cache_key": hashlib.sha256(first.content.encode()).hexdigest()[:CACHE_KEY_CHARACTERS]}


def _without_repetition(text: str, repeated: str) -> tuple[str, str]:
    """Remove from `text` its longest common beginning with `repeated`.

    Return the rest of `text`, and the part of `repeated` that the next chunk may repeat: "" after the first difference.
    """
    pairs = enumerate(zip(text, repeated, strict=False))
    same = next((index for index, (new, old) in pairs if new != old), min(len(text), len(repeated)))
    return text[same:], repeated[same:] if same == len(text) else ""


def _seconds(retry_after: str) -> float:
    """Return the number of seconds in a Retry-After header. A date, the header's other form, counts as one second."""
    try:
        return float(retry_after)
    except ValueError:
        return 1.0
