"""Tool calls of a reply: collected from the deltas of the language model, and sent to the client as items.

Calls of tool servers are items of type mcp_call: the client sees them, and this system makes them.

A call reaches the client only after the generation has ended, so its arguments are complete, and a generation that is
repeated or hedged calls nothing twice. The client may run the tool while the words before the call are still spoken.
"""

from __future__ import annotations

from actors.stages.ports import TokenDelta
from actors.stages.session_context import SessionContext
from rejoinder.core.reply.tools.calls import ToolCall, ToolOffer
from rejoinder.core.reply.tools.written import written_calls
from rejoinder.core.wire.items import Item, ItemType

# OpenAI's limit for the length of a call id, in characters.
CALL_ID_CHARACTERS = 32


class CalledTools:
    """The tool calls of one generation. Call `read` with each delta, then `items`."""

    def __init__(self, offer: ToolOffer, context: SessionContext) -> None:
        """Create an empty collection for a generation that offers the tools of `offer`."""
        self._offer = offer
        self._context = context
        self._text: list[str] = []
        self._calls: tuple[ToolCall, ...] = ()

    def read(self, delta: TokenDelta) -> None:
        """Add a delta: its text, in which the model may call a tool, and its calls."""
        if delta.continues is not None:
            self._text.clear()
        if self._offer.active:
            self._text.append(delta.text)
        self._calls += delta.calls

    def run(self, items: tuple[Item, ...]) -> None:
        """Make the calls of tool servers among these items, which the client has got."""
        self._context.server_tools.run(items, self._offer.client_names)

    def items(self) -> tuple[Item, ...]:
        """Return the calls as items with new ids. Calls of tools that may not be called are left out."""
        calls = self._offer.accepted(self._calls) or written_calls("".join(self._text), self._offer)
        taken = set(self._context.conversation.call_ids)
        found = []
        for call in calls:
            call_id = call.call_id
            if not call_id or len(call_id) > CALL_ID_CHARACTERS or call_id in taken:
                call_id = self._context.stamp("call")
            taken.add(call_id)
            wire = {"call_id": call_id, "name": call.name, "arguments": call.arguments}
            kind: ItemType = "function_call"
            if label := self._offer.server_of(call.name):
                kind, wire = "mcp_call", wire | {"server_label": label}
            found.append(Item(self._context.stamp("item"), type=kind, role="assistant", text=None, call=wire))
        return tuple(found)
