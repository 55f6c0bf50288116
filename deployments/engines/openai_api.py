"""Any OpenAI-compatible server as a language model: chat completions, streamed, over HTTP.

A connection that closes is how such servers learn that nobody listens, so cancelling closes the response. Deltas are
coalesced on the clock: the first text at once, the rest every `coalesce_ms`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

import httpx2
import openai

from actors.ports import LlmRequest, TokenDelta, Usage
from rejoinder.core.errors import BackendError, Overloaded

CONNECT_S = 2.0
# Between two chunks of a running answer; the session's own, shorter deadline is for the first token.
READ_S = 30.0


class OpenAiApi:
    """One server and one model on it. Retries are the session's business, so the client makes none."""

    def __init__(self, base_url: str, model: str, api_key: str, coalesce_ms: float) -> None:
        self.name = f"{model} (OpenAI API)"
        self._model = model
        self._coalesce_s = coalesce_ms / 1000
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
            stream = await self._client.chat.completions.create(**self._body(request))
            async with stream:
                async for delta in self._deltas(stream):
                    yield delta
        except openai.APIStatusError as fault:
            if fault.status_code in (429, 503):
                wait_s = float(fault.response.headers.get("retry-after", "1"))
                raise Overloaded(f"{self.name}: {fault}", retry_after_s=wait_s, resource="llm") from fault
            raise BackendError(f"{self.name}: {fault}", stage="llm") from fault
        except (openai.APIError, httpx2.HTTPError) as fault:
            raise BackendError(f"{self.name}: {fault}", stage="llm") from fault

    def _body(self, request: LlmRequest) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.prefix:
            # The answer goes on behind what was received. vLLM needs both switches; others take the message as it is.
            messages.append({"role": "assistant", "content": request.prefix})
            body["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        return body

    async def _deltas(self, stream: Any) -> AsyncGenerator[TokenDelta, None]:
        text, tokens, due = "", 0, 0.0
        finish: Literal["stop", "length"] | None = None
        usage = Usage(0, 0)
        async for chunk in stream:
            if chunk.usage:
                cached = getattr(chunk.usage.prompt_tokens_details, "cached_tokens", 0) or 0
                usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached)
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    text, tokens = text + choice.delta.content, tokens + 1
                if choice.finish_reason:
                    finish = "length" if choice.finish_reason == "length" else "stop"
            if text and time.monotonic() >= due:
                yield TokenDelta(text, tokens)
                text, tokens, due = "", 0, time.monotonic() + self._coalesce_s
        yield TokenDelta(text, tokens, finish or "stop", usage)
