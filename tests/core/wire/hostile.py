"""Malformed client messages, as text or bytes, for tests: a fixed list (`corpus`) and random ones (`hostile`)."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# Legal events of every kind. `corpus` damages each of them.
LEGAL: list[dict[str, Any]] = [
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "instructions": "Be brief.",
            "output_modalities": ["audio"],
            "max_output_tokens": 100,
            "tool_choice": "auto",
            "truncation": "auto",
            "tracing": None,
            "include": [],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "whisper-1"},
                    "noise_reduction": None,
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 500,
                        "idle_timeout_ms": None,
                        "create_response": True,
                        "interrupt_response": True,
                    },
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash", "speed": 1.0},
            },
        },
    },
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(960)).decode()},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {
        "type": "conversation.item.create",
        "previous_item_id": "root",
        "item": {
            "id": "x",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hello."}],
        },
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    },
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "1"}},
    {"type": "conversation.item.delete", "item_id": "x"},
    {"type": "conversation.item.retrieve", "item_id": "x"},
    {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 100},
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "output_modalities": ["text"],
            "instructions": "x",
            "max_output_tokens": 5,
            "metadata": {"k": "v"},
            "input": [{"type": "item_reference", "id": "x"}],
        },
    },
    {"type": "response.cancel", "response_id": "x"},
]

# Values that are wrong or extreme. Each of them replaces each field of a legal event.
POISON: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1e308,
    0.5,
    "",
    "\x00",
    "é" * 300,
    "root",
    [],
    [None],
    ["x"] * 10_000,
    [{}] * 300,
    {},
    {"type": None},
    {"": {}},
]

NOT_JSON: list[str | bytes] = [
    "",
    " ",
    "null",
    "true",
    "0",
    '"x"',
    "[]",
    "[[]]",
    "{",
    "}",
    "{]",
    '{"type"}',
    '{"type":}',
    '{"type": "input_audio_buffer.commit",}',
    "{'type': 'input_audio_buffer.commit'}",
    '{"type": NaN}',
    '{"type": "session.update", "session": {"type": "realtime", "x": Infinity}}',
    '{"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": -Infinity}}}}',
    '{"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": 1e999}}}}',
    '{"type": "response.create", "response": {"max_output_tokens": 1' + "0" * 5000 + "}}",
    '{"type": "conversation.item.delete", "item_id": "\\ud800"}',
    '{"\\udfff": 1, "type": "input_audio_buffer.commit"}',
    '{"event_id": "\\ud83d", "type": "nonsense"}',
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '{"type": "session.update", "session": ' + '{"a":' * 990 + "1" + "}" * 991,
    '{"type": "session.update", "session": {"type": "realtime", "output_modalities": ' + "[" * 900 + "]" * 900 + "}}",
    b"\xff\xfe",
    b"\x00\x01\x02",
    b"\x80" * 100,
    b"",
    b"{\x00}",
    '\ufeff{"type": "input_audio_buffer.commit"}',
    '{"type": "input_audio_buffer.commit"} trailing',
    '{"type": "input_audio_buffer.commit"}{"type": "input_audio_buffer.commit"}',
]


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield (name,)
        yield from ((name, *rest) for rest in _paths(child))


def spoiled(event: dict[str, Any], path: tuple[Any, ...], poison: Any) -> str:
    """Return the event as JSON with the value `poison` in the field at `path`, a tuple of keys and indices."""
    event = copy.deepcopy(event)
    place: Any = event
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = poison
    return json.dumps(event)


def without(event: dict[str, Any], path: tuple[Any, ...]) -> str:
    """Return the event as JSON without the field at `path`, a tuple of keys and indices."""
    event = copy.deepcopy(event)
    place: Any = event
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return json.dumps(event)


def _audio(encoded: str) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": encoded})


def corpus() -> list[str | bytes]:
    """Return legal events with each field missing or replaced by each wrong value, and messages that are no events."""
    messages: list[str | bytes] = [*NOT_JSON]
    messages.append('{"type": "response.create", "response": {"max_output_tokens": 1' + "0" * 400 + "}}")
    messages.append('{"type": "input_audio_buffer.commit"}'.encode("utf-16"))
    messages += [_audio(audio) for audio in ("!", "A", "AA", "AAA", "AAAA=", "AA==AA==", "\n", "é", "AAAAA", "_-__")]
    messages.append(_audio("A" * (21 * 1024 * 1024)))
    messages += [json.dumps({"type": kind}) for kind in ("", "nonsense", "response.done", "x" * 10_000, "session")]
    messages += [json.dumps({"type": event["type"]}) for event in LEGAL]
    messages.append(json.dumps({"type": "output_audio_buffer.clear", "event_id": "e" * 10_000}))
    for event in LEGAL:
        for path in _paths(event):
            messages.append(without(event, path))
            messages += [spoiled(event, path, poison) for poison in POISON]
    return messages


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["root", "auto", "x"])
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@st.composite
def hostile(draw: st.DrawFn) -> str | bytes:
    """Draw a damaged event, a random JSON document, or random text or bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.text() | st.binary())
    if kind == 1:
        return json.dumps(draw(trees))
    event = draw(st.sampled_from(LEGAL))
    path = draw(st.sampled_from(list(_paths(event))))
    return spoiled(event, path, draw(trees))
