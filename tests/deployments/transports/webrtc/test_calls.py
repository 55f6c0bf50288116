"""Tests of calls over WebRTC: a real peer, the real routes and Opus over loopback, and a host with fake stages."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from aiortc import RTCPeerConnection

from actors.host import Host
from deployments.serving.http_routes import http_app
from rejoinder.core.settings.settings import parse_settings
from tests.actors.fakes import CountingMetrics, ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.deployments.transports.webrtc.webrtc_client import WebRtcClient, calling, post_offer
from tests.loadtest.callers.server import Served, listening, running

pytestmark = [pytest.mark.timed, pytest.mark.timeout(60)]

LONG = " ".join(f"Sentence number {number} is here." for number in range(12))


def play_of(*heard: str, answer: str = "It is noon.", **settings: Any) -> Play:
    """Return a scenario that understands `heard`, gives one answer to everything and uses loopback only."""
    webrtc = {"addresses": ["127.0.0.1"], **settings.pop("webrtc", {})}
    parsed = parse_settings({"webrtc": webrtc, **settings})
    return Play(settings=parsed, stt=ScriptedStt(deque(heard)), llm=WordyLlm(answer))


@asynccontextmanager
async def served(
    *heard: str, answer: str = "It is noon.", keys: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[tuple[str, Host]]:
    """Yield (http:// base URL, host) of a server that understands `heard` and gives one answer to everything."""
    play = play_of(*heard, answer=answer, **settings)
    async with listening(play, frozenset(keys)) as (url, host):
        yield url.replace("ws", "http", 1), host


async def _empty(host: Host) -> None:
    """Wait until the host has no session."""
    async with asyncio.timeout(8):
        while host.live:  # noqa: ASYNC110  # a place has no event
            await asyncio.sleep(0.02)


async def test_a_turn_is_transcribed_and_answered_in_speech() -> None:
    """The caller's Opus is understood, and the answer is heard: events in order, and no audio among them."""
    async with served("What time is it?") as (url, host), calling(url) as client:
        transcription = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        client.send(type="session.update", session={"type": "realtime", **transcription})
        await client.until("session.updated")
        await client.speak(1.0)
        heard = await client.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "What time is it?"
        await client.until("output_audio_buffer.stopped")
        done = await client.until("response.done")
        kinds = [event["type"] for event in client.events]
        started = kinds.index("output_audio_buffer.started")
        assert kinds.index("response.created") < started < kinds.index("response.done")
        assert kinds[-1] == "output_audio_buffer.stopped"
        assert client.of("output_audio_buffer.started")[0]["response_id"] == done["response"]["id"]
        assert not client.of("response.output_audio.delta")
        assert not client.of("error")
        # The tone of the fake voice, in frames of 20 ms.
        spoken_ms = done["response"]["output"][0]["content"][0]
        assert spoken_ms["transcript"] == "It is noon."
        assert len(client.loud) >= 10
        assert host.live == 1
    await _empty(host)


async def test_talking_over_a_reply_silences_it_and_keeps_what_was_sent() -> None:
    """At a barge-in the audio ends at once, and the item has the words that had been sent by then."""
    async with served("Tell me.", "Stop, what is that?", answer=LONG) as (url, _), calling(url) as client:
        await client.speak(0.8)
        await client.until_loud(80)
        await client.speak(1.0)
        await client.until("output_audio_buffer.cleared")
        cleared = client.time_of("output_audio_buffer.cleared")
        cut = await client.until("conversation.item.truncated")
        assert [at for at in client.loud if at < cleared]
        # 100 ms for packets on their way and the client's jitter buffer. The next reply comes later.
        later = [at for at in client.loud if cleared + 0.1 < at < cleared + 0.5]
        assert later == []
        first = client.of("response.done")[0]["response"]
        assert (first["status"], first["status_details"]["reason"]) == ("cancelled", "turn_detected")
        heard_ms = sum(1 for at in client.loud if at < cleared + 0.1) * 20
        assert cut["audio_end_ms"] == pytest.approx(heard_ms, abs=200)
        text = first["output"][0]["content"][0]["transcript"]
        assert text
        assert LONG.startswith(text)


async def test_the_round_trip_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the client hears a reply it reports on the audio, and the host records the round trip of the reports."""
    monkeypatch.setattr("deployments.transports.webrtc.call.ROUND_TRIP_S", 0.5)
    async with served("Tell me.", answer=LONG) as (url, host), calling(url) as client:
        await client.speak(0.8)
        metrics = host.services.metrics
        assert isinstance(metrics, CountingMetrics)
        async with asyncio.timeout(15):
            while not metrics.round_trips_s:  # noqa: ASYNC110  # the reports have no event
                await asyncio.sleep(0.1)
        assert 0 < metrics.round_trips_s[0] < 0.5


async def test_the_client_may_clear_the_output() -> None:
    """output_audio_buffer.clear stops the reply that is heard. Without a reply it changes nothing."""
    async with served("Tell me.", answer=LONG) as (url, _), calling(url) as client:
        client.send(type="output_audio_buffer.clear")
        await client.speak(0.8)
        await client.until_loud(20)
        client.send(type="output_audio_buffer.clear")
        await client.until("output_audio_buffer.cleared")
        done = await client.until("response.done")
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        assert not client.of("error")


async def test_audio_in_events_is_refused() -> None:
    """The client gets an error that names the audio track, and the session goes on."""
    async with served() as (url, _), calling(url) as client:
        client.send(type="input_audio_buffer.append", audio="AAAA", event_id="mine")
        error = (await client.until("error"))["error"]
        assert "audio track" in error["message"]
        assert error["event_id"] == "mine"


async def test_large_messages_wait_for_the_rate_that_the_host_shares() -> None:
    """A call that has sent much waits while all calls of the host together have used up their rate, and only then."""
    async with served() as (url, host), calling(url) as client:
        shared, limits = host.services.message_rate, host.services.settings.limits
        content = [{"type": "input_text", "text": "x" * 60_000}]
        for number in range(3):
            client.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
            await client.until("conversation.item.done", number + 1)
        took = []
        for debt_s in (0, 1):
            now = asyncio.get_running_loop().time()
            shared.spend(now, debt_s * (limits.host_message_bytes_burst + limits.host_message_bytes_per_s))
            client.send(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
            await client.until("session.updated", debt_s + 1)
            took.append(asyncio.get_running_loop().time() - now)
        assert took[0] < 0.5
        assert 0.8 < took[1] < 3


async def test_a_connection_that_does_not_close_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc may wait for ever for tasks that were cancelled. The place is free all the same."""
    async with served() as (url, host), calling(url) as client:
        monkeypatch.setattr("deployments.transports.webrtc.aiortc_peer.CLOSE_S", 0.2)
        close = RTCPeerConnection.close
        monkeypatch.setattr(RTCPeerConnection, "close", lambda _: asyncio.Event().wait())
        async with httpx2.AsyncClient() as http:
            await http.post(f"{url.removesuffix('/v1')}{client.location}/hangup")
        await _empty(host)
        monkeypatch.setattr(RTCPeerConnection, "close", close)


async def test_hanging_up_frees_the_place() -> None:
    """A full host refuses with 503 and Retry-After. The place is free when the client hangs up, or asks for it."""
    async with served(host={"max_sessions": 1}) as (url, host):
        async with calling(url):
            other = WebRtcClient()
            refused = await post_offer(url, other)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            await other.close()
        await _empty(host)
        async with calling(url) as client:
            async with httpx2.AsyncClient() as http:
                wrong = await http.post(f"{url}/realtime/calls/rtc_1/hangup")
                right = await http.post(f"{url.removesuffix('/v1')}{client.location}/hangup")
            assert (wrong.status_code, right.status_code) == (404, 200)
            await _empty(host)


async def test_the_request_of_the_offer_lasts_as_long_as_the_call() -> None:
    """The client has its answer at once. Serve, which waits for requests in progress, sees one until the call ends."""
    in_progress: list[str] = []
    async with play_of("Hello.").open() as host:
        app = http_app(Served(host))

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            in_progress.append(scope["path"])
            await app(scope, receive, send)
            in_progress.remove(scope["path"])

        async with running(counted, lifespan="off") as address, calling(f"http://{address}/v1") as client:
            await client.until("session.created")
            assert in_progress == ["/v1/realtime/calls"]
            await client.close()
            await _empty(host)
            await asyncio.sleep(0.05)
            assert in_progress == []


async def test_a_client_that_never_connects_or_vanishes_frees_its_place() -> None:
    """A place is freed if no connection comes about in time, and if no packet of the client arrives any more."""
    async with served(webrtc={"connect_timeout_s": 1, "lost_after_s": 2}) as (url, host):
        absent = WebRtcClient()
        assert (await post_offer(url, absent)).status_code == 201
        assert host.live == 1
        await _empty(host)
        await absent.close()
        async with calling(url) as client:
            transport = client.connection.getTransceivers()[0].receiver.transport

            async def lose(_: bytes) -> None:
                """Drop what the client sends, as a broken network does."""

            vars(transport.transport)["_send"] = lose
            await _empty(host)


async def test_a_host_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, and where calls are switched off, an offer gets 501 with a sentence, and no place is taken."""
    client = WebRtcClient()
    async with served(webrtc={"enabled": False}) as (url, _):
        refused = await post_offer(url, client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (501, "webrtc_disabled")
    monkeypatch.setattr("deployments.serving.webrtc.calls.LIBRARY", "no_such_library")
    async with served() as (url, host):
        refused = await post_offer(url, client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (501, "webrtc_not_installed")
        assert "extra `webrtc`" in refused.json()["error"]["message"]
        assert host.live == 0
    await client.close()


async def test_clients_are_told_the_servers_for_nat_traversal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TURN server with a shared secret comes with a user name that expires, and a password."""
    monkeypatch.setenv("TURN_SECRET", "north")
    turn = {"urls": ["turn:turn.example.com:3478"], "secret_env": "TURN_SECRET", "credential_ttl_s": 600}
    async with served(webrtc={"ice_servers": [turn]}) as (url, _), httpx2.AsyncClient() as http:
        facts = (await http.get(f"{url}/realtime/webrtc")).json()
    (server,) = facts["ice_servers"]
    assert (facts["available"], server["urls"]) == (True, turn["urls"])
    assert 0 < int(server["username"].split(":")[0]) - time.time() <= 600
    assert server["credential"]


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
async def test_a_wrong_key_is_refused(key: str) -> None:
    """Without a valid key the offer gets 401, and no place is taken."""
    async with served(keys=("alpha",)) as (url, host):
        client = WebRtcClient()
        refused = await post_offer(url, client, authorization=key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert host.live == 0
        await client.close()


async def test_a_form_brings_the_settings_of_the_session() -> None:
    """A multipart offer, as openai-python sends it, starts a session with its settings."""
    async with served() as (url, _):
        client = WebRtcClient()
        session = {"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"speed": 1.2}}}
        form = {
            "sdp": (None, (await client.offer()).encode(), "application/sdp"),
            "session": (None, json.dumps(session).encode(), "application/json"),
        }
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"{url}/realtime/calls", files=form, timeout=10)
        await client.accept(answer)
        created = await client.until("session.created")
        assert created["session"]["instructions"] == "Be brief."
        assert created["session"]["audio"]["output"]["speed"] == 1.2
        await client.close()


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        ("", "application/sdp", "SDP"),
        ("v=0\r\n", "application/sdp", "audio"),
        ("hello", "multipart/form-data; boundary=x", "form"),
    ],
)
async def test_a_bad_offer_gets_a_reason(body: str, kind: str, word: str) -> None:
    """A body that is not an offer gets 400 with an error that says what is wrong."""
    async with served() as (url, host), httpx2.AsyncClient() as http:
        answer = await http.post(f"{url}/realtime/calls", content=body, headers={"content-type": kind})
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]
        assert host.live == 0
