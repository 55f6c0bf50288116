"""`rejoinder bench drafts`: callers who pause and go on, and what of the discarded drafts reaches them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import uvloop
from rich.table import Table

from cluster.launch import cluster
from loadtest.benches.drafts.run import hold
from loadtest.benches.drafts.script import hesitations, human_phrases, script
from loadtest.benches.drafts.verdict import SETTINGS, DraftFindings
from loadtest.generator import stage_metrics
from loadtest.scenario.utterances import encode
from rejoinder.cli.bench.capacity import served
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.wire.formats import AudioFormat

SHOWN = 10


def measure(callers: int, turns: int, hesitating: float, seed: int) -> DraftFindings:
    """All calls at once, against a server of its own on this machine."""
    with cluster("local"), served(settings(callers)) as url:
        return converse(url, callers=callers, turns=turns, hesitating=hesitating, seed=seed)


def settings(callers: int) -> Settings:
    """The server's: SETTINGS, with room for all calls on one host."""
    return parse_settings(SETTINGS | {"host": {"max_sessions": max(callers, Settings().host.max_sessions)}})


def converse(url: str, callers: int, turns: int, hesitating: float, *, seed: int) -> DraftFindings:
    """All calls at once with the server at `url` (http), which has SETTINGS."""
    speech = encode(human_phrases(), AudioFormat.PCM)
    scripts = [
        script(seed, caller=caller, turns=turns, hesitating=hesitating, phrases=len(speech.utterances))
        for caller in range(callers)
    ]
    before, began = stage_metrics.read(url), time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(hold(f"{url.replace('http', 'ws', 1)}/v1", speech, scripts))
    took_s = time.monotonic() - began
    stages, restarted = stage_metrics.between(before, _settled(url))
    return DraftFindings(
        callers,
        hesitations=hesitations(scripts),
        evidence=held.evidence,
        stages=stages,
        restarted=tuple(restarted),
        late_ms=held.late_ms,
        took_s=round(took_s, 1),
    )


def _settled(url: str, within_s: float = 10.0) -> stage_metrics.Reading:
    """The server's counts once the ended calls' drafts are counted too."""
    deadline = time.monotonic() + within_s
    reading = stage_metrics.read(url)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        earlier, reading = reading, stage_metrics.read(url)
        if all(reading[name].drafts == counts.drafts for name, counts in earlier.items() if name in reading):
            break
    return reading


def table(found: DraftFindings) -> Table:
    """What was said, what was tried, and what was heard."""
    seen = found.evidence
    title = f"{found.callers} callers, {found.took_s:.0f} s"
    shown = Table("what", "count", title=title)
    rows = {
        "turns": seen.turns,
        "answered": seen.turns - seen.unanswered,
        "with a pause inside": seen.hesitant,
        "pauses inside turns": found.hesitations,
        "taken inside a pause (premature)": seen.premature,
        "drafts begun": found.drafts("begun"),
        "kept": found.drafts("kept"),
        "discarded": found.drafts("discarded"),
        "of them with audio ready": found.drafts("discarded_ready"),
        "seconds of answers read": round(seen.judged_s),
        "leaks": len(seen.leaks),
        "transcripts not of what was said": len(seen.misheard),
    }
    for name, count in rows.items():
        shown.add_row(name, str(count))
    return shown


def remarks(found: DraftFindings) -> Iterator[str]:
    """The verdict in a sentence, and what speaks against it."""
    seen = found.evidence
    for leak in seen.leaks[:SHOWN]:
        yield f"turn {leak.turn}: {leak.why}: {leak.found} instead of {leak.expected}, {leak.audio_s:.2f} s"
    yield from seen.misheard[:SHOWN]
    yield from seen.faults[:SHOWN]
    asked = found.requests("turn_detector")
    yield f"The turn model was asked {asked} times. The callers' frames left {found.late_ms:g} ms late (p99)."
    if not found.tried:
        yield "Too few drafts were discarded to prove anything."
    if not found.accounted:
        gone = ", ".join(found.restarted) or "none"
        yield f"Not every draft that was begun was kept or discarded; replicas restarted: {gone}."
    heard = f"{len(seen.leaks)} leaks" if seen.leaks else "nothing of a discarded revision was heard"
    answered = f"{seen.turns - seen.unanswered} of {seen.turns} turns answered"
    yield f"{'PASS' if found.holds else 'FAIL'}: {heard}; {answered}."


def document(found: DraftFindings) -> dict[str, Any]:
    """What `--json` writes."""
    host = found.stages.get("host")
    return {
        "callers": found.callers,
        "hesitations": found.hesitations,
        "holds": found.holds,
        "late_ms": found.late_ms,
        "took_s": found.took_s,
        **asdict(found.evidence),
        "drafts": {name: round(count) for name, count in host.drafts.items()} if host else {},
        "requests": {name: {end: round(n) for end, n in stage.ends.items()} for name, stage in found.stages.items()},
    }
