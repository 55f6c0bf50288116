"""`rejoinder bench latency`: what each latency technique saves, with real models, row by row.

A row is the system with all latency techniques, or without one of them. Each conversation is written
to the folder of the results when it ends. A run that was stopped continues with the missing turns.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from cluster.launch import cluster
from loadtest.benches.ablation import ALL_ON, TECHNIQUES, AblationRow, Technique, row
from loadtest.callers.openai_caller import LATENESS_LIMIT_MS, ServerAddress, talk
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedLine
from loadtest.results.turn_record import TurnRecord
from loadtest.scenario.clips import read_clip
from rejoinder.cli.bench.capacity import served
from rejoinder.cli.demo import DemoLine, make_clips
from rejoinder.core.errors import BackendError, ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings, parse_settings
from rejoinder.store import open_store

LINES = (
    DemoLine("1-synthetic-capital", "What is the capital of France?"),
    DemoLine("2-human-dickens", recording="two_cities.wav@20.9"),
    DemoLine("3-synthetic-history", "Tell me about the history of the city of London."),
    DemoLine("4-human-wisdom", recording="two_cities.wav@4.6"),
    DemoLine("5-synthetic-egg", "How do I boil an egg?"),
)
"""The caller's lines in a conversation of five turns. The prompts of later turns contain the earlier ones."""

TIMEOUT_S = 30.0
MOST_TRIES = 6
"""Maximum number of attempts at one conversation. It is repeated if the caller itself sent its audio frames late."""
_RECORDS = TypeAdapter(list[TurnRecord])


def ablate(folder: Path, names: str, turns: int, turns_all_on: int, *, console: Console) -> list[AblationRow]:
    """Measure the system with all techniques, then without one technique per row. Return all rows, "all on" first.

    Turns that are in the folder are not repeated.

    Args:
        folder: Folder of the results.
        names: Names of rows, separated by commas; "": all rows.
        turns: Number of turns of each row.
        turns_all_on: Number of turns with every technique on.
        console: Receives one line for each conversation.

    Raises:
        ConfigError: A name is unknown.
        BackendError: This machine is too busy for a valid measurement.
    """
    chosen = [_named(name) for name in names.split(",")] if names else list(TECHNIQUES)
    folder.mkdir(parents=True, exist_ok=True)
    baseline, *rest = [_named(ALL_ON), *(technique for technique in chosen if technique.name != ALL_ON)]
    clips = _clips(folder / "clips")
    with cluster("local"):
        # Half of the turns of "all on" are measured before the other rows and half after them, because the machine's
        # speed drifts.
        _measure(folder, technique=baseline, clips=clips, turns=turns_all_on // 2, console=console)
        for technique in rest:
            _measure(folder, technique=technique, clips=clips, turns=turns, console=console)
        _measure(folder, technique=baseline, clips=clips, turns=turns_all_on, console=console)
    all_on = _stored(folder, baseline)
    return [row(technique, _stored(folder, technique), all_on) for technique in (baseline, *rest)]


def _clips(folder: Path) -> list[Path]:
    """Return the paths of the caller's WAV files in `folder`, and make them if they are missing.

    All rows use the same files, because a second synthesis of the same text gives other samples.
    """
    clips = [folder / f"{line.name}.wav" for line in LINES]
    if all(clip.exists() for clip in clips):
        return clips
    folder.mkdir(exist_ok=True)
    return make_clips(folder, open_store(ModelStoreSettings()), LINES)


def _named(name: str) -> Technique:
    for technique in TECHNIQUES:
        if technique.name == name:
            return technique
    names = ", ".join(technique.name for technique in TECHNIQUES)
    raise ConfigError(f"there is no row {name!r}.", f"Rows: {names}.", field="--rows")


def _measure(folder: Path, technique: Technique, clips: Sequence[Path], turns: int, *, console: Console) -> None:
    """Have conversations without one technique until `turns` turns are in the folder.

    Each conversation is written to the folder when it ends.

    Raises:
        BackendError: The caller sent audio too late in MOST_TRIES conversations in a row.
    """
    stored = _stored(folder, technique)
    if len(stored) >= turns:
        return
    settings = parse_settings(technique.changes)
    with served(settings) as url:
        server = ServerAddress(f"{url.replace('http', 'ws', 1)}/v1")
        asyncio.run(_converse(server, clips, 0))  # warm-up, not measured: the first conversation is slower
        tries = 0
        while len(stored) < turns:
            records, late_ms = asyncio.run(_converse(server, clips, 1 + len(stored) // len(clips)))
            if late_ms > LATENESS_LIMIT_MS:
                tries += 1
                if tries >= MOST_TRIES:
                    raise BackendError(f"the caller's frames left {late_ms:.1f} ms late.", "Use a quieter machine.")
                console.print(f"repeated: the caller's frames left {late_ms:.1f} ms late", style="dim")
                continue
            stored, tries = stored + records, 0
            _path(folder, technique).write_text(
                json.dumps([asdict(record) for record in stored], indent=1) + "\n", encoding="utf-8"
            )
            times = [f"{record.voice_to_voice_ms or 0:.0f}" for record in records]
            console.print(f"{technique.name}: {', '.join(times)} ms ({len(stored)} of {turns} turns)", style="dim")


async def _converse(server: ServerAddress, clips: Sequence[Path], run: int) -> tuple[list[TurnRecord], float]:
    """Have one conversation in which the caller speaks `clips`.

    `run` is the number of the conversation; it is copied into the records.

    Returns:
        The records of its turns, and the p99 of the lateness of the caller's frames in ms.
    """
    lines = [ScriptedLine(read_clip(path)) for path in clips]
    call = await talk(server, lines, ScriptedBehavior(timeout_s=TIMEOUT_S), lambda _: None)
    return call.dialogue.records(run), call.lateness_ms()[0]


def _path(folder: Path, technique: Technique) -> Path:
    return folder / f"{technique.name}.json"


def _stored(folder: Path, technique: Technique) -> list[TurnRecord]:
    path = _path(folder, technique)
    return _RECORDS.validate_json(path.read_bytes()) if path.exists() else []


def document(found: AblationRow) -> dict[str, Any]:
    """Return a row as the dict that `--json` writes. Its keys are the fields of `AblationRow`; times are in ms."""
    return asdict(found)


def engines(folder: Path) -> dict[str, str]:
    """Return the engine name of each stage, as the server reported it in the turns of the row "all on".

    `folder` is the folder of the results. Empty if it contains no such turn.
    """
    records = _stored(folder, _named(ALL_ON))
    return next((record.engines for record in records if record.engines), {})


def table(rows: Sequence[AblationRow]) -> Table:
    """Return a table with one line for each row. Times are in milliseconds.

    A line has the number of turns, the p50 and p95 of voice-to-voice latency, how much longer a turn takes without the
    technique (with a 95% interval), the median of each stage, and the number of premature replies.
    """
    stages = list(rows[0].stages)
    title = "voice to voice, ms; costs: clip by clip; stages: medians; cut off: premature replies"
    shown = Table("without", "turns", "p50", "p95", "costs (95%)", *stages, "cut off", title=title)
    for found in rows:
        whole = found.spread
        cost = f"{found.cost_ms:+.0f} ({found.low_ms:+.0f} to {found.high_ms:+.0f})"
        medians = (f"{found.stages[stage].median_ms:.0f}" for stage in stages)
        name = "all on" if found.technique.name == ALL_ON else found.technique.name
        figures = (str(whole.count), f"{whole.median_ms:.0f}", f"{whole.p95_ms:.0f}")
        shown.add_row(name, *figures, "" if found.technique.name == ALL_ON else cost, *medians, str(found.premature))
    return shown
