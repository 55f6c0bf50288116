"""Answers of chat completions: whole, and as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.wire.fields import Json


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one chat completion: of the prompt, of the answer, and of the prompt from the KV cache."""

    prompt: int
    completion: int
    cached: int = 0

    def wire(self) -> Json:
        """Return the field `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """Makes the JSON of one chat completion.

    Attributes:
        answer_id: Id of the completion.
        created: Unix time in seconds.
        model: The model name that the client sent.
    """

    answer_id: str
    created: int
    model: str

    def whole(self, text: str, calls: Sequence[ToolCall], finish: str, counts: TokenCounts) -> Json:
        """Return the whole answer.

        Args:
            text: The text.
            calls: The tool calls.
            finish: Why the generation ended.
            counts: The tokens.
        """
        message: Json = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return self._of("chat.completion", [choice]) | {"usage": counts.wire()}

    def begin(self) -> Json:
        """Return the first chunk, which has the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> Json:
        """Return a chunk with the next characters of the answer."""
        return self._chunk({"content": text})

    def calls(self, calls: Sequence[ToolCall]) -> Json:
        """Return the chunk with the tool calls."""
        return self._chunk({"tool_calls": [{"index": index} | _call(call) for index, call in enumerate(calls)]})

    def end(self, finish: str) -> Json:
        """Return the last chunk with a choice, which has the reason why the generation ended."""
        return self._chunk({}, finish)

    def counts(self, counts: TokenCounts) -> Json:
        """Return the chunk with the tokens, which has no choices."""
        return self._of("chat.completion.chunk", []) | {"usage": counts.wire()}

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        return self._of(
            "chat.completion.chunk", [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        )

    def _of(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def _call(call: ToolCall) -> Json:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
