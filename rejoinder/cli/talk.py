"""`rejoinder talk`: send recorded clips to a server as one conversation, and print each turn's latency by stage."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rejoinder.cli.trust import Ca, trust
from rejoinder.core.errors import ConfigError

# At run time the command imports these modules itself, because the openai client takes a second to import.
if TYPE_CHECKING:
    from loadtest.callers.openai_caller import HeldCall, ServerAddress
    from loadtest.callers.scripted_caller import ScriptedLine
    from loadtest.results.spread import Spread
    from loadtest.results.turn_record import TurnRecord

UNATTRIBUTED_LIMIT_MS = 5.0
"""Limit of the time of a turn that belongs to no stage, in ms. More indicates a fault of the measurement or system."""
BAR_WIDTH = 40

NOT_ANSWERED = 1
"""Exit status if a turn was not answered."""
API_KEY = "REJOINDER_API_KEY"
"""Environment variable with the server's API key."""

Clips = Annotated[
    list[Path],
    typer.Argument(metavar="CLIP...", help="Recordings to send, in order. CLIP.txt beside one holds its true text."),
]
Url = Annotated[str, typer.Option(help="OpenAI base URL of the server.")]
Nearest = Annotated[
    bool,
    typer.Option("--nearest/--no-nearest", help="Call the nearest region that the server lists, then the others."),
]
Repeat = Annotated[int, typer.Option(min=1, help="Number of conversations, each in a new session.")]
BargeIn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N:SECONDS",
        help="Send clip N (2 or more) SECONDS after the reply before it began to play. May be repeated.",
    ),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait for a reply.")]
Save = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for each reply and the whole conversation as WAV files.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="File for the turns: a JSON array with one object a turn.")
]


def talk(
    clips: Clips,
    url: Url = "ws://127.0.0.1:8000/v1",
    repeat: Repeat = 1,
    barge_in: BargeIn = None,
    *,
    timeout: Timeout = 60.0,
    save: Save = None,
    json_file: Json = None,
    nearest: Nearest = True,
    ca: Ca = None,
) -> None:
    """Send recordings to a server in real time as one conversation.

    A clip may have any format that FFmpeg reads, at any rate and with any number of channels: WAV (also float), FLAC,
    MP3, Ogg, WebM, M4A.

    For each turn it prints the transcript, the reply, and the latency by stage, from the last speech sample of the
    clip to the first audible sample of the reply. The environment variable REJOINDER_API_KEY, if set, is sent as
    the bearer token.

    Exit status: 0 if every turn was answered, 1 if not, 2 if there was no conversation because of an error.

    --json writes one object a turn with the keys heard, answered, voice_to_voice_ms, stages_ms (silence, endpoint,
    stt, llm_first_token, first_segment, tts_first_audio, delivery, unattributed; their sum is voice_to_voice_ms),
    rtt_ms, llm_total_ms, prompt_tokens, cached_tokens, interrupted, stop_ms, hedged, engines, clip, run, outcome,
    expected, wer, premature_replies. A value that was not measured is null. loadtest/results/turn_record.py
    documents each key.
    """
    trust(ca)
    from loadtest.callers.openai_caller import ServerAddress
    from loadtest.callers.recording import save as save_recording
    from loadtest.results.spread import spreads

    console = Console(highlight=False, soft_wrap=True)
    server, lines = ServerAddress(url, os.environ.get(API_KEY) or "none"), _lines(clips, barge_in or [])
    if nearest:
        server = nearest_region(console, server)
    if json_file:
        _write(json_file, [])
    records: list[TurnRecord] = []
    for run in range(1, repeat + 1):
        if repeat > 1:
            console.rule(f"conversation {run} of {repeat}")
        call = _converse(console, server, lines, timeout)
        records += call.dialogue.records(run)
        if save:
            save_recording(call.dialogue, save if repeat == 1 else save / f"run-{run:02d}")
        if json_file:
            _write(json_file, records)
    if repeat > 1:
        console.print(_summary(spreads(records)))
    unanswered = sum(not record.ok for record in records)
    if unanswered:
        console.print(f"{unanswered} of {len(records)} turns were not answered.", style="bold red")
        raise typer.Exit(NOT_ANSWERED)


def nearest_region(console: Console, server: ServerAddress) -> ServerAddress:
    """Return the address of the nearest region that the server lists, with the others behind it, and print it.

    A server without regions, or one that does not answer, is returned unchanged.
    """
    from loadtest.callers.regions import nearest

    address, entries = asyncio.run(nearest(server))
    if entries:
        times = ["no answer" if entry.rtt_s is None else f"{entry.rtt_s * 1000:.0f} ms" for entry in entries]
        listed = ", ".join(f"{entry.name} {took}" for entry, took in zip(entries, times, strict=True))
        console.print(f"Regions, nearest first: {listed}", style="dim", markup=False)
    return address


def _lines(clips: list[Path], barge_in: list[str]) -> list[ScriptedLine]:
    """Return the lines to speak: each clip and, if it interrupts a reply, the seconds after the reply's start.

    Args:
        clips: Paths of the recordings, in order.
        barge_in: Values of --barge-in, N:SECONDS: clip N interrupts the reply before it after that many seconds.

    Raises:
        ConfigError: A value or a file is invalid. The error names it.
    """
    from loadtest.callers.scripted_caller import ScriptedLine
    from loadtest.scenario.clips import read_clip

    offsets: dict[int, float] = {}
    for option in barge_in:
        number, _, seconds = option.partition(":")
        try:
            clip, offset_s = int(number), float(seconds)
        except ValueError:
            raise ConfigError(f"{option!r} is not N:SECONDS.", "Write 3:1.5, for example.", "--barge-in") from None
        if not 2 <= clip <= len(clips) or not 0 <= offset_s < float("inf"):
            raise ConfigError(
                f"{option!r} is not a clip that follows a reply.", f"N is 2 to {len(clips)}.", "--barge-in"
            )
        offsets[clip] = offset_s
    return [ScriptedLine(read_clip(path), offsets.get(number)) for number, path in enumerate(clips, 1)]


def _converse(console: Console, server: ServerAddress, lines: list[ScriptedLine], timeout_s: float) -> HeldCall:
    from loadtest.callers.openai_caller import LATENESS_LIMIT_MS, talk
    from loadtest.callers.scripted_caller import ScriptedBehavior

    call = asyncio.run(
        talk(server, lines, ScriptedBehavior(timeout_s=timeout_s), lambda record: _show(console, record))
    )
    for record in call.dialogue.records()[call.dialogue.closed :]:
        _show(console, record)
    for fault in call.dialogue.faults:
        console.print(f"! {fault}", style="yellow", markup=False)
    p99_ms, most_ms = call.lateness_ms()
    late = p99_ms > LATENESS_LIMIT_MS
    console.print(
        f"frames left {p99_ms:.1f} ms late at the 99th percentile, {most_ms:.1f} ms at most"
        + (f". Above {LATENESS_LIMIT_MS:g} ms the machine is too busy for a valid measurement." if late else "."),
        style="bold yellow" if late else "dim",
    )
    return call


def _write(path: Path, records: list[TurnRecord]) -> None:
    try:
        path.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}).", "Name another file.", "--json") from None


# -- printing a turn ---------------------------------------------------------------------------------------------------


def _show(console: Console, record: TurnRecord) -> None:
    """Print a turn: its transcript, its reply and its waterfall."""
    console.print(Text(record.clip, style="bold") + Text(f"  {record.outcome}", style="green" if record.ok else "red"))
    wer = "" if record.wer is None else f"  (word error rate {record.wer:.0%})"
    console.print(Text(f"  heard     {record.heard or '-'}{wer}"))
    console.print(Text(f"  answered  {record.answered or '-'}"))
    notes = {
        f"stopped {_ms(record.stop_ms)} after the barge-in": record.stop_ms is not None,
        "hedged": record.hedged,
        f"{record.premature_replies} premature": record.premature_replies > 0,
        f"round trip {record.rtt_ms} ms": record.rtt_ms is not None,
        f"language model {_ms(record.llm_total_ms)} in total": record.llm_total_ms is not None,
        f"{record.cached_tokens} of {record.prompt_tokens} prompt tokens cached": bool(record.cached_tokens),
    }
    console.print(Text("  " + ", ".join(note for note, holds in notes.items() if holds), style="dim"))
    if record.voice_to_voice_ms is not None:
        console.print(waterfall(record.stages_ms or {}, record.voice_to_voice_ms))


def waterfall(stages_ms: dict[str, float], total_ms: float) -> Table:
    """Return a table of a turn's stages, each with its milliseconds and a bar that starts where the stage starts.

    Args:
        stages_ms: Milliseconds by stage, in pipeline order.
        total_ms: Voice-to-voice latency of the turn in milliseconds.
    """
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    begin = 0.0
    for stage, share in stages_ms.items():
        too_long = stage == "unattributed" and share > UNATTRIBUTED_LIMIT_MS
        table.add_row(stage, _ms(share), _bar(begin, share, total_ms), style="bold red" if too_long else None)
        begin += share
    table.add_row("voice to voice", _ms(total_ms), "", style="bold")
    return table


def _bar(begin_ms: float, share_ms: float, total_ms: float) -> str:
    """Return the bar of one stage in a waterfall of characters, indented by the stages before it.

    Args:
        begin_ms: Time from the start of the turn to the start of the stage.
        share_ms: The stage's share of the turn.
        total_ms: Length of the turn, which corresponds to the full width.
    """
    scale = BAR_WIDTH / max(total_ms, 1.0)
    left, right = (round(min(max(0.0, edge), total_ms) * scale) for edge in (begin_ms, begin_ms + share_ms))
    return " " * left + ("█" * (right - left) or ("▏" if share_ms > 0 else ""))


def _summary(spreads: dict[str, Spread]) -> Table:
    count = max((spread.count for spread in spreads.values()), default=0)
    table = Table("stage", title=f"{count} turns (p95: nearest rank)", title_justify="left", box=None)
    for heading in ("median", "p95", "least", "most"):
        table.add_column(heading, justify="right")
    for stage, spread in spreads.items():
        table.add_row(
            stage, *(_ms(value) for value in (spread.median_ms, spread.p95_ms, spread.least_ms, spread.most_ms))
        )
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
