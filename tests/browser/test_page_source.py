"""Tests of the page's TypeScript source: it builds to the committed files, and axe-core finds no fault in the page.

`npm ci` installs the pinned packages of web/package-lock.json into a copy of the folder.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.talk_page.page_routes import STATIC
from loadtest.callers.resume_state import ResumeState
from tests.browser.chromium import Tab
from tests.browser.test_talk_page import dial, talking

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the folder `web` in which its packages are installed."""
    folder = tmp_path_factory.mktemp("page") / "web"
    shutil.copytree(ROOT / "web", folder, ignore=shutil.ignore_patterns("node_modules"))
    run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return folder


def run(folder: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_committed_page_is_what_the_source_builds(source: Path) -> None:
    """The source has no type error, and its build equals the files in the package, byte for byte."""
    run(source, "npm", "run", "check")
    run(source, "node", "build.mjs", "out")
    built = {path.name: path.read_bytes() for path in (source / "out").iterdir()}
    assert built == {path.name: path.read_bytes() for path in STATIC.iterdir()}, "run scripts/page"


REPLAY = """
import { ResumeState } from "./src/resume_state";
import { readFileSync } from "node:fs";
const answers = JSON.parse(readFileSync(0, "utf8")).map((steps) => {
  const state = new ResumeState();
  return steps.flatMap((step, number) => {
    if (typeof step === "number") for (let i = 0; i < step; i++) state.sent(`${number}.${i}`, 0);
    else if (step.type === "rejoinder.session.resumed") return [state.resend(step)];
    else state.take(step);
    return [];
  });
});
console.log(JSON.stringify(answers));
"""


def conversations(count: int) -> list[list[Any]]:
    """Return random conversations: numbers of frames that are sent, and server events."""
    rng = random.Random(5)

    def step() -> Any:
        item, ms = rng.choice("abc"), rng.randrange(4000)
        return rng.choice(
            (
                rng.randint(1, 200),
                rng.randint(1, 4000),
                _input("speech_started", item_id=item, audio_start_ms=ms),
                _input("speech_stopped", item_id=item, audio_end_ms=ms),
                _input("committed", item_id=item),
                _input("cleared"),
                {"type": "rejoinder.session.resumed", "audio_after_item_id": rng.choice((None, item))},
            )
        )

    return [[step() for _ in range(rng.randint(1, 25))] for _ in range(count)]


def _input(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"input_audio_buffer.{kind}", **fields}


def resent(steps: list[Any]) -> list[list[str]]:
    """Return the frames that the Python client sends again at each resumption of a conversation."""
    state, answers = ResumeState(), []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            for frame in range(step):
                state.sent(f"{number}.{frame}".encode())
        elif step["type"] == "rejoinder.session.resumed":
            answers.append([frame.decode() for frame in state.resend(step)])
        else:
            state.take(dict(step))
    return answers


def scripted(source: Path, script: str, given: Any) -> Any:
    """Run TypeScript that imports the page's modules. Return the JSON that it prints; `given` is JSON for its input."""
    (source / "script.ts").write_text(script, encoding="utf-8")
    options = ("--bundle", "--platform=node", "--format=esm", "--outfile=script.mjs", "--log-level=error")
    run(source, "npx", "esbuild", "script.ts", *options)
    return json.loads(run(source, "node", "script.mjs", given=json.dumps(given)))


def test_the_page_sends_the_same_audio_again_as_the_python_client(source: Path) -> None:
    """In 300 random conversations both send the same frames after each lost connection."""
    plays = conversations(300)
    answers = scripted(source, REPLAY, plays)
    assert sum(map(len, answers)) > 300
    assert answers == [resent(play) for play in plays]


CONVERT = """
import { Resampler } from "./src/resampler";
import { readFileSync } from "node:fs";
const { rate, audio } = JSON.parse(readFileSync(0, "utf8"));
const resampler = new Resampler(rate, 24000);
const output: number[] = [];
for (let at = 0; at < audio.length; at += 128) {
  output.push(...resampler.convert(Float32Array.from(audio.slice(at, at + 128))));
}
console.log(JSON.stringify(output));
"""


@pytest.mark.parametrize(
    ("rate", "hz", "kept"),
    [
        *((rate, hz, True) for rate in (48000, 44100, 24000) for hz in (300, 3000, 9000)),
        *((rate, 15000, False) for rate in (48000, 44100)),
    ],
)
def test_a_microphone_of_another_rate_is_converted(source: Path, rate: int, hz: int, *, kept: bool) -> None:
    """Tones below half the target rate keep their pitch and loudness. Those above it, which would fold, are removed."""
    audio = np.sin(2 * np.pi * hz * np.arange(rate) / rate)
    found = np.array(scripted(source, CONVERT, {"rate": rate, "audio": audio.tolist()}))
    assert abs(len(found) - 24000) < 64
    spectrum = np.abs(np.fft.rfft(found[1000:21000] * np.hanning(20000))) / 5000
    if kept:
        assert round(np.argmax(spectrum) * 24000 / 20000) == hz
        assert spectrum.max() == pytest.approx(1.0, abs=0.03)
        assert np.delete(spectrum, range(np.argmax(spectrum) - 5, np.argmax(spectrum) + 6)).max() < 0.003
    else:
        assert spectrum.max() < 0.003


def reply_done(**extra: Any) -> dict[str, Any]:
    """Return the response.done of a reply to a turn, with what the server measured."""
    rejoinder = {"item_id": "u", "speech_end_ms": 1200, "stages_ms": {"stt": 500, "llm_first_token": 200}}
    response = {"status": "completed", "output": [{"id": "reply"}]}
    return {"type": "response.done", "response": response, "rejoinder": rejoinder | {"server_ms": 700} | extra}


MEASURE = """
import { TurnMeter } from "./src/turn_times";
import { readFileSync } from "node:fs";
const events = JSON.parse(readFileSync(0, "utf8"));
// Speech was captured from second 10 on. The reply is audible from 12,000 ms on, and was played from then on.
const meter = new TurnMeter((ms) => 10_000 + ms, (_, ms) => 12_000 + ms);
meter.audible("reply", 12_000);
console.log(JSON.stringify(events.map((event) => meter.take(event, 12_500))));
"""


MEASURE_WEBRTC = """
import { TurnMeter } from "./src/turn_times";
import { readFileSync } from "node:fs";
const done = JSON.parse(readFileSync(0, "utf8"));
const meter = new TurnMeter(() => null, () => undefined, () => 30);
meter.take({ type: "input_audio_buffer.speech_stopped", item_id: "u", audio_end_ms: 1200 }, 11_000);
meter.take({ type: "output_audio_buffer.started", response_id: "r" }, 12_000);
meter.audible("reply", 12_090);
console.log(JSON.stringify(meter.take(done, 13_000)));
"""


def test_voice_to_voice_over_webrtc_adds_the_round_trip(source: Path) -> None:
    """It is the server's measure, one round trip, and the time from the first packet's notice to the first sound."""
    turn = scripted(source, MEASURE_WEBRTC, reply_done())
    assert turn["totalMs"] == sum(share["ms"] for share in turn["shares"]) == 700 + 30 + 90


def test_a_filler_does_not_count_as_the_answer(source: Path) -> None:
    """Voice to voice ends at the first sound, or behind a filler where the answer begins. The shares sum to it."""
    events = [reply_done(), reply_done(answer_from_ms=900, filler_ms=750)]
    plain, filled = scripted(source, MEASURE, events)
    assert plain["totalMs"] == sum(share["ms"] for share in plain["shares"]) == 800
    assert filled["totalMs"] == sum(share["ms"] for share in filled["shares"]) == 1700
    assert filled["notes"] == ["a filler after 750 ms"]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
async def test_axe_finds_no_fault(source: Path, tmp_path: Path, width: int, *, dark: bool) -> None:
    """axe-core, which knows the WCAG's rules, finds no violation before and during a conversation."""
    axe = (source / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    async with talking(tmp_path, 0.5, 1.0, answer="It is noon.") as (tab, _, _):
        await tab.screenshot(width=width, height=844, dark=dark)
        await tab.run(f"{axe}\n;0")
        assert await violations(tab) == []
        await dial(tab)
        await tab.until("document.getElementById('turns').textContent === '1'")
        assert await violations(tab) == []
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")


async def violations(tab: Tab) -> list[Any]:
    """Return the rules that the page violates, with the elements."""
    script = "axe.run().then(found => found.violations.map(rule => [rule.id, rule.nodes.map(node => node.html)]))"
    return list(await tab.run(script))
