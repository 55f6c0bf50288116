"""Any OpenAI-compatible server as a language model: chat completions, streamed, over HTTP.

A connection that closes is how such servers learn that nobody listens, so cancelling closes the response. Deltas are
coalesced on the clock: the first text at once, the rest every `coalesce_ms`.

An answer that was begun elsewhere goes on behind its prefix where the server can do that (vLLM can; it is no part of
OpenAI's API). Others begin anew, and what repeats the prefix is dropped.

Hosted servers keep the states of prompts by themselves, and send requests that name the same `prompt_cache_key` where
such a state may lie. Ours names the instructions, with which every prompt of theirs begins. A server that does not know
the field and refuses it is not told it again.
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
# vLLM's switches for going on behind the last message; a server that has no such thing refuses them with one of these.
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
UNKNOWN_FIELD = (400, 422)
# OpenAI takes at most 64.
CACHE_KEY_CHARACTERS = 32
# English text, by every tokenizer we met: an answer that begins anew spends its prefix again.
CHARACTERS_A_TOKEN = 3
# Between two chunks of a running answer; the session's own, shorter deadline is for the first token.
READ_S = 30.0


class OpenAiApi:
    """One server and one model on it. Retries are the session's business, so the client makes none."""

    prefills = False

    def __init__(self, base_url: str, model: str, api_key: str, coalesce_ms: float, *, cache_hint: bool = True) -> None:
        self.name = f"{model} (OpenAI API)"
        self._model = model
        self._coalesce_s = coalesce_ms / 1000
        self._continues = True
        self._hints = cache_hint
        self._hint_taken = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=openai.Timeout(READ_S, connect=CONNECT_S),
        )

    async def check_health(self) -> None:
        """Whether the server lists its models."""
        try:
            await self._client.with_options(timeout=CONNECT_S).models.list()
        except openai.APIStatusError:
            return  # it answers; not every server lists models
        except openai.APIError as fault:
            raise BackendError(f"{self._client.base_url} does not answer: {fault}", stage="llm") from fault

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta, None]:
        """Raises Overloaded on 429 and 503, BackendError on any other failure; closing it closes the connection."""
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
        except (openai.APIError, httpx2.HTTPError, ValueError) as fault:  # ValueError: a chunk that is no JSON
            raise BackendError(f"{self.name}: {fault}", stage="llm") from fault

    async def _begin(self, request: LlmRequest) -> tuple[Any, str]:
        """The stream, and the text with which it will repeat what was received before."""
        if not request.prefix:
            return await self._create(request, request.max_tokens, [], {}), ""
        if self._continues:
            begun = [{"role": "assistant", "content": request.prefix}]
            try:
                return await self._create(request, request.max_tokens, begun, CONTINUE), ""
            except openai.APIStatusError as fault:
                if fault.status_code not in UNKNOWN_FIELD:
                    raise
                self._continues = False
        spent = len(request.prefix) // CHARACTERS_A_TOKEN
        return await self._create(request, request.max_tokens + spent, [], {}), request.prefix

    async def _create(
        self, request: LlmRequest, max_tokens: int, begun: list[dict[str, str]], extra: Mapping[str, object]
    ) -> Any:
        """The stream. Once a request was refused with the hint and taken without it, no other has it."""
        hint = _cache_hint(request) if self._hints else {}
        try:
            stream = await self._send(request, max_tokens, begun, {**extra, **hint})
        except openai.APIStatusError as fault:
            if not hint or self._hint_taken or fault.status_code not in UNKNOWN_FIELD:
                raise
            stream = await self._send(request, max_tokens, begun, extra)
            self._hints = False
        self._hint_taken = self._hint_taken or (self._hints and bool(hint))
        return stream

    async def _send(
        self, request: LlmRequest, max_tokens: int, begun: list[dict[str, str]], extra: Mapping[str, object]
    ) -> Any:
        messages: list[Any] = [{"role": message.role, "content": message.content} for message in request.messages]
        return await self._client.chat.completions.create(
            model=self._model,
            messages=messages + begun,
            max_tokens=max_tokens,
            temperature=request.temperature,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra or None,
        )

    async def _deltas(self, stream: Any, repeated: str) -> AsyncGenerator[TokenDelta, None]:
        text, tokens, due = "", 0, 0.0
        finish: Literal["stop", "length"] | None = None
        usage = LlmUsage(0, 0)
        async for chunk in stream:
            if chunk.usage:
                cached = getattr(chunk.usage.prompt_tokens_details, "cached_tokens", 0) or 0
                usage = LlmUsage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached)
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    new, repeated = _unsaid(choice.delta.content, repeated)
                    text, tokens = text + new, tokens + bool(new)
                if choice.finish_reason:
                    finish = "length" if choice.finish_reason == "length" else "stop"
            if text and time.monotonic() >= due:
                yield TokenDelta(text, tokens)
                text, tokens, due = "", 0, time.monotonic() + self._coalesce_s
        if finish is None:
            raise BackendError(f"{self.name}: the stream ended before the answer did.", stage="llm")
        yield TokenDelta(text, tokens, finish, usage)


def _cache_hint(request: LlmRequest) -> dict[str, str]:
    """The key of all prompts that begin with the same instructions; nothing for one without."""
    first = request.messages[0] if request.messages else None
    if first is None or first.role != "system":
        return {}
    return {"prompt_cache_key": hashlib.sha256(first.content.encode()).hexdigest()[:CACHE_KEY_CHARACTERS]}


def _unsaid(text: str, repeated: str) -> tuple[str, str]:
    """What of `text` does not repeat, and what may still come that does; the first difference ends the repetition."""
    pairs = enumerate(zip(text, repeated, strict=False))
    same = next((at for at, (new, old) in pairs if new != old), min(len(text), len(repeated)))
    return text[same:], repeated[same:] if same == len(text) else ""


def _seconds(retry_after: str) -> float:
    """A Retry-After of seconds; its other form, a date, counts as one second."""
    try:
        return float(retry_after)
    except ValueError:
        return 1.0
