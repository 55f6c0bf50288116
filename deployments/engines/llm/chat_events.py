"""Reader of the response of a chat completions server: server-sent events, line by line, or one JSON object.

Servers deviate from the protocol in many ways. The reader accepts what it can: comments, unknown fields, empty choices,
lines that are not JSON, a missing finish reason before `[DONE]`, a whole answer instead of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.stages.ports import Finish, LlmUsage
from deployments.engines.llm.api_faults import fault_of, filtered
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.reply.tools.fragments import CallFragments

_FINISHES: dict[str, Finish] = {
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
# Control characters except tab and newline. No voice can speak them, and some engines end a text at the first NUL.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """What one line of a response says.

    Attributes:
        text: New text of the answer; "" if the line only shows that the request is alive (a comment, a thought of the
            model, an empty choice).
        thinking: True if the model generated something that is not text of the answer: a thought, or a tool call.
        done: True if the server says that the response has ended (`[DONE]`).
    """

    text: str = ""
    thinking: bool = False
    done: bool = False


class ChatEvents:
    """State of one response.

    Attributes:
        finish: Why the answer ended; None until the server says so.
        usage: Token counts; zeros until the server sends them.
        understood: True if at least one line followed the protocol.
    """

    def __init__(self, name: str) -> None:
        """Create a reader; `name` is the engine's name, for error messages."""
        self.finish: Finish | None = None
        self.usage = LlmUsage(0, 0)
        self.understood = False
        self._name = name
        self._fragments = CallFragments()
        self._event = ""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model has called so far."""
        return self._fragments.calls

    @property
    def called(self) -> bool:
        """True if the model has begun to call a tool."""
        return self._fragments.begun

    @property
    def calls_complete(self) -> bool:
        """True if there is a tool call and the arguments of each are complete."""
        return self._fragments.complete

    def line(self, line: str) -> ChatPiece | None:
        """Read a line of a stream, and return what it says; None if it says nothing.

        Raises:
            RejoinderError: The server reports an error (see `fault_of`).
        """
        if line.startswith(":"):
            return ChatPiece()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        if name != "data":
            return None
        if value.strip() == "[DONE]":
            self.understood = True
            return ChatPiece(done=True)
        try:
            body = json.loads(value)
        except ValueError:
            return None
        return self._body(body)

    def end(self) -> Finish:
        """Return why the answer ended, for a response that has ended."""
        if self.called and self.finish in (None, "stop"):
            return "tool_calls"
        return self.finish or "stop"

    def _body(self, body: object) -> ChatPiece | None:
        if not isinstance(body, Mapping):
            return None
        error = body.get("error") or (body if self._event == "error" else None)
        if error:
            if not filtered(error):
                raise fault_of(self._name, None, error)
            self.understood, self.finish = True, "content_filter"
            return ChatPiece(done=True)
        choices = body.get("choices")
        self._count(body.get("usage"))
        if not isinstance(choices, list):
            return None
        self.understood = True
        return next((self._choice(choice) for choice in choices[:1] if isinstance(choice, Mapping)), ChatPiece())

    def _choice(self, choice: Mapping[str, Any]) -> ChatPiece:
        """Return what a choice says. Its text is the content, or the words with which the model refuses to answer."""
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, Mapping):
            delta = {}
        calls = self._fragments.add(delta)
        if reason := choice.get("finish_reason"):
            self.finish = _FINISHES.get(str(reason), "stop")
        text = delta.get("content") or delta.get("refusal") or ""
        if isinstance(text, list):  # some servers send a list of parts: those of the answer have the key "text"
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, Mapping))
        text = text.translate(_CONTROLS) if isinstance(text, str) else ""
        return ChatPiece(text, thinking=calls or bool(delta.get("reasoning_content") or delta.get("reasoning")))

    def _count(self, usage: object) -> None:
        if not isinstance(usage, Mapping):
            return
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
        self.usage = LlmUsage(*(count if isinstance(count, int) else 0 for count in counts))
