"""Tests of the page at `/` in a real browser whose microphone plays a file, against a host with fake stages.

A probe in the page observes from outside what the page plays, sends and receives.
"""

from __future__ import annotations

import json
import wave
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16
from rejoinder.core.settings.settings import Settings
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
const connectNode = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const analyser = this.context.createAnalyser();
    analyser.fftSize = 256;
    connectNode.call(this, analyser);
    const data = new Float32Array(256);
    setInterval(() => {
      analyser.getFloatTimeDomainData(data);
      if (Math.max(...data) > 0.01) probe.loud.push(performance.now());
    }, 5);
  }
  return connectNode.call(this, target, ...rest);
};
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...rest) {
    super(...rest);
    probe.socket = this;
    this.addEventListener("message", ({data}) => {
      const {type, item_id, response} = JSON.parse(data);
      probe.got.push({type, item_id, status: response?.status, at: performance.now()});
    });
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


def microphone(path: Path, *seconds: float) -> Path:
    """Write a WAV file of silence and speech alternately, for these seconds each, then silence; return its path."""
    rng = np.random.default_rng(7)
    parts = []
    for number, length in enumerate((*seconds, 60.0)):
        count = round(length * WIRE_RATE)
        # Noise whose loudness changes like syllables: the browser's noise suppressor keeps it.
        loudness = 0.25 * (0.65 + 0.35 * np.sin(np.arange(count) * 2 * np.pi * 4 / WIRE_RATE))
        parts.append(rng.standard_normal(count) * loudness * 0.5 if number % 2 else np.zeros(count))
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
) -> AsyncIterator[tuple[Tab, Relay, Play]]:
    """Yield (the page, a relay in front of its host, the host's stages). The microphone has `seconds` of sound.

    If there are `keys`, the host demands one.
    """
    journal = Settings().journal
    table = JournalTable(journal.node_bytes, journal.keep_s)
    play = Play(stt=ScriptedStt(deque(heard)), llm=WordyLlm(answer), table=table)
    sound = microphone(tmp_path / "microphone.wav", *seconds)
    async with (
        listening(play, keys) as (direct, _),
        relayed(direct) as (url, relay),
        chromium(tmp_path / "profile", sound, PROBE) as tab,
    ):
        await tab.ask("Page.navigate", url=url.replace("ws", "http", 1).removesuffix("v1"))
        await tab.until("document.readyState === 'complete' && document.getElementById('talk') !== null")
        yield tab, relay, play


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


async def test_a_turn_is_heard_and_shown(tmp_path: Path) -> None:
    """The page shows both sides' words and the latency, and plays the reply. It asks no other server."""
    async with talking(tmp_path, 0.5, 1.2, answer="It is noon.") as (tab, _, _):
        await dial(tab)
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


async def test_talking_over_a_reply_silences_it(tmp_path: Path) -> None:
    """The reply is silent within 300 ms of the server's event, the position is reported, and a new turn follows."""
    async with talking(tmp_path, 0.5, 1.0, 2.5, 1.2, heard=("Tell me.", "Stop, what is that?")) as (tab, _, _):
        await dial(tab)
        await tab.until("probe.got.filter(event => event.type.endsWith('speech_started')).length === 2")
        await tab.until("probe.got.some(event => event.type === 'response.done' && event.status === 'cancelled')")
        began = (await events(tab, "input_audio_buffer.speech_started"))[1]["at"]
        loud = await tab.run("probe.loud")
        assert any(began - 200 < at < began for at in loud)
        assert not [at for at in loud if began + 300 < at < began + 900]
        (truncation,) = await tab.run("probe.sent.filter(event => event.type === 'conversation.item.truncate')")
        assert 500 < truncation["audio_end_ms"] < 3000
        lines = await tab.until(f"(lines => lines.length === 4 && lines)({WORDS})")
        assert [who for who, _ in lines] == ["user", "assistant", "user", "assistant"]
        assert "interrupted" in await tab.run("document.querySelectorAll('.line')[1].textContent")
        # Of the interrupted reply the page shows what was heard.
        assert lines[1][1]
        assert LONG.startswith(lines[1][1])
        assert len(lines[1][1]) < len(LONG)
        assert not await events(tab, "error")


async def test_a_reply_goes_on_after_a_noise(tmp_path: Path) -> None:
    """If the sound over a reply had no words, the same item is played to its end and its line of speech vanishes."""
    heard = ("Tell me.", "", "")
    async with talking(tmp_path, 0.5, 1.0, 2.5, 0.4, heard=heard, answer="One two three. Four five six.") as (
        tab,
        _,
        _,
    ):
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
        fields = ["instructions", "detection", "eagerness", "voice", "key", "announce"]
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
