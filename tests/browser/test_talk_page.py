"""Tests of the page at `/` in a real browser whose microphone plays a file, against a host with fake stages.

A probe in the page observes from outside what the page plays, sends and receives.
"""

from __future__ import annotations

import asyncio
import json
import wave
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest

from deployments.transports.webrtc.aiortc_peer import AiortcPeer
from deployments.transports.webrtc.peer import PeerPlan
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16, pcm16_to_float
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.survival.journal_table import JournalTable
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.browser.chromium import Tab, chromium
from tests.loadtest.callers.server import Relay, listening, relayed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

LONG = " ".join(
    f"Sentence {name} is here." for name in ("one", "two", "three", "four", "five", "six", "seven", "eight")
)

PROBE = """
window.probe = {loud: [], got: [], sent: []};
function listen(context, node, connect) {
  const analyser = context.createAnalyser();
  analyser.fftSize = 256;
  connect.call(node, analyser);
  const data = new Float32Array(256);
  setInterval(() => {
    analyser.getFloatTimeDomainData(data);
    if (Math.max(...data) > 0.01) probe.loud.push(performance.now());
  }, 5);
}
function note({data}) {
  const {type, item_id, response} = JSON.parse(data);
  probe.got.push({type, item_id, status: response?.status, at: performance.now()});
}
const connectNode = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) listen(this.context, this, connectNode);
  return connectNode.call(this, target, ...rest);
};
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  const context = new AudioContext();
  listen(context, context.createMediaStreamSource(this.srcObject), connectNode);
  return play.call(this);
};
const createChannel = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...rest) {
  probe.peer = this;
  const channel = createChannel.apply(this, rest);
  channel.addEventListener("message", note);
  const send = channel.send;
  channel.send = (message) => {
    probe.sent.push(JSON.parse(message));
    send.call(channel, message);
  };
  return channel;
};
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...rest) {
    super(...rest);
    probe.socket = this;
    this.addEventListener("message", note);
  }
  send(message) {
    const event = JSON.parse(message);
    if (event.type !== "input_audio_buffer.append") probe.sent.push(event);
    super.send(message);
  }
};
"""

WORDS = """[...document.querySelectorAll('.line')].map(line =>
    [line.classList[1], line.querySelector('.words').textContent])"""


def microphone(path: Path, *seconds: float, speech: bytes = b"") -> Path:
    """Write a WAV file of silence and speech alternately, for these seconds each, then silence; return its path.

    `speech` is 24 kHz PCM, which is repeated or cut; none for noise.
    """
    rng = np.random.default_rng(7)
    said = pcm16_to_float(speech)
    parts = []
    for number, length in enumerate((*seconds, 60.0)):
        count = round(length * WIRE_RATE)
        # Noise whose loudness changes like syllables: the browser's noise suppressor keeps it.
        loudness = 0.25 * (0.65 + 0.35 * np.sin(np.arange(count) * 2 * np.pi * 4 / WIRE_RATE))
        sound = np.resize(said, count) if speech else rng.standard_normal(count) * loudness * 0.5
        parts.append(sound if number % 2 else np.zeros(count))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, WIRE_RATE, 0, "NONE", ""))
        file.writeframes(float_to_pcm16(np.concatenate(parts).clip(-1, 1)))
    return path


@asynccontextmanager
async def talking(
    tmp_path: Path,
    *seconds: float,
    heard: tuple[str, ...] = ("What time is it?",),
    answer: str = LONG,
    keys: frozenset[str] = frozenset(),
    way: str = "websocket",
    speech: bytes = b"",
    **webrtc: Any,
) -> AsyncIterator[tuple[Tab, Relay, Play]]:
    """Yield (the page, a relay in front of its host, the host's stages). The microphone has `seconds` of sound.

    Args:
        tmp_path: Folder for the browser's data.
        seconds: Seconds of silence and speech, alternately.
        heard: What the host understands.
        answer: The reply to everything.
        keys: API keys. If there are any, the host demands one.
        way: What the page uses: "websocket" or "webrtc". The relay is in front of HTTP only.
        speech: What the microphone says, as 24 kHz PCM; none for noise.
        webrtc: Settings of WebRTC.
    """
    settings = parse_settings({"webrtc": {"addresses": ["127.0.0.1"], **webrtc}})
    table = JournalTable(settings.journal.node_bytes, settings.journal.keep_s)
    play = Play(settings=settings, stt=ScriptedStt(deque(heard)), llm=WordyLlm(answer), table=table)
    sound = microphone(tmp_path / "microphone.wav", *seconds, speech=speech)
    async with (
        listening(play, keys) as (direct, host),
        relayed(direct) as (url, relay),
        chromium(tmp_path / "profile", sound, PROBE) as tab,
    ):
        await tab.ask("Page.navigate", url=url.replace("ws", "http", 1).removesuffix("v1"))
        await tab.until("document.readyState === 'complete' && document.getElementById('talk') !== null")
        await tab.run(f"document.getElementById('way').value = '{way}'")
        try:
            yield tab, relay, play
        finally:
            # The page hangs up when it is left.
            await tab.ask("Page.navigate", url="about:blank")
            async with asyncio.timeout(5):
                while host.live:  # noqa: ASYNC110  # a place has no event
                    await asyncio.sleep(0.02)


async def dial(tab: Tab) -> None:
    """Start the conversation with the keyboard alone."""
    await tab.until("document.hasFocus()")
    for _ in range(3):
        await tab.press("Tab")
        if await tab.run("document.activeElement.id") == "talk":
            break
    await tab.press("Enter")
    await tab.until("document.getElementById('call').dataset.connection === 'connected'")


async def events(tab: Tab, kind: str) -> list[dict[str, Any]]:
    """Return the server events of a type that the page received."""
    return list(await tab.run(f"probe.got.filter(event => event.type === '{kind}')"))


WAYS = pytest.mark.parametrize("way", ["websocket", "webrtc"])


@WAYS
async def test_a_turn_is_heard_and_shown(tmp_path: Path, question: bytes, way: str) -> None:
    """The page shows both sides' words and the latency, and plays the reply. It asks no other server."""
    async with talking(tmp_path, 0.5, 1.2, answer="It is noon.", way=way, speech=question) as (tab, _, _):
        await dial(tab)
        assert await tab.run("document.getElementById('call').dataset.way") == way
        for state in ("hearing", "thinking", "speaking", "listening"):
            await tab.until(f"document.getElementById('call').dataset.turn === '{state}'")
        await tab.until("document.getElementById('turns').textContent === '1'")
        assert await tab.run(WORDS) == [["user", "What time is it?"], ["assistant", "It is noon."]]
        rows = await tab.run("[...document.querySelectorAll('#waterfall .ms')].map(row => parseInt(row.textContent))")
        *stages, total = rows
        assert len(stages) >= 4
        assert abs(sum(stages) - total) <= len(stages)
        # The probe's own measure: from the server's event to the first sound. It is later than the turn's end.
        stopped = (await events(tab, "input_audio_buffer.speech_stopped"))[0]["at"]
        assert total > (await tab.run("probe.loud[0]")) - stopped
        assert len(await tab.run("probe.loud")) > 20
        assert all("127.0.0.1" in url for url in tab.requests if not url.startswith("data:"))
        assert tab.complaints == []


@WAYS
async def test_talking_over_a_reply_silences_it(tmp_path: Path, question: bytes, way: str) -> None:
    """The reply is silent within 300 ms of the server's event, its position is known, and a new turn follows."""
    heard = ("Tell me.", "Stop, what is that?")
    async with talking(tmp_path, 0.5, 1.0, 2.5, 1.2, heard=heard, way=way, speech=question) as (tab, _, _):
        await dial(tab)
        await tab.until("probe.got.filter(event => event.type.endsWith('speech_started')).length === 2")
        await tab.until("probe.got.some(event => event.type === 'response.done' && event.status === 'cancelled')")
        began = (await events(tab, "input_audio_buffer.speech_started"))[1]["at"]
        loud = await tab.run("probe.loud")
        assert any(began - 200 < at < began for at in loud)
        assert not [at for at in loud if began + 300 < at < began + 900]
        truncations = await tab.run("probe.sent.filter(event => event.type === 'conversation.item.truncate')")
        if way == "websocket":
            assert 500 < truncations[0]["audio_end_ms"] < 3000
        # Over WebRTC the server knows itself what was heard.
        assert len(truncations) == (way == "websocket")
        lines = await tab.until(f"(lines => lines.length === 4 && lines)({WORDS})")
        assert [who for who, _ in lines] == ["user", "assistant", "user", "assistant"]
        assert "interrupted" in await tab.run("document.querySelectorAll('.line')[1].textContent")
        # Of the interrupted reply the page shows what was heard.
        assert lines[1][1]
        assert LONG.startswith(lines[1][1])
        assert len(lines[1][1]) < len(LONG)
        assert not await events(tab, "error")


@WAYS
async def test_a_reply_goes_on_after_a_noise(tmp_path: Path, way: str) -> None:
    """If the sound over a reply had no words, the same item is played to its end and its line of speech vanishes."""
    heard = ("Tell me.", "", "")
    answer = "One two three. Four five six. Seven eight nine. Ten eleven."
    async with talking(tmp_path, 0.5, 1.0, 2.5, 0.4, heard=heard, answer=answer, way=way) as (tab, _, _):
        await dial(tab)
        await tab.until("probe.got.some(event => event.type === 'input_audio_buffer.cleared')")
        cleared = (await events(tab, "input_audio_buffer.cleared"))[0]["at"]
        await tab.until(f"probe.loud.some(at => at > {cleared})")
        await tab.until("probe.got.some(event => event.type === 'response.done' && event.status === 'completed')")
        assert [who for who, _ in await tab.run(WORDS)] == ["user", "assistant"]


@pytest.mark.parametrize("silent", [False, True], ids=["broken", "silent"])
async def test_a_lost_connection_comes_back(tmp_path: Path, silent: bool) -> None:
    """The connection breaks, or stays open without a sign of the server, during a reply.

    The page connects again, keeps its transcript and hears the rest.
    """
    async with talking(tmp_path, 0.5, 1.0) as (tab, relay, _):
        await dial(tab)
        await tab.until("document.getElementById('call').dataset.turn === 'speaking'")
        await tab.until("probe.loud.length > 100")
        (relay.silence if silent else relay.cut)()
        await tab.until("document.getElementById('call').dataset.resumed === '1'")
        await tab.until("probe.got.some(event => event.type === 'response.done' && event.status === 'completed')")
        await tab.until("document.getElementById('call').dataset.turn === 'listening'")
        (_, question), *replies = await tab.run(WORDS)
        assert question == "What time is it?"
        assert " ".join(words for _, words in replies).split() == LONG.split()
        assert await tab.run("document.getElementById('call').dataset.connection") == "connected"


async def test_a_vanished_host_is_left_over_webrtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's packets stop. The page calls again with its resume token, over WebRTC, and hears the rest."""
    peers = []

    def connect(plan: PeerPlan) -> AiortcPeer:
        peers.append(AiortcPeer(plan))
        return peers[-1]

    monkeypatch.setattr("deployments.transports.webrtc.aiortc_peer.connect", connect)
    async with talking(tmp_path, 0.5, 1.0, answer=LONG.partition(" Sentence six")[0], way="webrtc") as (tab, _, _):
        await dial(tab)
        await tab.until("document.getElementById('call').dataset.turn === 'speaking'")
        await tab.until("probe.loud.length > 100")
        for transceiver in peers[0]._connection.getTransceivers():
            vars(transceiver.receiver.transport.transport)["_send"] = AsyncMock()
        await tab.until("document.getElementById('call').dataset.resumed === '1'")
        resumed = await tab.run("performance.now()")
        await tab.until("probe.got.some(event => event.type === 'response.done' && event.status === 'completed')")
        await tab.until("document.getElementById('call').dataset.turn === 'listening'")
        assert await tab.run(f"probe.loud.filter(at => at > {resumed}).length") > 20
        (_, question), *replies = await tab.run(WORDS)
        assert question == "What time is it?"
        assert replies[-1][1].endswith("Sentence five is here.")
        assert await tab.run("document.getElementById('connection').textContent") == "Connected over WebRTC."


@pytest.mark.parametrize(
    ("webrtc", "quiet_s", "reason"),
    [
        ({"enabled": False}, 1.0, "The server has no WebRTC."),
        # No packet reaches an address for documentation (RFC 5737). The page tries it for 5 s.
        ({"advertise": ["192.0.2.1"]}, 7.0, "WebRTC found no path to the server."),
    ],
    ids=["off", "no path"],
)
async def test_a_websocket_takes_the_place_of_webrtc(
    tmp_path: Path, webrtc: dict[str, Any], quiet_s: float, reason: str
) -> None:
    """Without WebRTC on the host, and without a path to it, the page goes on over a WebSocket and says why."""
    async with talking(tmp_path, quiet_s, 1.0, answer="It is noon.", way="webrtc", **webrtc) as (tab, _, _):
        await dial(tab)
        said = await tab.run("document.getElementById('connection').textContent")
        assert said == f"Connected over WebSocket. {reason}"
        await tab.until("document.getElementById('turns').textContent === '1'")
        assert await tab.run(WORDS) == [["user", "What time is it?"], ["assistant", "It is noon."]]
        assert not await events(tab, "error")


async def test_the_keyboard_alone_is_enough(tmp_path: Path) -> None:
    """Every control is reached with the Tab key in the order of the page; settings change, and Space hangs up."""
    async with talking(tmp_path, 60.0) as (tab, _, _):
        await dial(tab)
        reached = ["talk"]
        while reached[-1] != "announce":
            await tab.press("Tab")
            reached.append(await tab.run("document.activeElement.id"))
            if reached[-1] == "mute":
                await tab.press("Space")
                assert await tab.run("document.activeElement.getAttribute('aria-pressed')") == "true"
            if reached[-1] == "instructions":
                await tab.press("H", "i")
        fields = ["instructions", "detection", "eagerness", "voice", "way", "key", "announce"]
        assert reached == ["talk", "mute", "transcript", *fields]
        change = await tab.until("probe.sent.filter(event => event.type === 'session.update')[1]")
        assert change["session"]["instructions"] == "Hi"
        await tab.until("probe.got.filter(event => event.type === 'session.updated').length === 2")
        assert not await events(tab, "error")
        await tab.run("document.getElementById('talk').focus()")
        await tab.press("Space")
        await tab.until("document.getElementById('call').dataset.connection === 'ended'")
        assert await tab.run("document.activeElement.textContent") == "Start talking"


async def test_a_host_with_keys_wants_one_of_them(tmp_path: Path) -> None:
    """Without a key the page says what is missing. With the key in its field the conversation starts."""
    async with talking(tmp_path, 60.0, keys=frozenset({"alpha"})) as (tab, _, _):
        await tab.run("document.getElementById('talk').click()")
        problem = await tab.until("document.getElementById('problem').textContent")
        assert problem == "The server does not accept the API key. Enter it in the settings."
        await tab.run("document.getElementById('key').focus()")
        await tab.press(*"alpha")
        await tab.run("document.getElementById('talk').click()")
        await tab.until("document.getElementById('call').dataset.connection === 'connected'")
        assert await tab.run("document.getElementById('problem').textContent") == ""


async def test_interim_words_and_tool_calls_are_shown(tmp_path: Path) -> None:
    """Interim words are replaced by the final ones. A tool call has its name, arguments and result as text."""
    markup = "<img src=x onerror=alert(1)>"
    call = {"id": "call_1", "type": "function_call", "name": "weather", "arguments": ""}
    output = {"id": "out_1", "type": "function_call_output", "call_id": "c", "output": markup}
    spoken = "conversation.item.input_audio_transcription"
    async with talking(tmp_path, 60.0) as (tab, _, _):
        await dial(tab)
        await arrive(tab, type=f"{spoken}.delta", item_id="u", delta="What is")
        await arrive(tab, type=f"{spoken}.delta", item_id="u", delta=" the")
        assert await tab.run(WORDS) == [["user", "What is the"]]
        assert await tab.run("document.querySelector('.line').classList.contains('interim')")
        await arrive(tab, type=f"{spoken}.completed", item_id="u", transcript="What is the weather?")
        await arrive(tab, type="response.output_item.added", item={**call, "status": "in_progress"})
        await arrive(tab, type="response.function_call_arguments.delta", item_id="call_1", delta='{"city":')
        await arrive(tab, type="response.function_call_arguments.done", item_id="call_1", arguments='{"city": "Bonn"}')
        await arrive(tab, type="conversation.item.added", item=output)
        expected = [["user", "What is the weather?"], ["tool", '{"city": "Bonn"}'], ["tool", markup]]
        assert await tab.run(WORDS) == expected
        assert "weather" in await tab.run("document.querySelector('.tool').textContent")
        assert not await tab.run("document.querySelector('.interim')")


async def arrive(tab: Tab, **event: Any) -> None:
    """Let an event arrive that the host with fake stages does not send by itself."""
    message = json.dumps(json.dumps(event))
    await tab.run(f"probe.socket.dispatchEvent(new MessageEvent('message', {{data: {message}}}))")
