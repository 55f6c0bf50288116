"""Messages and tools in the form of chat completions, which servers and chat templates share."""

from __future__ import annotations

from typing import Any

from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import ToolOffer


def chat_message(message: ChatMessage) -> dict[str, Any]:
    """Return a message as chat completions expect it, with the arguments of calls as JSON text."""
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        entry["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.role == "tool":
        entry["tool_call_id"] = message.call_id
    return entry


def tool_fields(offer: ToolOffer) -> dict[str, Any]:
    """Return the request fields `tools`, `tool_choice` and `parallel_tool_calls`; an empty dict without tools.

    Fields with their default value are left out, because some servers refuse fields that they do not know.
    """
    if not offer.tools:
        return {}
    fields: dict[str, Any] = {"tools": [tool.chat_form() for tool in offer.tools]}
    if offer.named:
        fields["tool_choice"] = {"type": "function", "function": {"name": offer.named}}
    elif offer.mode != "auto":
        fields["tool_choice"] = offer.mode
    return fields if offer.parallel else fields | {"parallel_tool_calls": False}
