"""Tests of what one client may make the host keep and send back. Each refusal names the field, the limit and a fix."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.settings.settings import HostSettings, Settings
from rejoinder.core.wire.session import MAX_TOOLS_JSON, MAX_TRACING_JSON, MAX_TRANSCRIPTION_JSON
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

SMALL = Settings(limits=LimitSettings(conversation_bytes=65_536))


def _item(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]}


async def _error(caller: Caller, **event: Any) -> dict[str, Any]:
    """Send an event that is refused, and return the error that answers it."""
    event_id = await caller.ask(**event)
    error: dict[str, Any] = (await caller.until("error", len(caller.of("error")) + 1))["error"]
    assert error["event_id"] == event_id
    return error


def _update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


@pytest.mark.parametrize(
    ("session", "param", "limit"),
    [
        ({"tracing": {"metadata": {"k": "x" * 10_000}}}, "session.tracing", MAX_TRACING_JSON),
        (
            {"tools": [{"type": "function", "name": "f", "parameters": {"k": "x" * 2000}}] * 100},
            "session.tools",
            MAX_TOOLS_JSON,
        ),
        ({"tools": [{"type": "function", "name": "f"}] * 1000}, "session.tools", 128),
        (
            {"audio": {"input": {"transcription": {"model": "m", "prompt": "x" * 20_000}}}},
            "session.audio.input.transcription",
            MAX_TRANSCRIPTION_JSON,
        ),
        ({"instructions": "x" * 100_001}, "session.instructions", 100_000),
    ],
    ids=["tracing", "tools", "number of tools", "transcription", "instructions"],
)
@virtual
async def test_settings_that_are_sent_back_are_bounded(session: dict[str, Any], param: str, limit: int) -> None:
    """A session.update with a field that is too large is refused. The error names the field, its limit and a fix.

    Every later session.updated stays small.
    """
    async with Play().call() as caller:
        error = await _error(caller, **_update(**session))
        assert error["param"] == param
        assert str(limit) in error["message"]
        assert any(fix in error["message"] for fix in ("Send at most", "Shorten it."))
        await caller.ask(**_update(output_modalities=["text"]))
        updated = await caller.until("session.updated")
        assert len(str(updated)) < 2000


@virtual
async def test_a_conversation_has_a_maximum_size() -> None:
    """Items of a client are refused once the conversation reaches `conversation_bytes`. Deleting one makes room."""
    async with Play(settings=SMALL).call() as caller:
        for number in range(6):
            await caller.ask(type="conversation.item.create", item={"id": f"i{number}", **_item("x" * 10_000)})
        error = await _error(caller, type="conversation.item.create", item=_item("x" * 10_000))
        assert (error["code"], error["param"]) == ("conversation_too_large", "item")
        assert "65536 bytes" in error["message"]
        assert "Delete items" in error["message"]
        await caller.ask(type="conversation.item.delete", item_id="i0")
        await caller.ask(type="conversation.item.create", item={"id": "new", **_item("x" * 10_000)})
        await caller.until("conversation.item.done", 7)
        assert caller.session.conversation.size < 65_536


@virtual
async def test_all_clients_of_a_host_share_its_memory() -> None:
    """A client is refused when all clients together keep `host_bytes`. The end of a session gives its bytes back."""
    play = Play(settings=Settings(limits=LimitSettings(host_bytes=1_048_576)))
    async with play.open() as host:
        stored = host.services.stored
        first, second = Caller(), Caller()
        async with host.converse("first", first.take, "rejoinder") as session:
            first.session = session
            for _ in range(10):
                await first.ask(type="conversation.item.create", item=_item("x" * 99_000))
            await first.until("conversation.item.done", 10)
            assert 990_000 < stored.used < 1_000_000
            async with host.converse("second", second.take, "rejoinder") as other:
                second.session = other
                error = await _error(second, type="conversation.item.create", item=_item("x" * 99_000))
                assert error["code"] == "host_memory_full"
        assert stored.used == 0


@virtual
async def test_a_message_may_not_have_many_values() -> None:
    """A message full of empty arrays is refused without parsing: parsing 16 MB of them took more than a second."""
    async with Play().call() as caller:
        arrays = ",".join(["[]"] * 60_000)
        await caller.throw('{"type":"session.update","session":{"type":"realtime","x":[' + arrays + "]}}")
        error = (await caller.until("error"))["error"]
        assert error["code"] == "too_many_values"
        assert "16384 values" in error["message"]


@virtual
async def test_audio_that_waits_for_a_commit_is_counted() -> None:
    """Audio above `audio_ring_s` counts among what all clients make the host keep.

    If there is no room, the oldest audio is dropped with an error that names the limit.
    """
    settings = Settings(host=HostSettings(audio_ring_s=5), limits=LimitSettings(host_bytes=2_000_000))
    play = Play(settings=settings)
    async with play.call() as caller:
        stored = caller.session.context.services.stored
        await caller.ask(**_update(audio={"input": {"turn_detection": None}}))
        caller.session.append_audio(bytes(30 * 32_000))
        assert 25 * 32_000 <= stored.used <= 2_000_000
        assert not caller.of("error")
        caller.session.append_audio(bytes(60 * 32_000))
        error = (await caller.until("error"))["error"]
        assert error["code"] == "input_audio_buffer_full"
        assert "limits.host_bytes" in error["message"]
        assert stored.used <= 2_000_000
    assert stored.used == 0
