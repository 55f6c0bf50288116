"""Tests of chat requests: messages and tools in all their forms, refused parameters, and stop sequences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.errors import CallerError
from rejoinder.core.http_api.chat import ChatOrder
from rejoinder.core.http_api.places import HostState, RequestPlaces, StageRoute
from rejoinder.core.http_api.stop_text import StopFinder
from rejoinder.core.settings.access.stage_http import StageHttpSettings
from rejoinder.core.wire.fields import Fields

ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}

NAMED = {"type": "function", "function": {"name": "x"}}


def order(**fields: Any) -> ChatOrder:
    """Return the order of a request with one message and these fields."""
    return ChatOrder.parse(Fields(ASKED | fields, ""), 100)


def test_messages_in_all_forms() -> None:
    """Developers are systems, parts of content are joined, and calls keep their ids for their results."""
    call = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    found = order(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        ]
    ).messages
    assert [(message.role, message.content) for message in found] == [
        ("system", "Be\nkind."),
        ("assistant", ""),
        ("tool", "12:00"),
    ]
    assert found[1].calls[0].call_id == found[2].call_id == "c1"


def test_the_lowest_token_limit_counts() -> None:
    """The answer has at most as many tokens as the client and the server allow."""
    assert [order(**limits).max_tokens for limits in ({}, {"max_tokens": 7}, {"max_completion_tokens": 999})] == [
        *(100, 7, 100)
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"top_p": 0.5}, "top_p"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{}]}, "functions"),
        ({"best_of": 2}, "best_of"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """A parameter that is unknown or not supported with its value is an error that names it."""
    with pytest.raises(CallerError) as refused:
        order(**fields)
    assert refused.value.param == param


@given(st.lists(st.text("ab#", max_size=4), max_size=12), st.lists(st.text("ab#", min_size=1, max_size=3), max_size=3))
def test_stop_sequences_end_the_text_however_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    """The text passed on is the whole text before the first stop sequence, whatever the pieces are."""
    finder = StopFinder(stops)
    shown = "".join(finder.push(piece) for piece in pieces)
    shown += finder.flush()
    text = "".join(pieces)
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert finder.stopped == bool(ends)
    if not ends:
        assert shown == text
    else:  # a longer sequence that begins earlier may only be recognized after a shorter one has ended the text
        assert text.startswith(shown)
        assert len(shown) >= min(ends)


def test_places_of_one_host() -> None:
    """A request is refused while its kind or its key has all places, and a place is free after the request has left."""
    places = RequestPlaces(StageHttpSettings(chats=2, speeches=2, per_key=3))
    assert [places.enter(StageRoute.CHAT, "k", HostState()) for _ in range(2)] == [None, None]
    assert (full := places.enter(StageRoute.CHAT, "k", HostState())) is not None
    assert full.status == 503
    assert places.enter(StageRoute.SPEECH, "k", HostState()) is None
    assert (much := places.enter(StageRoute.SPEECH, "k", HostState())) is not None
    assert much.status == 429
    places.leave(StageRoute.CHAT, "k")
    assert places.enter(StageRoute.CHAT, "other", HostState()) is None


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (HostState(lost_stages=("llm",)), True),
        (HostState(lost_stages=("stt",)), False),
        (HostState(late=True), True),
        (HostState(calls=1, stages_full=True), True),
        (HostState(calls=0, stages_full=True), False),
    ],
)
def test_calls_come_first(state: HostState, refused: bool) -> None:
    """A request is refused if its stage is lost, the host is late, or calls need the whole capacity."""
    found = RequestPlaces(StageHttpSettings()).enter(StageRoute.CHAT, "", state)
    assert (found is not None and found.status == 503) is refused
