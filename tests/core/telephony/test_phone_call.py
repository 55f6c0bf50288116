"""Tests of a telephone call as a Realtime client: marks, interruptions, keys, tools and the end."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.telephony.phone_call import (
    GOODBYE_S,
    DropAudio,
    EndCall,
    PhoneCall,
    PhoneCommand,
    PlayAudio,
    StartTransfer,
    ToSession,
)
from rejoinder.core.telephony.phone_playout import PhonePlayout, PlayedItem
from rejoinder.core.telephony.phone_tools import PhoneProfile

PROFILE = PhoneProfile("Be kind.", {"sales": "+4930"}, hang_up=True)
AUDIO = bytes(range(256)) * 3 + bytes(32)


def _begun(profile: PhoneProfile = PROFILE) -> PhoneCall:
    call = PhoneCall(profile)
    call.server_event({"type": "session.created"}, 0.0)
    return call


def _delta(item: str = "item_1", audio: bytes = AUDIO) -> dict[str, Any]:
    return {"type": "response.output_audio.delta", "item_id": item, "delta": base64.b64encode(audio).decode()}


def _done(status: str = "completed") -> dict[str, Any]:
    return {"type": "response.done", "response": {"status": status}}


def _tool(name: str, arguments: str = "{}") -> dict[str, Any]:
    item = {"type": "function_call", "name": name, "call_id": "call_1", "arguments": arguments}
    return {"type": "response.output_item.done", "item": item}


def _events(commands: list[PhoneCommand]) -> list[dict[str, Any]]:
    return [command.event for command in commands if isinstance(command, ToSession)]


def test_the_session_is_configured_before_it_gets_audio() -> None:
    """Audio from before the session is kept, and follows the settings: mu-law both ways, instructions, tools."""
    call = PhoneCall(PROFILE)
    assert call.caller_audio(b"\x01") == []
    update, audio = _events(call.server_event({"type": "session.created"}, 0.0))
    session = update["session"]
    assert {way["format"]["type"] for way in session["audio"].values()} == {"audio/pcmu"}
    assert session["instructions"] == "Be kind."
    assert [tool["name"] for tool in session["tools"]] == ["transfer_call", "hang_up"]
    assert session["tools"][0]["parameters"]["properties"]["destination"]["enum"] == ["sales"]
    assert base64.b64decode(audio["audio"]) == b"\x01"


def test_a_resumed_session_keeps_its_settings() -> None:
    """A call that goes on sends no settings, only audio."""
    call = PhoneCall(PROFILE, resumed=True)
    call.caller_audio(b"\x01")
    assert [event["type"] for event in _events(call.server_event({"type": "session.created"}, 0.0))] == [
        "input_audio_buffer.append"
    ]


@given(st.binary(min_size=1, max_size=2000))
def test_audio_passes_bit_exact_both_ways(audio: bytes) -> None:
    """The session gets exactly the caller's mu-law, and the telephone exactly the session's."""
    call = _begun()
    (event,) = _events(call.caller_audio(audio))
    assert base64.b64decode(event["audio"], validate=True) == audio
    (played,) = call.server_event(_delta(audio=audio), 1.0)
    assert isinstance(played, PlayAudio)
    assert played.audio == audio


def test_marks_say_what_the_caller_has_heard() -> None:
    """An interruption 150 ms after the first mark of 100 ms came back truncates the item at 200 ms: no more was sent.

    50 ms after the mark, it would be 150 ms.
    """
    for after_s, heard in ((0.05, 150), (0.15, 200)):
        call = _begun()
        marks = [command.mark for _ in range(2) for command in call.server_event(_delta(), 1.0)]  # type: ignore[union-attr]
        call.played(marks[0], 1.4)
        drop, truncate = call.server_event({"type": "input_audio_buffer.speech_started"}, 1.4 + after_s)
        assert drop == DropAudio()
        assert truncate == ToSession(
            {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": heard}
        )
        call.played(marks[1], 1.6)  # Twilio returns the marks of dropped audio
        assert call.heard(2.0) == PlayedItem("item_1", heard)


def test_nothing_is_dropped_when_all_was_played() -> None:
    """Speech after the last mark came back neither clears the telephone nor truncates."""
    call = _begun()
    (played,) = call.server_event(_delta(), 1.0)
    assert isinstance(played, PlayAudio)
    call.played(played.mark, 1.2)
    assert call.server_event({"type": "input_audio_buffer.speech_started"}, 1.3) == []


def test_a_resumed_reply_continues_the_position() -> None:
    """After a cut at 40 ms the same item goes on at 40 ms, as the server sends it. An item not begun is cut at 0."""
    playout = PhonePlayout()
    playout.sent("a", 800, 1.0)
    playout.sent("b", 800, 1.0)
    assert playout.cut(1.04) == (PlayedItem("a", 40), PlayedItem("b", 0))
    mark = playout.sent("a", 800, 2.0)
    playout.returned(mark, 2.1)
    assert playout.heard(9.0) == PlayedItem("a", 140)


def test_a_cancelled_response_is_not_played_on() -> None:
    """If a response is cancelled without speech (a key was pressed), the telephone drops the rest."""
    call = _begun()
    call.server_event(_delta(), 1.0)
    assert DropAudio() in call.server_event(_done("cancelled"), 1.05)
    call.server_event(_delta("item_2"), 2.0)
    assert call.server_event(_done(), 2.05) == []


def test_keys_go_to_the_session() -> None:
    """A key becomes the event `rejoinder.dtmf`."""
    assert _events(_begun().key_pressed("5")) == [{"type": "rejoinder.dtmf", "digit": "5"}]


def test_a_transfer_goes_to_an_allowed_destination_only() -> None:
    """The model's destination is looked up in the settings. Others, and broken arguments, get an error as result."""
    call = _begun()
    (started,) = call.server_event(_tool("transfer_call", '{"destination": "sales", "reason": "price"}'), 1.0)
    assert isinstance(started, StartTransfer)
    assert (started.transfer.number, started.transfer.reason) == ("+4930", "price")
    for wrong in ('{"destination": "+1900"}', '{"destination": ["sales"]}', "[]", "{", ""):
        (result,) = _events(_begun().server_event(_tool("transfer_call", wrong), 1.0))
        assert "not possible" in result["item"]["output"]
    (refused,) = _events(_begun(PhoneProfile()).server_event(_tool("hang_up"), 1.0))
    assert "not possible" in refused["item"]["output"]


def test_the_answer_to_a_tool_waits_for_the_response() -> None:
    """The result is sent at once; the next response is requested when the running one has ended."""
    call = _begun()
    call.server_event({"type": "response.created"}, 1.0)
    (started,) = call.server_event(_tool("transfer_call", '{"destination": "sales"}'), 1.0)
    assert isinstance(started, StartTransfer)
    (result,) = _events(call.transferred(started.transfer, "accepted"))
    assert result["item"] == {"type": "function_call_output", "call_id": "call_1", "output": "accepted"}
    assert _events(call.server_event(_done(), 1.5)) == [{"type": "response.create"}]


def test_the_call_ends_after_the_goodbye_was_played() -> None:
    """`hang_up` ends the call when the mark behind the goodbye has come back, or after GOODBYE_S without it."""
    for by_mark in (True, False):
        call = _begun()
        (played,) = call.server_event(_delta(), 1.0)
        assert isinstance(played, PlayAudio)
        call.server_event(_tool("hang_up"), 1.0)
        assert call.server_event(_done(), 1.1) == []
        assert call.tick(2.0) == []
        ended = call.played(played.mark, 2.0) if by_mark else call.tick(1.1 + GOODBYE_S)
        assert ended == [EndCall()]
        assert (call.ended, call.tick(99.0)) == (True, [])


def test_a_caller_who_speaks_is_not_hung_up_on() -> None:
    """Speech during the goodbye cancels the hang-up, and the model is told so."""
    call = _begun()
    call.server_event(_delta(), 1.0)
    call.server_event(_tool("hang_up"), 1.0)
    call.server_event(_done(), 1.05)
    result, truncate = _events(call.server_event({"type": "input_audio_buffer.speech_started"}, 1.06))
    assert "went on speaking" in result["item"]["output"]
    assert truncate["type"] == "conversation.item.truncate"
    assert call.tick(99.0) == []
