"""Tools in the core: calls found in text, calls that may be made, schemas, and the history for the language model."""

from __future__ import annotations

import json

import pytest

from rejoinder.core.reply.prompt_window import ChatMessage, window
from rejoinder.core.reply.spoken.hidden import visible_text
from rejoinder.core.reply.tools.calls import FunctionTool, ToolCall, ToolOffer, plain_arguments
from rejoinder.core.reply.tools.fragments import MOST_CALLS, MOST_CHARACTERS, CallFragments
from rejoinder.core.reply.tools.plain_schema import plain_schema
from rejoinder.core.reply.tools.schema_values import fits, smallest_value
from rejoinder.core.reply.tools.written import begins_call, call_text, written_calls
from rejoinder.core.wire.chat_history import PENDING, chat_messages
from rejoinder.core.wire.items import Item

OFFER = ToolOffer((FunctionTool("look_up"), FunctionTool("book")))
CALL = ToolCall("look_up", '{"what": "tea"}')

WRITTEN = {
    "hermes": call_text(CALL),
    "hermes after words": f"One moment. {call_text(CALL)}",
    "hermes without an end": call_text(CALL).removesuffix("\n</tool_call>"),
    "after a thought": f"<think>I could call book.</think>{call_text(CALL)}",
    "plain object": '{"name": "look_up", "arguments": {"what": "tea"}}',
    "plain object on a line": 'Sure.\n{"name": "look_up", "parameters": {"what": "tea"}}',
    "object over lines": '{\n  "name": "look_up",\n  "arguments": {\n    "what": "tea"\n  }\n}',
    "nested function": '{"type": "function", "function": {"name": "look_up", "arguments": {"what": "tea"}}}',
    "arguments as text": '[TOOL_CALLS] [{"name": "look_up", "arguments": "{\\"what\\": \\"tea\\"}"}]',
    "llama": '<function=look_up>{"what": "tea"}</function>',
    "python tag": '<|python_tag|>{"name": "look_up", "parameters": {"what": "tea"}}',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_call_is_found_and_never_shown(name: str) -> None:
    """Each form gives the same call, and none of it is visible to the caller."""
    (found,) = written_calls(WRITTEN[name], OFFER)
    assert (found.name, json.loads(found.arguments)) == ("look_up", {"what": "tea"})
    assert begins_call(WRITTEN[name])
    assert "look_up" not in visible_text(WRITTEN[name])


def test_several_written_calls_are_found_in_order() -> None:
    """Calls in blocks of their own, and several in one list, are all found."""
    blocks = f"{call_text(CALL)}\n{call_text(ToolCall('book', '{}'))}"
    listed = '[TOOL_CALLS] [{"name": "look_up", "arguments": {}}, {"name": "book", "arguments": {}}]'
    for text in (blocks, listed):
        assert [call.name for call in written_calls(text, OFFER)] == ["look_up", "book"]
    assert len(written_calls(f"{blocks}\n{call_text(CALL)}", OFFER)) == 2, "a repeated call counts once"


@pytest.mark.parametrize(
    "text",
    [
        "You can look_up tea.",
        '{"name": "delete", "arguments": {}}',
        '{"name": "look_up", "arg',
        'She said {"name": "look_up", "arguments": {}} aloud.',
        f"<think>{call_text(CALL)}",
    ],
)
def test_other_text_is_no_call(text: str) -> None:
    """Words, undeclared tools, incomplete objects, objects within a line and thoughts are no calls."""
    assert written_calls(text, OFFER) == ()


def test_nothing_is_called_where_tools_may_not_be() -> None:
    """With the mode "none", with a named tool and without parallel calls, other calls are left out."""
    both = (CALL, ToolCall("book", "{}"))
    assert ToolOffer(OFFER.tools, "none").accepted(both) == ()
    assert ToolOffer(OFFER.tools, "required", "book").accepted(both) == both[1:]
    assert ToolOffer(OFFER.tools, parallel=False).accepted(both) == both[:1]
    assert not ToolOffer((), "required").forced


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("", "{}"),
        (" null ", "{}"),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ('{"a"', '{"a"'),
        ('"x"', '"x"'),
    ],
)
def test_arguments_are_corrected_only_if_they_mean_an_object(written: str, plain: str) -> None:
    """Empty arguments become an empty object, and an object in a JSON string that object. Others stay."""
    assert plain_arguments(written) == plain


def test_endless_calls_are_limited() -> None:
    """A server that never ends gives at most MOST_CALLS calls, with at most MOST_CHARACTERS of arguments together."""
    fragments = CallFragments()
    for number in range(MOST_CALLS + 5):
        arguments = "x" * (MOST_CHARACTERS // 4)
        fragments.add({"tool_calls": [{"index": number, "function": {"name": "f", "arguments": arguments}}]})
    assert len(fragments.calls) == MOST_CALLS
    assert sum(len(call.arguments) for call in fragments.calls) == MOST_CHARACTERS


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": ["null", "string"]}, "b": {"const": 3}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}}, "required": ["a"]},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_smallest_value_fits(schema: dict[str, object]) -> None:
    """The smallest value of a schema fits it, and an object with an unknown or missing property does not."""
    value = smallest_value(schema)
    assert fits(value, schema)
    if schema:
        assert not fits(value | {"unknown": 1}, schema)
        assert not fits({}, schema)


CITY: dict[str, object] = {"type": "string"}
HOSTILE: list[tuple[object, dict[str, object]]] = [
    (None, {}),
    ({"type": "nonsense"}, {}),
    ({"type": "object", "properties": []}, {"type": "object"}),
    ({"type": "string", "pattern": "(a+)+$", "maxLength": 10**9}, CITY),
    ({"type": "integer", "minimum": 5, "maximum": 3}, {"type": "integer"}),
    ({"type": "integer", "minimum": 1, "maximum": 3}, {"type": "integer", "minimum": 1, "maximum": 3}),
    ({"type": "array", "items": CITY, "maxItems": 10**9}, {"type": "array", "items": CITY}),
    ({"enum": []}, {}),
    ({"type": ["string", "null"]}, {"anyOf": [CITY, {"type": "null"}]}),
    ({"oneOf": [{"const": 1}, True]}, {"anyOf": [{"const": 1}, {}]}),
    ({"$ref": "#/$defs/x", "$defs": {"x": CITY}}, CITY),
    ({"$ref": "https://example.org/x"}, {}),
    ({"$ref": "#/nowhere/at/all"}, {}),
    (
        {"properties": {"a": CITY}, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": CITY}, "required": ["a"], "additionalProperties": False},
    ),
]


@pytest.mark.parametrize(("schema", "plain"), HOSTILE)
def test_a_schema_is_reduced_to_what_grammars_support(schema: object, plain: dict[str, object]) -> None:
    """Unsupported keywords are left out, references are resolved, and invalid schemas accept any value."""
    assert plain_schema(schema) == plain


def test_a_recursive_schema_ends() -> None:
    """A schema that contains itself is unrolled to a limited depth."""
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}, "next": {"$ref": "#/properties/child"}}}
    loop = {"$ref": "#/a", "a": {"$ref": "#/a"}}
    assert len(json.dumps(plain_schema(tree))) < 5000
    assert plain_schema(loop) == {}
    bush = {"type": "object", "properties": {f"p{number}": {"$ref": "#"} for number in range(200)}}
    assert len(json.dumps(plain_schema(bush))) < 100_000


def item(number: int, role: str, text: str) -> Item:
    return Item(f"i{number}", role=role, text=text)  # type: ignore[arg-type]  # the tests give valid roles


def call(number: int, call_id: str) -> Item:
    wire = {"call_id": call_id, "name": "look_up", "arguments": "{}"}
    return Item(f"i{number}", type="function_call", role="assistant", text=None, call=wire)


def output(number: int, call_id: str, text: str) -> Item:
    return Item(
        f"i{number}", type="function_call_output", role="system", text=None, call={"call_id": call_id, "output": text}
    )


def roles(*items: Item) -> list[tuple[str, str, int]]:
    return [(message.role, message.content, len(message.calls)) for message in chat_messages(items)]


def test_results_follow_their_calls() -> None:
    """Parallel calls are one message, sequential ones two. Results come directly after, in the order of the calls."""
    found = roles(
        item(1, "user", "tea?"),
        item(2, "assistant", "Let me see."),
        call(3, "a"),
        call(4, "b"),
        output(5, "b", "B"),
        output(6, "a", "A"),
        call(7, "c"),
        output(8, "c", "C"),
    )
    assert found == [
        ("user", "tea?", 0),
        ("assistant", "Let me see.", 2),
        ("tool", "A", 0),
        ("tool", "B", 0),
        ("assistant", "", 1),
        ("tool", "C", 0),
    ]


def test_words_between_call_and_result_join_the_call() -> None:
    """A lead-in between a call and its result is a part of the message that calls."""
    assert roles(call(1, "a"), item(2, "assistant", "One moment."), output(3, "a", "A")) == [
        ("assistant", "One moment.", 1),
        ("tool", "A", 0),
    ]


def test_a_late_result_is_a_system_message() -> None:
    """After other words of the caller, the call has the result PENDING, and the late result comes where it arrived."""
    assert roles(call(1, "a"), item(2, "user", "hello?"), output(3, "a", "A")) == [
        ("assistant", "", 1),
        ("tool", PENDING, 0),
        ("user", "hello?", 0),
        ("system", "Result of the tool call look_up: A", 0),
    ]


def test_a_result_whose_call_was_deleted_is_a_system_message() -> None:
    """The result of a call that a client has deleted stays a part of the prompt."""
    assert roles(item(1, "user", "tea?"), output(2, "a", "A"))[1] == ("system", "Result of the tool call: A", 0)


def test_the_window_keeps_messages_that_only_call() -> None:
    """An assistant message without words is in the prompt if it calls a tool, and left out otherwise."""
    turns = [ChatMessage("user", "tea?"), ChatMessage("assistant", "", (CALL,)), ChatMessage("assistant", " ")]
    assert window("", turns, 4) == tuple(turns[:2])
