"""The conversation as an ordered list of items, whose texts become the language model's prompt.

Truncating an assistant item keeps only the words that were played. An unknown id raises CallerError, so that a client's
mistake does not end the session.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from rejoinder.core.reply.prompt_window import ChatMessage, Role
from rejoinder.core.wire.chat_history import chat_messages
from rejoinder.core.wire.fields import Fields, Json, refuse

ItemType = Literal["message", "function_call", "function_call_output", "mcp_call", "mcp_list_tools"]
Status = Literal["in_progress", "completed", "incomplete"]

# Maximum number of items, content parts per item, and characters per item. They protect the host's memory, and allow a
# client to send the whole history of a long call again.
MAX_ITEMS = 2000
MAX_CONTENT_PARTS = 64
MAX_TEXT = 100_000
ITEM_BYTES = 300
"""Bytes that an item takes in memory besides its texts."""

_CONTENT_TYPES = {
    "user": ("input_text", "input_audio", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio", "text", "input_text", "audio"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the conversation.

    Attributes:
        text: Text or transcript for the language model; None for function calls and their outputs.
        spoken: True if the item was audio, so that `text` is its transcript.
        audio_ms: Length of generated audio in milliseconds; 0 for text.
        call: Fields of a function call or of its output, as on the wire. Empty for messages.
    """

    id: str
    type: ItemType = "message"
    role: Role = "user"
    text: str | None = ""
    spoken: bool = False
    status: Status = "completed"
    audio_ms: int = 0
    call: Json = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Upper bound of the bytes that the item takes in memory."""
        texts = (self.id, self.text or "", *(value for value in self.call.values() if isinstance(value, str)))
        return ITEM_BYTES + sum(len(text) if text.isascii() else 4 * len(text) for text in texts)

    def wire(self, *, reveal: bool = True) -> Json:
        """Return the item as JSON for an event.

        Args:
            reveal: False to send null as the transcript of a spoken user item, as conversation.item.added requires.
        """
        base: Json = {"id": self.id, "object": "realtime.item", "type": self.type, "status": self.status}
        if self.type in ("mcp_call", "mcp_list_tools"):
            own = {name: value for name, value in self.call.items() if name != "call_id"}
            return {"id": self.id, "object": "realtime.item", "type": self.type} | own
        if self.type != "message":
            return base | self.call
        base["role"] = self.role
        if self.role == "assistant":
            kind, key = ("output_audio", "transcript") if self.spoken else ("output_text", "text")
            base["content"] = [{"type": kind, key: self.text}] if self.text else []
        elif self.spoken:
            base["content"] = [{"type": "input_audio", "transcript": self.text if reveal else None}]
        else:
            base["content"] = [{"type": "input_text", "text": self.text}]
        return base


class Conversation:
    """Ordered list of the conversation items of one session. Not thread-safe.

    Attributes:
        size: Upper bound of the bytes that the items take in memory.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.size = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: str) -> bool:
        return any(item.id == item_id for item in self._items)

    def insert(self, item: Item, previous_id: str | None = None) -> str | None:
        """Add a client's item and return the id of the item before it; None if it is the first.

        Args:
            item: The new item.
            previous_id: Id of the item to insert after. "root": insert first; None: append.

        Raises:
            CallerError: The item's id exists already, or `previous_id` does not.
        """
        if item.id in self:
            raise refuse(
                f"An item with id {item.id!r} exists already.", "item.id", code="item_create_duplicate_item_id"
            )
        if previous_id is None:
            at = len(self._items)
        elif previous_id == "root":
            at = 0
        else:
            at = self._index(previous_id, "previous_item_id") + 1
        self._items.insert(at, item)
        self.size += item.size
        return self.predecessor(item.id)

    def append(self, item: Item) -> str | None:
        """Add an item that the session made at the end, and return the id of the item before it; None if it is first.

        MAX_ITEMS limits only a client's items. The maximum length of a session limits the items of its turns.
        """
        self._items.append(item)
        self.size += item.size
        return self.predecessor(item.id)

    def predecessor(self, item_id: str) -> str | None:
        """Return the id of the item before this one; None if it is the first. Raise CallerError for an unknown id."""
        at = self._index(item_id, "item_id")
        return self._items[at - 1].id if at else None

    def get(self, item_id: str, *, code: str = "invalid_value") -> Item:
        """Return the item with this id; raise CallerError with the error code `code` if it is unknown."""
        return self._items[self._index(item_id, "item_id", code)]

    def update(self, item: Item) -> None:
        """Replace an item by a new version. Do nothing if the item was deleted in the meantime."""
        for at, known in enumerate(self._items):
            if known.id == item.id:
                self._items[at] = item
                self.size += item.size - known.size

    def delete(self, item_id: str) -> None:
        """Remove an item; raise CallerError for an unknown id."""
        self.size -= self._items.pop(self._index(item_id, "item_id")).size

    def truncate(self, item_id: str, played: str, audio_end_ms: int) -> None:
        """Reduce an assistant item to the part that was played. Raise CallerError for an unknown id.

        Args:
            item_id: Id of the item.
            played: The words that were played, which replace the item's text.
            audio_end_ms: Milliseconds of the item's audio that were played.
        """
        item = self.get(item_id)
        self.update(replace(item, text=played, audio_ms=min(item.audio_ms, audio_end_ms), status="incomplete"))

    def shortened(self, item_id: str, audio_end_ms: int) -> str:
        """Return the words at the beginning of a spoken item that its first `audio_end_ms` milliseconds have.

        It is an estimate for an item whose times of words are forgotten: all words count as equally long.
        """
        item = self.get(item_id)
        words = (item.text or "").split()
        return " ".join(words[: int(len(words) * min(1.0, audio_end_ms / max(1, item.audio_ms)))])

    def messages(self, without: Container[str] = ()) -> list[ChatMessage]:
        """Return the conversation for the language model (`chat_history.chat_messages`).

        The items whose ids are in `without` are left out.
        """
        return chat_messages(item for item in self._items if item.id not in without)

    @property
    def open_calls(self) -> frozenset[str]:
        """Call ids of the tool calls that have no result yet."""
        return (self.call_ids - self._call_ids("function_call_output")) | self.running_calls

    @property
    def running_calls(self) -> frozenset[str]:
        """Call ids of the calls of tool servers that have no result yet."""
        return frozenset(
            str(item.call["call_id"])
            for item in self._items
            if item.type == "mcp_call" and not {"output", "error"} & item.call.keys()
        )

    @property
    def call_ids(self) -> frozenset[str]:
        """Call ids of all tool calls that the client makes."""
        return self._call_ids("function_call")

    def check_result(self, item: Item) -> None:
        """Raise CallerError if an item is the result of a tool call that is not in the conversation."""
        call_id = item.call.get("call_id")
        if item.type == "function_call_output" and call_id not in self.call_ids:
            raise refuse(
                f"No function call with call_id {str(call_id)[:80]!r} in this conversation.",
                "item.call_id",
                code="invalid_call_id",
                remedy="Send the call_id of a function_call item.",
            )

    def _call_ids(self, kind: ItemType) -> frozenset[str]:
        return frozenset(str(item.call.get("call_id", "")) for item in self._items if item.type == kind)

    def _index(self, item_id: str, param: str, code: str = "invalid_value") -> int:
        for at, item in enumerate(self._items):
            if item.id == item_id:
                return at
        raise refuse(
            f"No item with id {item_id[:80]!r} in this conversation.", param, code=code, remedy="Use a known item id."
        )


def parse_item(fields: Fields, fresh_id: str, *, clip: bool = False) -> Item:
    """Return the item in a client's JSON. An invalid field raises CallerError.

    Args:
        fields: The JSON object.
        fresh_id: Id of the item if the client gives it none.
        clip: True if the item has audio that is to be transcribed. Then its text is None until the transcript is known.
    """
    item_id = fields.text("id", limit=128) if fields.raw("id") else fresh_id
    kind = fields.choice("type", ("message", "function_call", "function_call_output"))
    if kind == "function_call":
        call = {
            "call_id": fields.text("call_id", ""),
            "name": fields.text("name", limit=128),
            "arguments": fields.text("arguments"),
        }
        return Item(item_id, type="function_call", role="assistant", text=None, call=call)
    if kind == "function_call_output":
        call = {"call_id": fields.text("call_id"), "output": fields.text("output")}
        return Item(item_id, type="function_call_output", role="system", text=None, call=call)
    return _parse_message(fields, item_id, clip=clip)


def _parse_message(fields: Fields, item_id: str, *, clip: bool) -> Item:
    role = fields.choice("role", ("user", "assistant", "system"))
    texts: list[str] = []
    spoken = False
    for part in fields.items("content", MAX_CONTENT_PARTS):
        part_type = part.choice("type", _CONTENT_TYPES[role])
        if part_type == "input_image":
            raise refuse(
                "Images are not supported.", part.at("type"), code="unsupported_content", remedy="Send input_text."
            )
        if part_type in ("input_audio", "output_audio", "audio"):
            spoken = True
            if part.optional_text("transcript") is None and part_type == "input_audio" and not clip:
                raise refuse(
                    "This input_audio has neither a transcript nor audio that can be transcribed here.",
                    part.at("transcript"),
                    code="unsupported_content",
                    remedy="Send its transcript, or create an item with its audio.",
                )
            texts.append(part.optional_text("transcript") or "")
        else:
            texts.append(part.text("text"))
    text = " ".join(t for t in texts if t)
    if len(text) > MAX_TEXT:
        message = f"The item has more than {MAX_TEXT} characters."
        raise refuse(message, fields.at("content"), remedy="Split it into several items.")
    if clip and text:
        raise refuse(
            "An item has either text and transcripts, or audio without a transcript.",
            fields.at("content"),
            code="unsupported_content",
            remedy="Create two items.",
        )
    return Item(item_id, role=role, text=None if clip else text, spoken=spoken)  # type: ignore[arg-type]  # choice() narrowed it
