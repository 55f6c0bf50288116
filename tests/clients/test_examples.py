"""Tests of the examples with stock clients, which need what `scripts/test-clients` installs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.self_signed import self_signed
from loadtest.scenario.clips import write_wave
from tests.clients.stand_in import ANSWERS, TIME, knowing_play, spoken
from tests.clients.test_stock_clients import PYTHON, ROOT
from tests.loadtest.callers.server import listening

EXAMPLES = ROOT / "examples" / "stock_clients"
PROGRAMS = {
    "agents_sdk.py": PYTHON,
    "agents_sdk.mjs": "node",
    "openai_node.mjs": "node",
    "livekit_stages.py": PYTHON,
    "pipecat_stages.py": PYTHON,
}
LONGEST = 30
"""Lines of code that an example may have, without the description at its top."""

pytestmark = [pytest.mark.clients, pytest.mark.timeout(60)]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_an_example_prints_the_answer(name: str, tmp_path: Path) -> None:
    """The example sends question.wav and prints the words of the answer, and nothing else, in at most 30 lines.

    Those of single stages transcribe, ask and speak over HTTP.
    """
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    code = text.rpartition('"""\n\n')[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= LONGEST
    (tmp_path / name).write_text(text, encoding="utf-8")
    # Node looks for packages beside the program.
    (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "clients" / "node_modules")
    write_wave(tmp_path / "question.wav", spoken(TIME))
    tls = self_signed(tmp_path / "tls", ("127.0.0.1",)) if name == "openai_node.mjs" else None
    trust = {"NODE_EXTRA_CA_CERTS": str(tls.authority)} if tls else {}
    play = knowing_play()
    async with listening(play, tls=tls) as (url, _):
        if tls or "stages" in name:
            url = url.replace("ws", "http", 1)
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                PROGRAMS[name],
                name,
                url,
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": ""} | trust,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            async with asyncio.timeout(40):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    assert (printed.decode().strip(), process.returncode) == (ANSWERS[TIME], 0), (tmp_path / "log").read_text()[-3000:]
    assert play.tts.texts == [ANSWERS[TIME]]
