"""`rejoinder bench drafts`: callers who pause and continue; no discarded speculative reply may be audible."""

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

LISTED = 10
"""Maximum number of leaks, wrong transcripts and faults that are printed."""


def measure(callers: int, turns: int, hesitating: float, seed: int) -> DraftFindings:
    """Start a server, make all calls concurrently, and return the findings: what callers heard, and server counters.

    Args:
        callers: Number of concurrent calls.
        turns: Number of turns of each call.
        hesitating: Share of the turns with a pause inside.
        seed: Seed of phrases, pauses and thinking times.
    """
    with cluster("local"), served(settings(callers)) as url:
        return converse(url, callers=callers, turns=turns, hesitating=hesitating, seed=seed)


def settings(callers: int) -> Settings:
    """Return the settings of the measurement (SETTINGS), with `host.max_sessions` large enough for all callers."""
    return parse_settings(SETTINGS | {"host": {"max_sessions": max(callers, Settings().host.max_sessions)}})


def converse(url: str, callers: int, turns: int, hesitating: float, *, seed: int) -> DraftFindings:
    """Make all calls concurrently and return the findings: leaks and faults that callers observed, and server counters.

    A leak is a part of a reply that does not belong to the turn before it.

    Args:
        url: Address of a server (http) that runs with the result of `settings`.
        callers: Number of concurrent calls.
        turns: Number of turns of each call.
        hesitating: Share of the turns with a pause inside.
        seed: Seed of phrases, pauses and thinking times.
    """
    speech = encode(human_phrases(), AudioFormat.PCM)
    scripts = [
        script(seed, caller=caller, turns=turns, hesitating=hesitating, phrases=len(speech.utterances))
        for caller in range(callers)
    ]
    before, started_at = stage_metrics.read(url), time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(hold(f"{url.replace('http', 'ws', 1)}/v1", speech, scripts))
    took_s = time.monotonic() - started_at
    stages, restarted = stage_metrics.difference(before, _settled(url))
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
    """Read the counts of drafts and requests from each replica's metrics, and return them.

    Repeat every 0.5 s until the counts of drafts no longer change, for at most `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    reading = stage_metrics.read(url)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        earlier, reading = reading, stage_metrics.read(url)
        if all(reading[name].drafts == counts.drafts for name, counts in earlier.items() if name in reading):
            break
    return reading


def table(found: DraftFindings) -> Table:
    """Return a table with one count per row: turns, pauses, drafts by outcome, leaks and wrong transcripts.

    A leak is a part of a reply that does not belong to the turn before it, for example audio of a discarded draft.
    """
    evidence = found.evidence
    title = f"{found.callers} callers, {found.took_s:.0f} s"
    table = Table("what", "count", title=title)
    rows = {
        "turns": evidence.turns,
        "answered": evidence.turns - evidence.unanswered,
        "with a pause inside": evidence.hesitant,
        "pauses inside turns": found.hesitations,
        "ended inside a pause (premature)": evidence.premature,
        "drafts begun": found.drafts("begun"),
        "kept": found.drafts("kept"),
        "discarded": found.drafts("discarded"),
        "of them with audio ready": found.drafts("discarded_ready"),
        "seconds of replies checked": round(evidence.judged_s),
        "leaks": len(evidence.leaks),
        "wrong transcripts": len(evidence.misheard),
    }
    for name, count in rows.items():
        table.add_row(name, str(count))
    return table


def remarks(found: DraftFindings) -> Iterator[str]:
    """Yield the lines to print below the table; the last one is the verdict.

    The first lines are leaks, wrong transcripts and other faults, at most LISTED (10) of each kind.
    A leak is a part of a reply that does not belong to the turn before it.
    """
    evidence = found.evidence
    for leak in evidence.leaks[:LISTED]:
        yield f"turn {leak.turn}: {leak.why}: {leak.found} instead of {leak.expected}, {leak.audio_s:.2f} s"
    yield from evidence.misheard[:LISTED]
    yield from evidence.faults[:LISTED]
    requests = found.requests("turn_detector")
    yield f"Turn detector requests: {requests}. The callers' frames left {found.late_ms:g} ms late (p99)."
    if not found.tried:
        yield "Too few drafts were discarded to prove anything."
    if not found.accounted:
        restarted = ", ".join(found.restarted) or "none"
        yield f"Not every draft was kept or discarded; replicas restarted: {restarted}."
    leaks = f"{len(evidence.leaks)} leaks" if evidence.leaks else "no discarded draft was audible"
    answered = f"{evidence.turns - evidence.unanswered} of {evidence.turns} turns answered"
    yield f"{'PASS' if found.holds else 'FAIL'}: {leaks}; {answered}."


def document(found: DraftFindings) -> dict[str, Any]:
    """Return the object that `--json` writes.

    Its keys are callers and hesitations (numbers of callers and of pauses), holds (the verdict), late_ms (p99 lateness
    of the callers' frames), took_s (duration), drafts (counts by outcome) and requests (counts by stage and outcome).
    The fields of `Evidence` are further keys, such as turns, unanswered and leaks (one element for each leak).
    """
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
