"""Tests of calls of a scripted Twilio: a host in this process with fake stages, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any
from xml.etree import ElementTree

import pytest

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.telephony.twilio_routes import MAX_FORM_BYTES, TwilioAccess
from deployments.telephony.twilio_socket import MAX_MALFORMED
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import ApiKey, digest_of
from rejoinder.core.audio.g711 import MU_LAW
from rejoinder.core.errors import ConfigError
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.survival.journal_table import JournalTable
from rejoinder.core.telephony import twiml
from rejoinder.core.telephony.twilio_signature import signature_of
from rejoinder.core.wire.formats import WireDecoder, WireEncoder
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.replying.test_backend_faults import EventLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual
from tests.deployments.telephony.twilio_peer import HUSH, PUBLIC, TOKEN, TWILIO, Twilio, TwilioStream, application

ANSWER = "One two three four five six seven eight nine ten eleven twelve."


def _settings(**telephony: Any) -> Settings:
    twilio = TWILIO | telephony.pop("twilio", {})
    return parse_settings({"telephony": {"twilio": twilio, **telephony}, "host": telephony.pop("host", {})})


def _play(*words: str, llm: WordyLlm | None = None, table: JournalTable | None = None, **telephony: Any) -> Play:
    """Return a scenario in which the caller says `words`, one text for each utterance."""
    stt = ScriptedStt(deque(words or ["What time is it?"]))
    return Play(settings=_settings(**telephony), stt=stt, llm=llm or WordyLlm(ANSWER), table=table)


def _call(name: str, arguments: str = "{}") -> tuple[TokenDelta, ...]:
    return (TokenDelta("", 0, "tool_calls", LlmUsage(9, 9), calls=(ToolCall(name, arguments),)),)


async def _answered(stream: TwilioStream) -> None:
    """Ask a question and wait until some of the answer was played."""
    before = len(stream.heard)
    stream.speak(1.0)
    await stream.until(lambda: len(stream.heard) - before > 4000)


@virtual
async def test_a_call_holds_a_turn() -> None:
    """A caller asks, hears the whole answer, and no more waits at Twilio than the lead that the settings allow.

    Every piece of audio has its mark behind it, and nothing but media and marks is sent.
    """
    play = _play()
    async with application(play) as served, Twilio(served).talking() as stream:
        stream.speak(1.0)
        await stream.until(lambda: len(stream.got) > 8000 and not stream.playing)
        await asyncio.sleep(5.0)
        assert stream.status == 101
        assert stream.heard == stream.got
        kinds = [message["event"] for message in stream.messages]
        assert kinds == ["media", "mark"] * (len(kinds) // 2)
        assert stream.most_ahead_s <= play.settings.conversation.playout_lead_ms / 1000 + 0.1


@virtual
async def test_the_callers_audio_reaches_the_session_bit_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of the session gets exactly the bytes that Twilio sent, from the first one on."""
    decoded: list[bytes] = []
    decode = WireDecoder.__call__

    def recording(self: WireDecoder, audio: bytes) -> bytes:
        decoded.append(audio)
        return decode(self, audio)

    monkeypatch.setattr(WireDecoder, "__call__", recording)
    every_code = bytes(range(256)) * 5
    async with application(_play()) as served:
        twilio = Twilio(served)
        _, answer = await twilio.voice()
        stream = twilio.stream(answer)
        stream._say = [every_code[at : at + 160] for at in range(0, len(every_code), 160)]
        async with stream.open():
            await stream.until(lambda: len(decoded) >= 10)
    assert b"".join(decoded)[:1600] == every_code + HUSH * 2
    assert MU_LAW.encode(MU_LAW.decode(every_code)).replace(b"\x7f", b"\xff") == every_code.replace(b"\x7f", b"\xff")


@virtual
async def test_the_sessions_audio_reaches_twilio_bit_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twilio gets exactly the mu-law that the session has made from the voice's 24 kHz."""
    sent: list[bytes] = []
    encode = WireEncoder.__call__

    def recording(self: WireEncoder, pcm: bytes) -> bytes:
        sent.append(encode(self, pcm))
        return sent[-1]

    monkeypatch.setattr(WireEncoder, "__call__", recording)
    async with application(_play()) as served, Twilio(served).talking() as stream:
        stream.speak(1.0)
        await stream.until(lambda: len(stream.got) > 8000 and not stream.playing)
        assert stream.got == b"".join(sent)


@virtual
async def test_speech_clears_what_was_not_played_and_the_history_has_what_was_heard() -> None:
    """A barge-in clears Twilio's buffer, and the next prompt has only the words whose audio was played."""
    llm = WordyLlm(ANSWER)
    play = _play("What time is it?", "Stop that please now", "Go on", llm=llm)
    async with application(play) as served, Twilio(served).talking() as stream:
        await _answered(stream)
        heard = len(stream.heard)
        stream.speak(1.5)
        await stream.until(lambda: stream.count("clear") == 1)
        assert len(stream.heard) - heard < 8000 * 0.4
        await stream.until(
            lambda: len(llm.requests) > 1 and llm.requests[-1][1].messages[-1].content.startswith("Stop")
        )
        said = [message.content for message in llm.requests[-1][1].messages if message.role == "assistant"]
    assert said
    assert ANSWER.startswith(said[0])
    assert 0 < len(said[0]) < len(ANSWER)
    # The fake voice takes 80 ms for a character.
    assert len(said[0]) * 0.08 <= len(stream.heard) / 8000


@virtual
async def test_a_noise_pauses_the_answer_and_nothing_of_it_is_lost() -> None:
    """Speech without words clears Twilio's buffer; the answer goes on from where the caller stopped hearing it.

    Marks take no time here, so no sample is missing and none is played twice.
    """
    play = _play("What time is it?", "")
    async with application(play) as served, Twilio(served).talking() as stream:
        await _answered(stream)
        stream.speak(0.3)
        await stream.until(lambda: stream.count("clear") == 1)
        heard = len(stream.heard)
        await stream.until(lambda: len(stream.heard) > heard + 800)
        await asyncio.sleep(8.0)
        assert not stream.playing
        # The fake voice takes 80 ms for a character of each segment.
        assert len(stream.heard) / 8000 == pytest.approx(sum(map(len, play.tts.texts)) * 0.08, abs=0.01)


@virtual
async def test_keys_become_a_turn() -> None:
    """Keys end the reply at once, and reach the model as a text of the caller when # is pressed."""
    llm = WordyLlm(ANSWER)
    async with application(_play(llm=llm)) as served, Twilio(served).talking() as stream:
        await _answered(stream)
        for digit in "42#":
            stream.send(event="dtmf", dtmf={"track": "inbound_track", "digit": digit})
        await stream.until(lambda: stream.count("clear") == 1, 1.0)
        await stream.until(lambda: "4 2 #" in llm.requests[-1][1].messages[-1].content, 1.0)
        heard = len(stream.heard)
        await stream.until(lambda: len(stream.heard) > heard + 4000)


@virtual
async def test_keys_without_an_end_become_a_turn_after_a_pause() -> None:
    """Without #, the keys are complete `telephony.keypad_pause_ms` after the last one."""
    llm = WordyLlm(ANSWER)
    async with application(_play(llm=llm, keypad_pause_ms=500)) as served, Twilio(served).talking() as stream:
        await asyncio.sleep(0.5)
        for digit in "17":
            stream.send(event="dtmf", dtmf={"digit": digit})
            await asyncio.sleep(0.4)
        assert all("1 7" not in request.messages[-1].content for _, request in llm.requests)
        await stream.until(lambda: any("1 7" in request.messages[-1].content for _, request in llm.requests), 1.0)


@virtual
async def test_stop_ends_the_call_and_the_conversation() -> None:
    """`stop` frees the place at once. Twilio's next question is answered with <Hangup>."""
    table = JournalTable(1_000_000, 120)
    async with application(_play(table=table)) as served:
        twilio = Twilio(served)
        async with twilio.talking() as stream:
            await _answered(stream)
            stream.send(event="stop", stop={"callSid": "CA1"})
            await asyncio.sleep(1.0)
            assert not len(table)
        _, again = await twilio.voice(f"{PUBLIC}/v1/telephony/twilio/voice?attempt=1")
        assert ElementTree.fromstring(again)[0].tag == "Hangup"


@virtual
async def test_a_lost_stream_goes_on_on_another_host() -> None:
    """The stream breaks in the middle of an answer: the next stream of the call, on another host, speaks the rest."""
    table = JournalTable(1_000_000, 120)
    first, second = _play(table=table), _play(table=table)
    async with application(first) as one, application(second) as two:
        async with Twilio(one).talking() as stream:
            redirect = ElementTree.fromstring((await Twilio(one).voice())[1])[1].text or ""
            await _answered(stream)
        assert redirect.endswith("/voice?attempt=1")
        async with Twilio(two).talking(redirect) as again:
            await again.until(lambda: len(again.got) > 8000 and not again.playing)
            assert again.status == 101
    spoken = " ".join(second.tts.texts)
    assert spoken.endswith("twelve.")
    assert not spoken.startswith("One")


@virtual
async def test_a_call_without_journal_ends_with_its_stream() -> None:
    """Without a journal there is no <Redirect>, and a further question is answered with <Hangup>."""
    async with application(_play()) as served:
        twilio = Twilio(served)
        assert [verb.tag for verb in ElementTree.fromstring((await twilio.voice())[1])] == ["Connect"]
        _, again = await twilio.voice(f"{PUBLIC}/v1/telephony/twilio/voice?attempt=1")
        assert ElementTree.fromstring(again)[0].tag == "Hangup"


@pytest.mark.parametrize("signature", ["", "wrong", None], ids=["missing", "wrong", "of another token"])
@virtual
async def test_requests_without_twilios_signature_are_refused(signature: str | None) -> None:
    """A form and a stream without the right signature get 403."""
    async with application(_play()) as served:
        twilio = Twilio(served, token="another" if signature is None else TOKEN)
        headers = {} if signature is None else {"x-twilio-signature": signature}
        status, body = await twilio.voice(**headers)
        assert (status, json.loads(body)["error"]["code"]) == (403, "invalid_signature")
        stream = Twilio(served).stream((await Twilio(served).voice())[1])
        stream._scope["headers"] = [(b"x-twilio-signature", (signature or "x").encode())]
        async with stream.open():
            await stream.until(lambda: stream.status == 403, 1.0)


@virtual
async def test_the_signature_is_that_of_the_public_address() -> None:
    """A signature for another host name or path is refused."""
    async with application(_play()) as served:
        for url in ("https://other.example/v1/telephony/twilio/voice", f"{PUBLIC}/v1/telephony/twilio/voice?x=1"):
            form = {"CallSid": "CA1", "From": "+15550001", "To": "+15550002", "CallStatus": "ringing"}
            signature = signature_of(TOKEN, url, form.items())
            status, _ = await Twilio(served).voice(**{"x-twilio-signature": signature})
            assert status == 403


@pytest.mark.parametrize("wrong", ["other call", "no ticket", "expired"])
@virtual
async def test_a_stream_needs_the_ticket_of_its_call(wrong: str) -> None:
    """A stream without ticket, with that of another call or with an expired one is closed before a session begins."""
    play = _play()
    async with application(play) as served:
        twilio = Twilio(served)
        stream = twilio.stream((await twilio.voice())[1])
        if wrong == "no ticket":
            stream.parameters.clear()
        if wrong == "expired":
            ticket = twiml.StreamTicket("CA1", "", "", attempt=0, expires_at=1)
            stream.parameters[twiml.TICKET] = twiml.sign_ticket(ticket, twiml.ticket_key(TOKEN))
        async with stream.open(start={"callSid": "CA2"} if wrong == "other call" else None):
            await stream.until(lambda: stream.close_code == 1008, 1.0)
        assert not stream.messages


@virtual
async def test_malformed_messages_end_the_stream_after_a_few() -> None:
    """A few malformed messages are ignored; a stream of them is closed."""
    async with application(_play()) as served, Twilio(served).talking() as stream:
        await asyncio.sleep(0.2)
        for _ in range(MAX_MALFORMED - 1):
            stream.throw('{"event": "media", "media": {"payload": "?"}}')
        await _answered(stream)
        stream.throw("{")
        await stream.until(lambda: stream.close_code == 1008, 1.0)


@virtual
async def test_a_stream_that_does_not_begin_is_closed() -> None:
    """Audio before `start` closes the stream."""
    async with application(_play()) as served:
        twilio = Twilio(served)
        stream = twilio.stream((await twilio.voice())[1])
        stream._incoming.put_nowait({"type": "websocket.connect"})
        stream.throw('{"event": "media", "media": {"payload": "AAAA"}}')
        await stream._app(stream._scope, stream._incoming.get, stream._receive)
        assert (stream.status, stream.close_code) == (101, 1008)


@virtual
async def test_calls_are_limited() -> None:
    """Calls beyond `telephony.twilio.sessions` get 429. The limit counts calls of Twilio only."""
    async with application(_play(twilio={"sessions": 1})) as served:
        async with Twilio(served).talking():
            await asyncio.sleep(0.1)
            other = Twilio(served, "CA2")
            stream = other.stream((await other.voice())[1])
            async with stream.open():
                await stream.until(lambda: stream.status == 429, 1.0)
        async with Twilio(served, "CA3").talking() as third:
            await third.until(lambda: third.status == 101, 1.0)


@virtual
async def test_twilio_needs_no_key() -> None:
    """Hosts with API keys accept Twilio by its signature alone."""
    access = AccessControl([ApiKey(digest_of("alpha"))])
    async with application(_play(), access) as served, Twilio(served).talking() as stream:
        await _answered(stream)


@virtual
async def test_the_agent_hangs_up() -> None:
    """After `hang_up` the stream is closed when all audio was played, and the call ends.

    It does not count as a hang-up of the caller.
    """
    table = JournalTable(1_000_000, 120)
    llm = EventLlm(ANSWER, scripts=[(TokenDelta("Goodbye then. ", 0), *_call("hang_up"))])
    play = _play(llm=llm, table=table, hang_up=True)
    async with application(play) as served:
        twilio = Twilio(served)
        async with twilio.talking() as stream:
            stream.speak(1.0)
            await stream.until(lambda: stream.close_code is not None)
            assert stream.close_code == 1000
            assert stream.heard == stream.got != b""
            await asyncio.sleep(0.5)
        assert not [name for name in play.metrics.counts if name.startswith("hung up")]
        _, again = await twilio.voice(f"{PUBLIC}/v1/telephony/twilio/voice?attempt=1")
        assert ElementTree.fromstring(again)[0].tag == "Hangup"


@virtual
async def test_other_clients_find_nothing_unless_twilio_is_enabled() -> None:
    """Without `telephony.twilio.enabled` there are no routes."""
    async with application(Play()) as served:
        status, _ = await Twilio(served).voice()
        assert status in (404, 405)


@virtual
async def test_a_form_that_is_too_large_is_refused() -> None:
    """A form of more than MAX_FORM_BYTES gets 413 before its signature is computed."""
    async with application(_play()) as served:
        status, _ = await Twilio(served, "C" * (MAX_FORM_BYTES + 1)).voice()
        assert status == 413


def test_a_host_without_auth_token_does_not_start() -> None:
    """If Twilio is enabled and there is no auth token, the error names the setting and the variable."""
    settings = parse_settings({"telephony": {"twilio": {"enabled": True, "public_url": PUBLIC}}})
    with pytest.raises(ConfigError, match="REJOINDER_TWILIO_AUTH_TOKEN"):
        TwilioAccess.of(settings, {})
    found = TwilioAccess.of(settings, {"REJOINDER_TWILIO_AUTH_TOKEN": "x"})
    assert found is not None
    assert found.stream_url(again=False) == "wss://voice.example/v1/telephony/twilio/stream"
    with pytest.raises(ConfigError, match="public_url"):
        parse_settings({"telephony": {"twilio": {"enabled": True}}})
    with pytest.raises(ConfigError, match=r"webhook\.url"):
        parse_settings({"telephony": {"transfer_to": {"sales": "+4930"}}})
