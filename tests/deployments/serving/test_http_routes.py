"""Tests of the HTTP routes through the real HAProxy: admission, keys, the audio's path, and hostile clients.

The host admits one session at a time and requires an API key.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import psutil
import pytest
import websockets
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from rejoinder.core.settings.access.limits import LimitSettings
from tests.core.wire.hostile import corpus
from tests.system.harness.served import Served, metric, serving
from tests.system.harness.watching import wait_until
from tests.system.harness.wire_caller import WireCaller, calling, realtime_url

pytestmark = [pytest.mark.timed, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(240)]

KEY = "alpha"
HEADERS = {"Authorization": f"Bearer {KEY}"}
ARGS = {
    "host": {"max_sessions": 1, "retry_after_s": 7},
    "vad": {"placement": "deployment"},
    "llm": {"autoscaling": {"min_replicas": 1, "max_replicas": 1}},
}
STAGES = {"host", "vad", "turn_detector", "stt", "llm", "tts"}
HEARD_KIND = "conversation.item.input_audio_transcription.completed"
SPOKEN_KIND = "response.output_audio_transcript.done"
# Maximum bytes of a message without audio. Every message of the corpus but one is smaller.
LARGEST_MESSAGE = LimitSettings().message_bytes
# Each session gets 15 s of audio, which take 480 KB in its ring buffer: 200 leaked buffers would be 96 MB. A few tens
# of ended sessions always wait for Python's cyclic garbage collector.
HEARD = "A" * 960_000
STOPPED_S = 3.0
GROWTH_BYTES = 48 * 1024 * 1024


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {**os.environ, "REJOINDER_API_KEYS": f"{KEY}, beta,"}
    with serving(tmp_path_factory.mktemp("surface"), ARGS, environment=environment) as found:
        wait_until(lambda: {entry["labels"]["stage"] for entry in _targets(found)} == STAGES, 30, "all targets")
        yield found


def _targets(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx2.get(f"{served.url}/metrics/targets", headers=HEADERS, timeout=10).json()
    return found


def _host(served: Served) -> dict[str, str]:
    return served.replicas("host")[0]


async def _free(served: Served) -> None:
    """Wait until the host has no session."""

    def free() -> bool:
        return bool(httpx2.get(f"{served.url}/healthz", timeout=10).json()["sessions"] == 0)

    await asyncio.to_thread(wait_until, free, 10, "a host without a session")


@asynccontextmanager
async def _call(served: Served) -> AsyncIterator[WireCaller]:
    """Wait until the host has no session, then run a call to it until the block ends."""
    await _free(served)
    async with calling(served.url, HEADERS) as caller:
        yield caller


async def _refusal(served: Served, headers: dict[str, str] | None) -> httpx2.Response:
    """Try to open a WebSocket with these HTTP headers, and return the HTTP response that refuses it."""
    with pytest.raises(InvalidStatus) as refused:
        async with websockets.connect(realtime_url(served.url), additional_headers=headers):
            pytest.fail("the upgrade was accepted")
    answer = refused.value.response
    return httpx2.Response(answer.status_code, headers=dict(answer.headers.raw_items()), content=bytes(answer.body))


async def test_a_full_host_refuses_before_the_upgrade(served: Served) -> None:
    """While the host's only place is taken, further callers get HTTP 503 with Retry-After and a reason.

    The call that has the place continues.
    """
    refused = metric(_host(served)["target"], "rejoinder_sessions_refused_total", reason="full")
    async with _call(served) as caller:
        for _ in range(20):
            refusal = await _refusal(served, HEADERS)
            assert refusal.status_code == 503
            assert refusal.headers["Retry-After"] == "7"
            assert refusal.json()["error"]["code"] == "overloaded"
        await caller.send(type="input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
    assert metric(_host(served)["target"], "rejoinder_sessions_refused_total", reason="full") == refused + 20
    async with _call(served):
        pass


@pytest.mark.parametrize("headers", [None, {"Authorization": "Bearer gamma"}, {"Authorization": "Bearer "}])
async def test_a_client_without_a_key_is_refused(served: Served, headers: dict[str, str] | None) -> None:
    """An upgrade request without a valid API key gets status 401 and an error in the OpenAI API's format."""
    refusal = await _refusal(served, headers)
    assert refusal.status_code == 401
    assert refusal.json()["error"]["code"] == "invalid_api_key"


async def test_a_browser_sends_its_key_as_a_subprotocol(served: Served) -> None:
    """A web page cannot set headers, so the key is also accepted as the subprotocol of OpenAI's browser client."""
    await _free(served)
    offered = [websockets.Subprotocol(name) for name in ("realtime", "openai-insecure-api-key.beta")]
    async with websockets.connect(realtime_url(served.url), subprotocols=offered) as socket:
        assert socket.subprotocol == "realtime"


def test_health_and_models(served: Served) -> None:
    """The route `/healthz` reports the host's load. `/v1/models` lists one model with the engines of all stages."""
    health = httpx2.get(f"{served.url}/healthz", timeout=10).json()
    assert (health["status"], health["max_sessions"]) == ("ok", 1)
    models = httpx2.get(f"{served.url}/v1/models", headers=HEADERS, timeout=10).json()["data"]
    assert [model["id"] for model in models] == ["rejoinder"]
    assert set(models[0]["engines"]) == STAGES - {"host"}


def test_every_replica_is_a_target(served: Served) -> None:
    """The service discovery route lists one replica of each stage, and its address serves that replica's metrics."""
    entries = _targets(served)
    assert sorted(entry["labels"]["stage"] for entry in entries) == sorted(STAGES)
    addresses = {entry["targets"][0] for entry in entries}
    assert len(addresses) == len(entries)
    for entry in entries:
        name = "rejoinder_sessions_live" if entry["labels"]["stage"] == "host" else "rejoinder_requests_in_flight"
        assert name in httpx2.get(f"http://{entry['targets'][0]}/metrics", timeout=5).text


async def test_audio_never_passes_the_python_proxy(served: Served, question: bytes) -> None:
    """While Serve's Python proxies are suspended (SIGSTOP), a call is admitted and its question is answered."""
    family = psutil.Process(served.process.pid).children(recursive=True)
    proxies = [process for process in family if process.name().startswith("ray::ProxyActor")]
    assert proxies, [process.name() for process in family]
    for process in proxies:
        process.suspend()
    try:
        async with _call(served) as caller:
            caller.say(question)
            await caller.until("response.done")
            assert "Paris" in caller.said()
    finally:
        for process in proxies:
            process.resume()


async def test_a_turn_succeeds_after_hostile_messages(served: Served, question: bytes) -> None:
    """After 100 malformed messages, the next question is transcribed exactly and answered with speech.

    The words of the answer are not checked: they depend on the conversation items that valid messages among the 100
    have added.
    """
    messages = corpus()
    chosen = [message for message in messages if len(message) < LARGEST_MESSAGE][:: len(messages) // 100]
    assert len(chosen) >= 100
    async with _call(served) as caller:
        for message in chosen:
            await caller.throw(message)
        await caller.send(type="session.update", session=_usual())
        await caller.until("session.updated", len(caller.of("session.updated")) + 1)
        await caller.send(type="input_audio_buffer.clear")
        heard, spoken = (len(caller.of(kind)) for kind in (HEARD_KIND, SPOKEN_KIND))
        caller.say(question)
        completed = await caller.until(HEARD_KIND, heard + 1)
        assert "capital of France" in completed["transcript"]
        assert "France" in (await caller.until(SPOKEN_KIND, spoken + 1))["transcript"]
        assert len(caller.of("error")) > 30


def _usual() -> dict[str, object]:
    """Return the session settings that a hostile but valid message may have changed, with their default values."""
    detection = {"type": "semantic_vad", "create_response": True, "interrupt_response": True}
    audio = {"input": {"turn_detection": detection, "format": {"type": "audio/pcm", "rate": 24000}}}
    return {"type": "realtime", "output_modalities": ["audio"], "max_output_tokens": None, "audio": audio}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007),  # a masked text frame that is not UTF-8
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # a reserved opcode
        (b"\x81\x02{}", 1002),  # a client's frame without its mask
    ],
)
async def test_broken_frames_end_only_their_own_call(served: Served, raw: bytes, code: int) -> None:
    """An invalid WebSocket frame closes its connection with the standard's close code. The host is then free again."""
    await _free(served)
    async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS) as socket:
        socket.transport.write(raw)
        with pytest.raises(ConnectionClosedError) as closed:
            async for _ in socket:
                pass
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    await _free(served)


async def test_a_message_too_large_ends_only_its_own_call(served: Served) -> None:
    """A message above the limit closes its connection with close code 1009, and the host is free again."""
    await _free(served)
    async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS) as socket:
        sending = asyncio.create_task(socket.send("x" * (LARGEST_MESSAGE + 1)))
        with pytest.raises(ConnectionClosedError) as closed:
            async for _ in socket:
                pass
        await asyncio.wait({sending})
        sending.exception()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    await _free(served)


async def test_ended_sessions_free_their_memory(served: Served) -> None:
    """After 150 sessions as a warm-up, 200 more, half of them reset, add less than 48 MiB to the host's memory.

    200 leaked audio buffers would take 96 MB. No session and no request is left.
    """
    target = _host(served)["target"]
    await _open_and_close(served, 150)
    before = metric(target, "process_resident_memory_bytes")
    await _open_and_close(served, 200)
    growth = metric(target, "process_resident_memory_bytes") - before
    print(f"200 sessions: {growth / 1024:+.0f} KiB")
    assert growth < GROWTH_BYTES
    assert metric(target, "rejoinder_sessions_live") == 0
    stages = [replica for name in STAGES - {"host"} for replica in served.replicas(name)]

    def busy() -> float:
        return sum(metric(replica["target"], "rejoinder_requests_in_flight") for replica in stages)

    # Work that the last session started early is cancelled with it, at the engine's next token.
    await asyncio.to_thread(wait_until, lambda: busy() == 0, STOPPED_S, "idle stages")


async def _open_and_close(served: Served, count: int) -> None:
    audio = json.dumps({"type": "input_audio_buffer.append", "audio": HEARD})
    for number in range(count):
        await _free(served)
        async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS) as socket:
            await socket.send(audio)
            await socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
            while json.loads(await socket.recv())["type"] != "input_audio_buffer.cleared":
                pass
            if number % 2:
                socket.transport.abort()
    await _free(served)
