"""Tests of parsing a client's messages: legal events are accepted, others are refused with the name of the field."""

from __future__ import annotations

import base64
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.wire import client
from tests.core.wire.hostile import LEGAL, NOT_JSON, corpus, hostile


@pytest.mark.parametrize("event", LEGAL, ids=lambda event: event["type"])
def test_every_legal_event_is_read(event: dict[str, object]) -> None:
    """Every legal event is parsed, with the client's event_id, as the same type from text and from bytes."""
    message = json.dumps(event | {"event_id": "e1"})
    assert client.parse(message).event_id == "e1"
    assert type(client.parse(message.encode())) is type(client.parse(message))


def _fault(message: str | bytes) -> client.MalformedEvent | None:
    try:
        client.parse(message)
    except client.MalformedEvent as fault:
        return fault
    return None


def test_the_corpus_is_refused_by_name_or_legal() -> None:
    """Each message in `corpus` (changed legal events) gives an event, or a MalformedEvent with code and message.

    There are at least 500 messages, and at least 100 are refused. All fields of an error can be written as UTF-8 JSON.
    """
    messages = corpus()
    assert len(messages) >= 500
    faults = [fault for message in messages if (fault := _fault(message))]
    assert len(faults) >= 100
    for fault in faults:
        assert fault.code
        assert fault.message
        json.dumps([fault.message, fault.param, fault.client_event_id], ensure_ascii=False).encode()


@pytest.mark.parametrize("message", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_message_that_is_not_an_event_is_refused(message: str | bytes) -> None:
    """Invalid JSON, JSON that is not an object, invalid Unicode, infinite numbers and deep nesting are refused."""
    with pytest.raises(client.MalformedEvent):
        client.parse(message)


@given(hostile())
def test_nothing_else_is_ever_raised(message: str | bytes) -> None:
    """For any message, parse returns an event or raises MalformedEvent."""
    try:
        event = client.parse(message)
    except client.MalformedEvent:
        return
    assert isinstance(event, client.ClientEvent)


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "nonsense"}, "unknown_event_type", "type"),
        ({}, "missing_required_parameter", "type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "input_audio_buffer.append", "audio": "%%%"}, "invalid_value", "audio"),
        ({"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 1.5}, "invalid_type", "audio_end_ms"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 1}, "invalid_value", "content_index"),
        ({"type": "response.create", "response": []}, "invalid_type", "response"),
    ],
)
def test_a_refusal_names_the_field(event: dict[str, object], code: str, param: str) -> None:
    """The error has the code, the name of the field (param) and the client's event_id, also after pickling."""
    with pytest.raises(client.MalformedEvent) as raised:
        client.parse(json.dumps(event | {"event_id": "mine"}))
    assert (raised.value.code, raised.value.param, raised.value.client_event_id) == (code, param, "mine")
    assert vars(pickle.loads(pickle.dumps(raised.value))) == vars(raised.value)


@pytest.mark.parametrize("typed", [{}, {"event_id": "e"}])
def test_audio_may_end_within_a_sample(typed: dict[str, str]) -> None:
    """Audio of an odd number of bytes is accepted, on the fast path and by the JSON parser."""
    event = client.parse(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"} | typed))
    assert isinstance(event, client.AppendAudio)
    assert event.audio == bytes(3)


def test_one_append_may_hold_fifteen_mebibytes() -> None:
    """Audio of 15 MiB in one input_audio_buffer.append is accepted, as by OpenAI, and more is refused."""
    most = base64.b64encode(bytes(client.MAX_APPEND_BYTES)).decode()
    event = client.parse(json.dumps({"type": "input_audio_buffer.append", "audio": most}))
    assert isinstance(event, client.AppendAudio)
    assert len(event.audio) == client.MAX_APPEND_BYTES
    more = base64.b64encode(bytes(client.MAX_APPEND_BYTES + 6)).decode()
    with pytest.raises(client.MalformedEvent, match="longer than"):
        client.parse(json.dumps({"type": "input_audio_buffer.append", "audio": more}))


_ENCODED = st.one_of(
    st.binary(max_size=60).map(lambda audio: base64.b64encode(audio).decode()),
    st.text(st.sampled_from('AZaz09+/="\\ %,}\n\u00e9\ud800'), max_size=12),
)


def _spelled(audio: str, space: str, typed_first: bool, event_id: str) -> str:
    kind = f'"type":{space}"input_audio_buffer.append"'
    sound = f'"audio":{space}"{audio}"'
    first, second = (kind, sound) if typed_first else (sound, kind)
    return f"{{{first},{space}{second}{event_id}}}"


_SPELLED = st.builds(
    _spelled, _ENCODED, st.sampled_from(["", " ", "  "]), st.booleans(), st.sampled_from(["", ',"event_id":"e"'])
)


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    """Draw an input_audio_buffer.append message, intact or with up to four characters cut out."""
    message = draw(_SPELLED)
    at, cut = draw(st.integers(0, len(message))), draw(st.integers(0, 4))
    return message[:at] + message[at + cut :]


def _outcome(message: str | bytes) -> object:
    """Return the result of `parse` in comparable form: type, id and audio of an event, or the fields of the error."""
    try:
        event = client.parse(message)
    except client.MalformedEvent as fault:
        return vars(fault)
    return type(event), event.event_id, event.audio if isinstance(event, client.AppendAudio) else None


@given(st.one_of(_damaged(), hostile()))
def test_the_fast_path_for_audio_equals_the_parser(message: str | bytes) -> None:
    """Every message gives the same event or error with and without the fast path, which skips the JSON parser."""
    fast = _outcome(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_APPEND_SPELLINGS", ())
        assert _outcome(message) == fast


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("names", [("type", "audio"), ("audio", "type")])
def test_common_spellings_take_the_fast_path(
    names: tuple[str, str], separators: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input_audio_buffer.append as json.dumps or JSON.stringify writes it is read without the JSON parser."""
    values = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(960)).decode()}
    message = json.dumps({name: values[name] for name in names}, separators=separators)
    monkeypatch.setattr(client, "_document", lambda message: pytest.fail("parsed"))
    assert client.parse(message) == client.AppendAudio(None, bytes(960))
