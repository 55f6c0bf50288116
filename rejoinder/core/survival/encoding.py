"""Encoding of snapshots as JSON, with a version number.

The items take most of the space and seldom change. So `SnapshotEncoder` keeps the JSON text of each item of its session
and encodes only those that are new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any, TypeVar

from rejoinder.core.reply.prompt_window import ChatMessage, ConversationSummary
from rejoinder.core.survival.snapshot import LastReply, SessionSnapshot, SpokenProgress
from rejoinder.core.turns.endpointing import DetectionMode, PauseStats, TurnDetection
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item
from rejoinder.core.wire.session import SessionConfig

VERSION = 1
"""Version of the encoding. Snapshots of other versions are not read."""

Built = TypeVar("Built")

_ENUMS: dict[str, type[Enum]] = {"mode": DetectionMode, "input_format": AudioFormat, "output_format": AudioFormat}


class UnreadableSnapshot(Exception):
    """Raised if bytes are not a snapshot of this version."""


class SnapshotEncoder:
    """Encoder of the snapshots of one session. Not thread-safe."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[Item, str]] = {}

    def encode(self, snapshot: SessionSnapshot) -> bytes:
        """Return a snapshot as bytes, which `decode` reads."""
        known = self._items
        self._items = {
            item.id: kept if (kept := known.get(item.id)) and kept[0] is item else (item, _dump(_plain(item)))
            for item in snapshot.items
        }
        head = {name: value for name, value in _plain(snapshot).items() if name != "items"}
        head["summary"] = [snapshot.summary.text, [line.plain() for line in snapshot.summary.covers]]
        items = ",".join(text for _, text in self._items.values())
        return f'{{"version":{VERSION},"items":[{items}],{_dump(head)[1:]}'.encode()


def decode(data: bytes) -> SessionSnapshot:
    """Return the snapshot that `SnapshotEncoder.encode` has encoded.

    Raises:
        UnreadableSnapshot: The bytes are not a snapshot, or one of another version of this program.
    """
    try:
        found = json.loads(data)
        if found.pop("version") != VERSION:
            raise UnreadableSnapshot("the snapshot has another version")
        text, covers = found["summary"]
        found["summary"] = ConversationSummary(text, tuple(ChatMessage.from_plain(line) for line in covers))
        found["items"] = tuple(_build(Item, item) for item in found["items"])
        config = found["config"]
        config["detection"] = _build(TurnDetection, config["detection"])
        found["config"] = _build(SessionConfig, config)
        found["pauses"] = _build(PauseStats, found["pauses"])
        found["reply"] = _reply(found["reply"]) if found["reply"] else None
        return _build(SessionSnapshot, found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableSnapshot(f"the snapshot cannot be read ({type(error).__name__})") from None


def _reply(found: Json) -> LastReply:
    progress = found["progress"]
    if progress:
        marks = tuple((characters, end_ms) for characters, end_ms in progress["marks"])
        found["progress"] = _build(SpokenProgress, progress | {"marks": marks})
    return _build(LastReply, found)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values: nested dataclasses as objects, enums by their values.

    The fields `items` and `summary` are left as they are; the encoder encodes them by itself.
    """
    return {
        name: inner if name in ("items", "summary") else _plain_value(inner)
        for name, inner in ((field.name, getattr(value, field.name)) for field in fields(value))
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return _plain(value) if hasattr(value, "__dataclass_fields__") else value


def _build(kind: type[Built], found: Mapping[str, Any]) -> Built:
    """Return a dataclass from its JSON object. Names that it does not have are ignored, lists become tuples."""
    known = fields(kind)  # type: ignore[arg-type]  # `kind` is a dataclass
    values = {field.name: _typed(field, found[field.name]) for field in known if field.name in found}
    return kind(**values)


def _typed(field: Field[Any], value: Any) -> Any:
    if field.name in _ENUMS:
        return _ENUMS[field.name](value)
    is_tuple = isinstance(field.default, tuple) or (field.default is MISSING and str(field.type).startswith("tuple"))
    return tuple(value) if is_tuple and isinstance(value, list) else value
