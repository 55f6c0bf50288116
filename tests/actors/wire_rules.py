"""Rules that the server events of every test conversation must follow.

The types of openai-python check the shape of each event. The other rules are those of OpenAI's Realtime API that types
cannot express, such as the order of events.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, get_args

from openai import BaseModel
from openai.types.realtime import RealtimeServerEvent

Json = dict[str, Any]

MAX_FRAME_BYTES = 1024 * 1024
# Fields that may be null, because null has a meaning there. Any other empty field must be left out.
NULLABLE = {"previous_item_id", "transcript", "status_details", "usage", "metadata"}
NULLABLE_IN_SESSION = {"turn_detection", "transcription", "noise_reduction", "tracing", "idle_timeout_ms"}

OWN_EVENTS: dict[str, set[str]] = {
    "rejoinder.pong": set(),
    "rejoinder.session.move": {"reason"},
    "rejoinder.session.resumed": {"items", "last_item_id", "audio_after_item_id", "response"},
}
"""Fields of the events that only Rejoinder sends. OpenAI's clients ignore these events."""


def _models() -> dict[str, type[BaseModel]]:
    union = get_args(RealtimeServerEvent)[0]
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(union)}


MODELS = _models()


def on_the_wire(event: Json) -> Json:
    """Return the event as a transport sends it: encoded as JSON and decoded again."""
    if isinstance(event.get("delta"), bytes):
        assert event["delta"], "an audio delta without audio"
        event = event | {"delta": base64.b64encode(event["delta"]).decode()}
    frame = json.dumps(event, allow_nan=False)
    assert len(frame.encode()) < MAX_FRAME_BYTES, f"{event['type']} is too long a frame"
    decoded: Json = json.loads(frame)
    return decoded


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted path of each null in a JSON value."""
    if value is None:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from nulls(child, f"{path}.{name}" if path else str(name))


def check_shape(event: Json) -> None:
    """Assert that an event matches its type in openai-python and has no null that a client does not expect."""
    if event["type"].startswith("rejoinder."):
        assert event.keys() == {"event_id", "type"} | OWN_EVENTS[event["type"]], event
        return
    MODELS[event["type"]].model_validate(event, strict=True)
    assert isinstance(event["event_id"], str)
    for path in nulls(event):
        name, inside_session = path.rsplit(".", 1)[-1], path.startswith("session.")
        # Nulls are allowed in the field `rejoinder`, and in tools and metadata, which are echoed unchanged.
        own = path.startswith(("session.tools.", "session.tracing.metadata.", "rejoinder."))
        assert own or name in NULLABLE or (inside_session and name in NULLABLE_IN_SESSION), f"{event['type']}: {path}"


class _Call:
    """Checker of the order of the events of one function call. Each event must come exactly once."""

    def __init__(self, item: Json, *, in_conversation: bool) -> None:
        assert (item["status"], item["arguments"]) == ("in_progress", "")
        self.name, self.call_id = item["name"], item["call_id"]
        assert 0 < len(self.call_id) <= 32
        self.arguments = ""
        arguments = "response.function_call_arguments"
        self.left = [
            *(["conversation.item.added"] if in_conversation else []),
            f"{arguments}.delta",
            f"{arguments}.done",
            *(["conversation.item.done"] if in_conversation else []),
            "response.output_item.done",
        ]

    def take(self, event: Json) -> None:
        kind = event["type"]
        assert [kind] == self.left[:1], f"{kind} instead of {self.left[:1]}"
        self.left.pop(0)
        if "item" in event:
            assert (event["item"]["name"], event["item"]["call_id"]) == (self.name, self.call_id)
            if kind.endswith(".done"):
                assert (event["item"]["status"], event["item"]["arguments"]) == ("completed", self.arguments)
        else:
            assert event["call_id"] == self.call_id
        self.arguments += event.get("delta", "")
        if kind.endswith("arguments.done"):
            assert (event["name"], event["arguments"]) == (self.name, self.arguments)


class _ServerCall:
    """Checker of the order of the events of one call of a tool server. Its result may come after the response."""

    def __init__(self, item: Json, *, in_conversation: bool) -> None:
        assert in_conversation
        assert item["arguments"] == ""
        self.name, self.arguments = item["name"], ""
        self.left = [
            "conversation.item.added",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.in_progress",
            "response.output_item.done",
        ]

    def take(self, event: Json) -> None:
        kind = event["type"]
        if not self.left:
            assert kind in ("response.mcp_call.completed", "response.mcp_call.failed", "conversation.item.done")
            return
        assert kind == self.left.pop(0)
        self.arguments += event.get("delta", "")
        if kind == "response.output_item.done":
            assert (event["item"]["name"], event["item"]["arguments"]) == (self.name, self.arguments)


class _Response:
    """Checker of the order of one response's events. Each event but the deltas must come exactly once.

    The output is a message, function calls, or a message and then function calls.
    """

    def __init__(self, created: Json) -> None:
        response = created["response"]
        self.id: str = response["id"]
        self.conversation: str | None = response.get("conversation_id")
        self.metadata = response["metadata"]
        audio = response["output_modalities"] == ["audio"]
        self.item_id = ""
        self.text = ""
        text = "output_audio_transcript" if audio else "output_text"
        content = [f"response.{text}.delta", "response.output_audio.delta"]
        done = (["response.output_audio.done"] if audio else []) + [f"response.{text}.done"]
        item = "conversation.item" if self.conversation else None
        self.calls: dict[str, _Call | _ServerCall] = {}
        self.deltas = set(content)
        self.sample_bytes = 2 if audio and response["audio"]["output"]["format"]["type"] == "audio/pcm" else 1
        self.left = [
            "response.output_item.added",
            *([f"{item}.added"] if item else []),
            "response.content_part.added",
            *done,
            "response.content_part.done",
            *([f"{item}.done"] if item else []),
            "response.output_item.done",
            "response.done",
        ]

    def take(self, event: Json) -> None:
        kind = event["type"]
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        kinds: dict[str, type[_Call | _ServerCall]] = {"function_call": _Call, "mcp_call": _ServerCall}
        checker = kinds.get(event.get("item", {}).get("type", ""))
        if checker and kind == "response.output_item.added":
            begun = bool(self.item_id)
            assert event["output_index"] == begun + len(self.calls)
            self.calls[item_id] = checker(event["item"], in_conversation=self.conversation is not None)
        elif item_id in self.calls:
            self.calls[item_id].take(event)
        else:
            self._take_message(kind, event)

    def _take_message(self, kind: str, event: Json) -> None:
        """Check an event of the message item, or response.done."""
        if kind == "response.done" and self.calls and not self.item_id:
            self.left = ["response.done"]
        if kind in self.deltas:
            assert self.left[0].endswith(".done"), f"{kind} outside its part"
            assert len(self.left) >= 5 - (self.conversation is None), f"{kind} after a .done"
            if isinstance(event["delta"], str) and "audio.delta" not in kind:
                self.text += event["delta"]
            if "audio.delta" in kind:
                assert len(base64.b64decode(event["delta"])) % self.sample_bytes == 0, "half a sample"
        else:
            assert [kind] == self.left[:1], f"{kind} instead of {self.left[:1]}"
            self.left.pop(0)
        if "item" in event:
            self.item_id = self.item_id or event["item"]["id"]
            assert event["item"]["id"] == self.item_id
            if kind.endswith(".added"):
                assert not self.calls, "a message after a function call"
                assert (event["item"]["status"], event["item"]["content"]) == ("in_progress", [])
        if "item_id" in event:
            assert event["item_id"] == self.item_id
        if kind in ("response.output_audio_transcript.done", "response.output_text.done"):
            assert self.text == event.get("transcript", event.get("text")), "the whole is not the sum of its deltas"
        if kind == "response.done":
            response = event["response"]
            assert response["metadata"] == self.metadata
            assert all(not call.left for call in self.calls.values()), "the events of a call are missing"
            message = [self.item_id] if self.item_id else []
            assert [item["id"] for item in response["output"]] == [*message, *self.calls]
            assert response["usage"] is not None


class Wire:
    """Checker of the server events of one conversation. Call `take` with each event in order, then `finish`."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._items: list[str] = []
        self._done: set[str] = set()
        self._responses: dict[str, _Response] = {}
        self._ended: set[str] = set()
        self._utterance: str | None = None
        self._ended_speech = ""
        self._expected: list[tuple[str, str]] = []

    def take(self, event: Json) -> None:
        """Assert that the next event of the session has a correct shape and may come now."""
        event = on_the_wire(event)
        check_shape(event)
        kind = event["type"]
        assert event["event_id"] not in self._ids, "an event id came twice"
        assert self._ids or kind == "session.created", "session.created comes first"
        self._ids.add(event["event_id"])
        self._follow_caller(kind, event)
        self._follow_response(kind, event)
        self._follow_items(kind, event)

    def finish(self) -> None:
        """Assert that the conversation may end here: no event of a turn is missing. A response may still be open."""
        assert not self._expected, f"{self._expected[0]} never came"

    def _follow_caller(self, kind: str, event: Json) -> None:
        committed = ("input_audio_buffer.committed", self._ended_speech)
        if kind == "input_audio_buffer.cleared" and self._expected[:1] == [committed]:
            self._expected = []  # the utterance was dismissed, so it is not committed
        if self._expected:
            found = (kind, event.get("item_id") or event.get("item", {}).get("id"))
            assert found == self._expected.pop(0), f"{found} came in the middle of a commit"
        item_id = event.get("item_id", "")
        rest = [("conversation.item.added", item_id), ("conversation.item.done", item_id)]
        if kind == "input_audio_buffer.speech_started":
            self._utterance = item_id
        elif kind == "input_audio_buffer.speech_stopped":
            assert item_id == self._utterance
            self._utterance, self._ended_speech = None, item_id
            self._expected = [("input_audio_buffer.committed", item_id), *rest]
        elif kind == "input_audio_buffer.timeout_triggered":
            assert event["audio_start_ms"] < event["audio_end_ms"]
            self._expected = [("input_audio_buffer.committed", item_id), *rest]
        elif kind == "input_audio_buffer.cleared":
            self._utterance = None
        elif kind == "input_audio_buffer.committed":
            assert self._utterance is None, "an announced utterance was committed without its end"
            assert event["previous_item_id"] == (self._items[-1] if self._items else None)
            self._expected = rest

    def _follow_response(self, kind: str, event: Json) -> None:
        if kind == "response.created":
            response = _Response(event)
            assert response.id not in self._ended
            assert response.id not in self._responses
            if response.conversation:
                assert all(not other.conversation for other in self._responses.values()), "two responses at once"
            self._responses[response.id] = response
            return
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        owner = self._responses.get(response_id) if response_id else self._owner_of(kind, event)
        assert owner or not response_id, f"{kind} of a response that is not open"
        if owner:
            owner.take(event)
        if kind == "response.done":
            self._ended.add(response_id)
            del self._responses[response_id]

    def _owner_of(self, kind: str, event: Json) -> _Response | None:
        if not kind.startswith(("conversation.item.added", "conversation.item.done", "response.mcp_call.")):
            return None
        item_id = event.get("item_id") or event["item"]["id"]
        return next((r for r in self._responses.values() if item_id in (r.item_id, *r.calls)), None)

    def _follow_items(self, kind: str, event: Json) -> None:
        if kind == "conversation.item.added":
            before, item_id = event["previous_item_id"], event["item"]["id"]
            assert item_id not in self._items
            self._items.insert(0 if before is None else self._items.index(before) + 1, item_id)
        elif kind == "conversation.item.done":
            assert event["item"]["id"] not in self._done, "an item was done twice"
            self._done.add(event["item"]["id"])
            at = self._items.index(event["item"]["id"])
            assert event["previous_item_id"] == (self._items[at - 1] if at else None)
        elif kind == "conversation.item.deleted":
            self._items.remove(event["item_id"])
            self._done.discard(event["item_id"])
            for response in self._responses.values():
                if response.item_id == event["item_id"]:
                    response.left.remove("conversation.item.done")
