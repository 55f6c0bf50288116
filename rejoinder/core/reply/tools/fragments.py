"""Put the tool calls of a streamed chat completion together, in every form that public servers send.

The protocol: each chunk has a list of fragments with the call's position (`index`). The first fragment has the id and
the name, and each has the next characters of the arguments. Servers deviate from it:

- no index, or the same index for every call: a new id, or a name after complete arguments, begins a new call;
- no id, or the id in every fragment;
- the name in pieces, or whole in every fragment;
- all calls whole in one chunk, or in a message instead of a stream;
- the arguments as a JSON object instead of text, sent again as a whole at the end, or growing with every chunk;
- one call in the older field `function_call`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rejoinder.core.reply.tools.calls import ToolCall, json_object

MOST_CALLS = 32
"""Maximum number of calls of one answer. Further ones are dropped."""
MOST_CHARACTERS = 200_000
"""Maximum number of characters of the arguments of one answer. Further ones are dropped."""


@dataclass(slots=True)
class _Call:
    index: int | None
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """The arguments of the tool call, as JSON text.

        These are all streamed pieces together. If they are no JSON object together, it is the last piece that is one
        alone; if no piece is, all pieces.
        """
        whole = "".join(self.pieces)
        if json_object(whole) is not None:
            return whole
        return next((piece for piece in reversed(self.pieces) if json_object(piece) is not None), whole)

    @property
    def complete(self) -> bool:
        return json_object("".join(self.pieces)) is not None

    def add_name(self, piece: str) -> None:
        if not self.name or piece.startswith(self.name):
            self.name = piece
        elif not self.name.endswith(piece) or not self.pieces:
            self.name += piece

    def add_arguments(self, piece: str) -> None:
        # Some servers repeat all arguments so far in every chunk.
        if len(self.pieces) == 1 and len(piece) > len(self.pieces[0]) > 1 and piece.startswith(self.pieces[0]):
            self.pieces = [piece]
        elif piece:
            self.pieces.append(piece)


class CallFragments:
    """The tool calls of one response, from its fragments. Call `add` with each delta or message of the response."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._characters = 0

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far, in the order in which they began. Calls without a name are left out."""
        return tuple(
            ToolCall(call.name.strip(), call.arguments, call.call_id) for call in self._calls if call.name.strip()
        )

    @property
    def begun(self) -> bool:
        """True if the model has begun a call, even without a name."""
        return bool(self._calls)

    @property
    def complete(self) -> bool:
        """True if there is a call and the arguments of every call are complete."""
        return bool(self._calls) and all(call.complete or not call.pieces for call in self._calls)

    def add(self, delta: Mapping[str, Any]) -> bool:
        """Add the fragments of a delta or a message. Return True if it has any."""
        fragments = delta.get("tool_calls")
        if isinstance(fragments, Mapping):  # one call instead of a list
            fragments = [fragments]
        found = [entry for entry in fragments if isinstance(entry, Mapping)] if isinstance(fragments, list) else []
        legacy = delta.get("function_call")
        if isinstance(legacy, Mapping):
            found.append({"index": 0, "function": legacy})
        for fragment in found:
            self._add(fragment)
        return bool(found)

    def _add(self, fragment: Mapping[str, Any]) -> None:
        function = fragment.get("function")
        if not isinstance(function, Mapping):
            function = fragment
        name = function.get("name") if isinstance(function.get("name"), str) else ""
        call_id = fragment.get("id") if isinstance(fragment.get("id"), str) else ""
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = self._call_of(fragment.get("index"), str(call_id or ""), str(name or ""))
        if call is None:
            return
        call.call_id = call.call_id or str(call_id or "")
        if name:
            call.add_name(str(name))
        room = MOST_CHARACTERS - self._characters
        piece = (arguments or "")[: max(0, room)]
        self._characters += len(piece)
        call.add_arguments(piece)

    def _call_of(self, index: object, call_id: str, name: str) -> _Call | None:
        """Return the call to which a fragment belongs, which may be a new one; None if there are too many calls."""
        number = index if isinstance(index, int) and not isinstance(index, bool) else None
        if call_id and (known := next((call for call in self._calls if call.call_id == call_id), None)):
            return known
        candidates = [call for call in self._calls if number is None or call.index == number]
        current = candidates[-1] if candidates else None
        if current is not None and not _begins_another(current, call_id, name):
            return current
        if len(self._calls) >= MOST_CALLS:
            return None
        self._calls.append(_Call(number))
        return self._calls[-1]


def _begins_another(current: _Call, call_id: str, name: str) -> bool:
    """Return True if a fragment with this id and name begins another call than the newest one with its index."""
    if call_id and current.call_id and call_id != current.call_id:
        return bool(name)
    return bool(name) and current.complete and not call_id
