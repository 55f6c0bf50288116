"""Tests of audio formats: a response is sent in the format that it announces, and times do not depend on it."""

from __future__ import annotations

import pytest

from rejoinder.core.wire.formats import AudioFormat
from tests.actors.stage_play import Play
from tests.actors.test_configuration import configure
from tests.actors.virtual_time import virtual

G711 = pytest.mark.parametrize("wire", [AudioFormat.PCMU, AudioFormat.PCMA], ids=lambda wire: wire.name)


@G711
@virtual
async def test_a_direction_changes_alone(wire: AudioFormat) -> None:
    """Input and output formats change separately, and session.updated shows G.711 without a rate."""
    async with Play().call() as caller:
        echoed = await configure(caller, audio={"output": {"format": {"type": wire.value}}})
        assert echoed["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert echoed["audio"]["output"]["format"] == {"type": wire.value}
        echoed = await configure(caller, audio={"input": {"format": {"type": wire.value}}, "output": {"speed": 1}})
        assert echoed["audio"]["input"]["format"] == echoed["audio"]["output"]["format"] == {"type": wire.value}
        assert caller.session.config.input_format is wire


@G711
@virtual
async def test_an_answer_is_a_sixth_of_the_bytes(wire: AudioFormat) -> None:
    """response.created and response.done name the configured format.

    The same answer has a sixth of the bytes in G.711 (8 kHz, 8 bits) as in 24 kHz 16-bit PCM.
    """
    async with Play().call() as caller:
        await caller.say()
        plain = len(caller.audio)
        await configure(caller, audio={"output": {"format": {"type": wire.value}}})
        done = await caller.say()
        created = caller.of("response.created")[-1]
        for event in (created, done):
            assert event["response"]["audio"]["output"]["format"] == {"type": wire.value}
        assert len(caller.audio) - plain == pytest.approx(plain / 6, abs=2)


@virtual
async def test_a_response_keeps_the_format_it_began_with() -> None:
    """If the output format changes during a response, the change applies to the next response."""
    async with Play().call() as caller:
        await caller.speak(1)
        await caller.listen("response.output_audio.delta")
        await configure(caller, audio={"output": {"format": {"type": "audio/pcmu"}}})
        await caller.listen("response.done")
        first = len(caller.audio)
        await caller.say()
        formats = [event["response"]["audio"]["output"]["format"]["type"] for event in caller.of("response.created")]
        assert formats == ["audio/pcm", "audio/pcmu"]
        assert len(caller.audio) - first == pytest.approx(first / 6, abs=2)


@virtual
async def test_one_response_may_have_a_format_of_its_own() -> None:
    """The format in a response.create (`audio.output.format`) applies to that response only."""
    async with Play().call() as caller:
        wanted = {"audio": {"output": {"format": {"type": "audio/pcma"}}}}
        await caller.ask(type="response.create", response=wanted)
        done = await caller.listen("response.done")
        assert done["response"]["audio"]["output"]["format"] == {"type": "audio/pcma"}
        assert caller.session.config.output_format is AudioFormat.PCM
        assert (await caller.say())["response"]["audio"]["output"]["format"]["type"] == "audio/pcm"


@pytest.mark.parametrize("wire", list(AudioFormat), ids=lambda wire: wire.name)
@virtual
async def test_truncation_counts_time_not_bytes(wire: AudioFormat) -> None:
    """In every format, a truncation at the same audio_end_ms keeps the same words.

    A truncation after the end of the audio is refused.
    """
    async with Play().call() as caller:
        await configure(caller, audio={"output": {"format": {"type": wire.value}}})
        await caller.say()
        item = [item for item in caller.session.conversation if item.role == "assistant"][-1]
        length_ms = item.audio_ms
        assert length_ms == pytest.approx(len(caller.audio) * 1000 / (wire.rate * wire.sample_bytes), abs=1)
        await caller.ask(
            type="conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=length_ms + 1000
        )
        assert (await caller.until("error"))["error"]["param"] == "audio_end_ms"
        await caller.ask(
            type="conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=length_ms // 2
        )
        await caller.until("conversation.item.truncated")
        kept = caller.session.conversation.get(item.id).text or ""
        assert kept
        assert len(kept.split()) == pytest.approx(len((item.text or "").split()) / 2, abs=1)
