"""Generate a chat completion with the language model client that calls use: hedged, with failover."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from actors.stage_requests.patience import CHAT_GIVE_UP_S
from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import LlmRequest, TokenDelta
from actors.stages.retry import StageFailures
from actors.stages.services import Services
from rejoinder.core.http_api.chat import ChatOrder
from rejoinder.core.http_api.chat_answer import TokenCounts
from rejoinder.core.http_api.stop_text import StopFinder
from rejoinder.core.reply.spoken.hidden import HiddenTextFilter
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.reply.tools.written import written_calls
from rejoinder.core.resilience.hedging import prompt_tokens


@dataclass(frozen=True, slots=True)
class CompletionPiece:
    """A piece of a chat completion.

    Attributes:
        text: The next characters of the answer; may be empty.
        calls: The tool calls, in the last piece.
        finish: Why the generation ended, in the last piece; "" in the others.
        counts: The tokens, in the last piece.
        replaces: None, or the number of characters of the answer so far that count. The engine could not continue
            after a failure, and `text` follows them.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    counts: TokenCounts | None = None
    replaces: int | None = None


async def completion(
    services: Services, order: ChatOrder, tenant: str, answer_id: str
) -> AsyncGenerator[CompletionPiece, None]:
    """Yield the pieces of a completion. Closing the generator stops the engine at its next token.

    Args:
        services: The host's services.
        order: What to generate.
        tenant: Name of the key's holder; "" for none.
        answer_id: Id of the completion, for the ids of its calls.

    Raises:
        BackendError: The language model failed. The cause is `Overloaded` if its queues are full.
        CallerError: The prompt is too long.
    """
    request = LlmRequest(
        order.messages,
        order.max_tokens,
        services.settings.conversation.temperature if order.temperature is None else order.temperature,
        session=_conversation(order, tenant),
        tools=order.tools,
        for_call=False,
    )
    reading = _Reading(order, answer_id)
    stream = services.hedger.stream(request, StageFailures(services.metrics), GenerationStats(), CHAT_GIVE_UP_S)
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            piece = reading.read(delta)
            if piece.text or piece.finish or piece.replaces is not None:
                yield piece
            if piece.finish:
                return


class _Reading:
    """Reads the deltas of one generation. Text of tool calls and text after a stop sequence is not passed on."""

    def __init__(self, order: ChatOrder, answer_id: str) -> None:
        self._order = order
        self._id = answer_id
        self._stop = StopFinder(order.stops)
        # Without tools nothing is hidden: the client may want any text, such as JSON that looks like a call.
        self._hidden = HiddenTextFilter() if order.tools.active else None
        self._written: list[str] = []
        self._tokens = 0

    def read(self, delta: TokenDelta) -> CompletionPiece:
        """Return the piece of an answer that a delta makes."""
        self._tokens += delta.tokens
        if delta.continues is not None:
            self._written.clear()
        self._written.append(delta.text)
        text = self._hidden.push(delta.text) if self._hidden else delta.text
        if delta.finish and self._hidden:
            text += self._hidden.flush()
        text = self._stop.push(text)
        if not delta.finish and not self._stop.stopped:
            return CompletionPiece(text, replaces=delta.continues)
        if self._stop.stopped:
            return CompletionPiece(text, finish="stop", counts=self._counts(delta), replaces=delta.continues)
        offer = self._order.tools
        calls = offer.accepted(delta.calls) or written_calls("".join(self._written), offer)
        named = tuple(
            ToolCall(call.name, call.arguments, call.call_id or f"call_{self._id[-16:]}_{number}")
            for number, call in enumerate(calls)
        )
        finish = "tool_calls" if named else "stop" if delta.finish == "tool_calls" else str(delta.finish)
        return CompletionPiece(text + self._stop.flush(), named, finish, self._counts(delta), replaces=delta.continues)

    def _counts(self, delta: TokenDelta) -> TokenCounts:
        """Return the tokens as the engine counts them; estimated if the answer was stopped before its end."""
        if delta.usage:
            return TokenCounts(delta.usage.prompt_tokens, delta.usage.completion_tokens, delta.usage.cached_tokens)
        prompt = prompt_tokens(sum(message.length for message in self._order.messages))
        return TokenCounts(prompt, self._tokens)


def _conversation(order: ChatOrder, tenant: str) -> str:
    """Return an id of the request's conversation, so that it finds the replica with its KV cache.

    It is the client's `prompt_cache_key`; without one, the messages up to the first of the user, which all requests of
    a conversation have in common.
    """
    first = next((number for number, message in enumerate(order.messages) if message.role == "user"), 0)
    beginning = [order.cache_key] if order.cache_key else [message.content for message in order.messages[: first + 1]]
    digest = hashlib.sha256(repr((tenant, bool(order.cache_key), beginning)).encode()).hexdigest()
    return f"chat_{digest[:20]}"
