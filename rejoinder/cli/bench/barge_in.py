"""`rejoinder bench barge-in`: how fast a reply stops, with real speech and real voice activity detection."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.launch import cluster
from loadtest.benches.barge_in import LIMIT_MS, SETTINGS, Stops, interruptions, script
from loadtest.callers.openai_caller import LATENESS_LIMIT_MS, HeldCall, ServerAddress, talk
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedLine
from loadtest.scenario.clips import Clip, read_clip
from rejoinder.cli.bench.capacity import served
from rejoinder.cli.demo import DemoLine, make_clips
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import ModelStoreSettings, parse_settings
from rejoinder.store import open_store

QUESTION = DemoLine("0-synthetic-question", "Tell me about the history of the city of London.")
OVER = (
    DemoLine("1-human-times", recording="two_cities.wav@0.8"),
    DemoLine("2-human-wisdom", recording="two_cities.wav@4.6"),
    DemoLine("3-human-hope", recording="two_cities.wav@17.1"),
    DemoLine("4-human-everything", recording="two_cities.wav@20.9"),
    DemoLine("5-synthetic-stop", "Stop please. What is the capital of Italy?"),
    DemoLine("6-synthetic-wait", "Wait, I meant the other one."),
)
"""Clips with which the caller interrupts the replies."""

CALLERS = 3
TIMEOUT_S = 20.0


def measure(count: int) -> Stops:
    """Start a server with emulated replies, and measure how fast they stop when CALLERS concurrent callers interrupt.

    Args:
        count: Number of interruptions, divided among the callers.

    Returns:
        The measured interruptions, and how late the callers sent their audio.
    """
    with tempfile.TemporaryDirectory(prefix="rejoinder-caller-") as work, cluster("local"):
        question, *clips = make_clips(Path(work), open_store(ModelStoreSettings()), (QUESTION, *OVER))
        with served(parse_settings(SETTINGS)) as url:
            server = ServerAddress(f"{url.replace('http', 'ws', 1)}/v1")
            return asyncio.run(_interrupt(server, read_clip(question), [read_clip(clip) for clip in clips], count))


async def _interrupt(server: ServerAddress, question: Clip, clips: list[Clip], count: int) -> Stops:
    await _converse(server, script(question, clips, 1, 0))  # warm-up, not measured: the first conversation is slower
    shares = [count // CALLERS + (number < count % CALLERS) for number in range(CALLERS)]
    scripts = [script(question, clips, share, sum(shares[:number])) for number, share in enumerate(shares) if share]
    calls = await asyncio.gather(*(_converse(server, lines) for lines in scripts))
    late_ms = max(call.lateness_ms()[0] for call in calls)
    return Stops(count, tuple(found for call in calls for found in interruptions(call.dialogue)), round(late_ms, 1))


async def _converse(server: ServerAddress, lines: list[ScriptedLine]) -> HeldCall:
    """Have one conversation and return it. The caller speaks `lines`, and hangs up during the last reply.

    Raises:
        BackendError: The conversation failed.
    """
    call = await talk(server, lines, ScriptedBehavior(timeout_s=TIMEOUT_S, leaves=True), lambda _: None)
    if call.dialogue.faults:
        raise BackendError(f"the conversation failed: {call.dialogue.faults[0]}")
    return call


def table(stops: Stops) -> Table:
    """Return a table with one row for each part of the time from the caller's speech to the silence of the reply.

    The columns are the median, the 95th percentile and the maximum over all interruptions, in milliseconds.
    """
    rows = Table("ms", "p50", "p95", "most", title=f"{len(stops.found)} of {stops.asked} interruptions")
    for name, part in stops.spreads().items():
        rows.add_row(name, *(f"{value:.0f}" for value in (part.median_ms, part.p95_ms, part.most_ms)))
    return rows


def verdict(stops: Stops) -> str:
    """Return one sentence with PASS or FAIL, the limit, and how many histories contain only words that were played.

    A second sentence follows if the callers sent their audio late, because that makes the measured times longer.
    """
    true = f"{len(stops.found) - stops.untrue} of {len(stops.found)} histories contain only words that were played"
    text = f"{'PASS' if stops.holds else 'FAIL'}: p95 from first frame to silence, limit {LIMIT_MS:.0f} ms; {true}."
    if stops.late_ms <= LATENESS_LIMIT_MS:
        return text
    return f"{text} The callers' frames left {stops.late_ms:g} ms late (p99), which is included in the times."


def document(stops: Stops) -> dict[str, Any]:
    """Return the object that `--json` writes: the verdict, the limit, the distributions, and every interruption.

    Its keys are asked (number of interruptions in the scripts), holds (the verdict), limit_ms, late_ms (99th percentile
    of the lateness of the callers' frames), spreads and interruptions.
    """
    spreads = {name: asdict(part) for name, part in stops.spreads().items()}
    found = [asdict(each) | {"true_to_heard": each.true_to_heard} for each in stops.found]
    return {
        "asked": stops.asked,
        "holds": stops.holds,
        "limit_ms": LIMIT_MS,
        "late_ms": stops.late_ms,
        "spreads": spreads,
        "interruptions": found,
    }
