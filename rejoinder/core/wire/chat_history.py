"""The conversation's items as messages for the language model, with the results of tool calls where models expect them.

Servers and chat templates want the results of a call directly after the message that calls. A conversation is less
orderly: the caller hears a phrase while a tool runs, or speaks again before its result arrives. The rules:

- Calls after an assistant message belong to that message, unless it has results already.
- What the assistant says between a call and its result becomes part of the message that calls.
- A result directly after its call becomes a message with the role "tool".
- The result of a tool server's call always stands at its call, in a message of its own.
- If the caller has spoken in between, the call gets the result PENDING, and the late result is a system message at
  the place where it arrived. So the next reply after it can announce it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import NO_ARGUMENTS, ToolCall

if TYPE_CHECKING:
    from rejoinder.core.wire.items import Item

PENDING = "The result has not arrived yet."


@dataclass(slots=True)
class _Entry:
    """One message, and the results of its calls by call id."""

    message: ChatMessage
    results: dict[str, str] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """True while at least one tool call of the message has no result."""
        return any(call.call_id not in self.results for call in self.message.calls)

    def messages(self) -> Iterable[ChatMessage]:
        yield self.message
        for call in self.message.calls:
            yield ChatMessage("tool", self.results.get(call.call_id, PENDING), call_id=call.call_id)


def chat_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """Return the messages of a conversation in order. A message item without text is left out."""
    entries: list[_Entry] = []
    for item in items:
        last = entries[-1] if entries and entries[-1].message.role == "assistant" else None
        if item.type == "message":
            if not item.text:
                continue
            if last and item.role == "assistant" and last.waits:
                words = f"{last.message.content} {item.text}".strip()
                last.message = replace(last.message, content=words)
            else:
                entries.append(_Entry(ChatMessage(item.role, item.text)))
        elif item.type == "mcp_list_tools":
            continue
        elif item.type in ("function_call", "mcp_call"):
            if last is None or last.results:
                last = _Entry(ChatMessage("assistant", ""))
                entries.append(last)
            last.message = replace(last.message, calls=(*last.message.calls, call_of(item)))
            if (result := server_result(item)) is not None:
                last.results[str(item.call["call_id"])] = result
        else:
            _add_result(entries, item)
    return [message for entry in entries for message in entry.messages()]


def server_result(item: Item) -> str | None:
    """Return the result of a tool server's call for the model; None if it is missing yet, or the client calls."""
    error = item.call.get("error")
    if item.type != "mcp_call" or (error is None and "output" not in item.call):
        return None
    return f"The tool failed: {error['message']}" if error else str(item.call["output"])


def call_of(item: Item) -> ToolCall:
    """Return the call of a function_call item."""
    arguments = str(item.call.get("arguments") or NO_ARGUMENTS)
    return ToolCall(str(item.call.get("name", "")), arguments, str(item.call.get("call_id", "")))


def _add_result(entries: list[_Entry], item: Item) -> None:
    call_id, output = str(item.call.get("call_id", "")), str(item.call.get("output", ""))
    last = entries[-1] if entries else None
    if last and call_id not in last.results and any(call.call_id == call_id for call in last.message.calls):
        last.results[call_id] = output
        return
    names = [call.name for entry in entries for call in entry.message.calls if call.call_id == call_id]
    of_what = f" {names[-1]}" if names else ""
    entries.append(_Entry(ChatMessage("system", f"Result of the tool call{of_what}: {output}")))
