"""`rejoinder bench`: measurements that decide a default, each against its alternative in the same run."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from actors.stages.ports import VadBatch, VadPort
from loadtest.results.spread import spread
from rejoinder.core.settings.settings import Settings, VadSettings

app = typer.Typer(help=__doc__, no_args_is_help=True)

BATCHES = (1, 4, 16, 64)
WARM_UP = 50


@app.callback()
def bench() -> None:
    """Measurements that decide a default."""


@app.command()
def vad(
    ticks: Annotated[int, typer.Option(min=20, help="Ticks per row.")] = 300,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rows: windows, placement, ms, p95_ms, cpu_ms.")
    ] = None,
) -> None:
    """Where voice activity should run: a tick inside the host against a tick through its own deployment.

    A tick has one window of each session. `ms` is the median wait for the answer, `cpu ms` the host process's own CPU
    time.
    """
    from cluster.launch import cluster

    settings = Settings(vad=VadSettings(placement="deployment"))
    with cluster("local"):
        rows = asyncio.run(_run_vad(settings, ticks))
    Console().print(table(rows))
    Console().print(f"{os.cpu_count()} cores; the deployment's own CPU comes on top of the host's.", style="dim")
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@app.command()
def capacity(
    folder: Annotated[Path, typer.Option("--out", help="Where calibration, predictions and repeats go.")],
    rows: Annotated[str, typer.Option(help="Names, by commas; all of them without it.")] = "",
    repeats: Annotated[int, typer.Option(min=0, help="Measurements of each row; 0 only predicts.")] = 3,
    for_s: Annotated[float, typer.Option("--for", min=10, help="Seconds of each run.")] = 30.0,
    *,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rows: predicted, repeats, and their errors.")
    ] = None,
) -> None:
    """The capacity plan held against this machine: calibrate, predict each row, then measure it.

    What was done is kept in the folder, and a run that was stopped goes on where it was. Exit status 1 if a row's error
    exceeds its bound.
    """
    from rejoinder.cli.bench import admission as bench_admission
    from rejoinder.cli.bench import capacity as bench_capacity

    found = bench_capacity.validate(folder, rows, repeats, for_s)
    if not repeats:
        return
    if found.rows:
        Console().print(bench_capacity.table(found.rows))
    if found.admission:
        Console().print(bench_admission.shown(found.admission))
    if json_file:
        json_file.write_text(json.dumps(found.documents(), indent=1) + "\n", encoding="utf-8")
    if not found.holds:
        raise typer.Exit(bench_capacity.FAILED)


@app.command()
def latency(
    folder: Annotated[Path, typer.Option("--out", help="Where the turns of each row go.")],
    rows: Annotated[str, typer.Option(help="Names, by commas; all of them without it.")] = "",
    turns: Annotated[int, typer.Option(min=5, help="Turns of each row.")] = 30,
    turns_all_on: Annotated[int, typer.Option(min=10, help="Turns with every technique on.")] = 100,
    *,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rows: technique, spread, stages, cost_ms and its interval.")
    ] = None,
) -> None:
    """What each latency technique buys: voice to voice with real models, each technique off, against all of them on.

    What was measured is kept in the folder, and a run that was stopped goes on where it was.
    """
    from rejoinder.cli.bench import latency as bench_latency

    found = bench_latency.ablate(folder, names=rows, turns=turns, turns_all_on=turns_all_on, console=Console())
    Console().print(bench_latency.table(found))
    for stage, engine in bench_latency.engines(folder).items():
        Console().print(f"{stage}: {engine}", style="dim")
    if json_file:
        documents = [bench_latency.document(row) for row in found]
        json_file.write_text(json.dumps(documents, indent=1) + "\n", encoding="utf-8")


@app.command()
def hedging(
    cases: Annotated[str, typer.Option(help="Names, by commas; all of them without it.")] = "",
    requests: Annotated[int, typer.Option(min=200, help="Requests of each arm.")] = 5000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the cases: off, on, p99_fall, holds.")] = None,
) -> None:
    """Hedged language model requests against plain ones: stalls, a log-normal tail, and a saturated stage.

    One arrival schedule, real Serve replicas, the emulated engine. Exit status 1 if a case does not hold.
    """
    from rejoinder.cli.bench import hedging as bench_hedging

    found = bench_hedging.compare(cases, requests, Console())
    Console().print(bench_hedging.table(found))
    if json_file:
        documents = [bench_hedging.document(case) for case in found]
        json_file.write_text(json.dumps(documents, indent=1) + "\n", encoding="utf-8")
    if not all(case.holds for case in found):
        raise typer.Exit(1)


@app.command()
def cache(
    entries: Annotated[int, typer.Option(min=1, max=100_000, help="Answers that are kept.")] = 2000,
    lookups: Annotated[int, typer.Option(min=20, help="Of each kind.")] = 300,
    answers: Annotated[int, typer.Option(min=5, help="First tokens of the language model.")] = 30,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write rows (what, count, ms, p95_ms, most_ms, found) and engines.")
    ] = None,
) -> None:
    """A kept answer against the language model's first token: equal questions, paraphrases, misses.

    Each call goes through a Serve handle, as a host's does. Exit status 1 if a hit fails, or takes more than 50 ms at
    the 95th percentile.
    """
    from rejoinder.cli.bench import cache as bench_cache

    found = bench_cache.measure(entries, lookups, answers)
    Console().print(bench_cache.table(found))
    for stage, engine in found.engines.items():
        Console().print(f"{stage}: {engine}", style="dim")
    if json_file:
        document = {"rows": [row.document() for row in found.rows], "engines": found.engines}
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not found.holds:
        raise typer.Exit(1)


@app.command("barge-in")
def barge_in(
    count: Annotated[int, typer.Option(min=5, max=1000, help="Interruptions.")] = 50,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write spreads, and each interruption with its times and texts.")
    ] = None,
) -> None:
    """How soon a reply falls silent when its listener speaks: real speech, real voice activity, emulated replies.

    From the first frame with the interruption's speech to the last sample of the reply that a client plays which
    flushes on speech_started. Exit status 1 if the 95th percentile exceeds 150 ms, or a history holds what was not
    heard.
    """
    from rejoinder.cli.bench import barge_in as bench_barge_in

    found = bench_barge_in.measure(count)
    Console().print(bench_barge_in.table(found))
    Console().print(bench_barge_in.verdict(found))
    if json_file:
        json_file.write_text(json.dumps(bench_barge_in.document(found), indent=1) + "\n", encoding="utf-8")
    if not found.holds:
        raise typer.Exit(1)


@app.command()
def drafts(
    callers: Annotated[int, typer.Option(min=1, max=500, help="Calls at the same time.")] = 50,
    turns: Annotated[int, typer.Option(min=1, max=200, help="Turns of each call.")] = 20,
    hesitating: Annotated[float, typer.Option(min=0.1, max=1, help="Share of the turns with a pause inside.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Of the phrases, the pauses and the times to think.")] = 1,
    *,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write counts, drafts by outcome, and each leak with what was heard.")
    ] = None,
) -> None:
    """That nothing of a discarded draft is heard: callers who pause inside their turns and go on, emulated engines.

    Each answer says in every word and every 10 ms of its sound which revision it answers. Exit status 1 if anything was
    heard that answers no committed turn, if a turn was not answered, or if too few drafts were discarded to prove it.
    """
    from rejoinder.cli.bench import drafts as bench_drafts

    found = bench_drafts.measure(callers, turns, hesitating, seed)
    Console().print(bench_drafts.table(found))
    for line in bench_drafts.remarks(found):
        Console().print(line)
    if json_file:
        json_file.write_text(json.dumps(bench_drafts.document(found), indent=1) + "\n", encoding="utf-8")
    if not found.holds:
        raise typer.Exit(1)


async def _run_vad(settings: Settings, ticks: int) -> list[dict[str, Any]]:
    """Measure inside a Serve replica, which is where a host lives. In same-loop mode a handle wants a running loop."""
    from ray import serve

    from deployments.app import stage_deployment
    from deployments.vad import Vad

    handle = stage_deployment(Vad, settings.vad).bind(settings)
    probe = serve.deployment(VadProbe, ray_actor_options={"num_cpus": 0}).bind(settings, handle)
    serve.start(proxy_location="Disabled")
    running = serve.run(probe, name="bench", route_prefix=None)
    return cast(list[dict[str, Any]], await running.measure.remote(ticks))


class VadProbe:
    """Both placements from inside one replica."""

    def __init__(self, settings: Settings, handle: Any) -> None:
        from deployments.local.in_process import InlineVad
        from deployments.serving.handles import VadHandle
        from deployments.vad import load_silero

        self._placements: dict[str, VadPort] = {
            "inline": InlineVad(load_silero(settings)),
            "deployment": VadHandle(handle),
        }

    async def measure(self, ticks: int) -> list[dict[str, Any]]:
        """One row a batch size and placement; the two alternate in rounds, so that noise meets both."""
        rows = []
        for windows in BATCHES:
            samples: dict[str, list[tuple[float, float]]] = {name: [] for name in self._placements}
            for _ in range(3):
                for name, placed in self._placements.items():
                    samples[name] += await _ticks(placed.step, windows, ticks // 3)
            rows += [row(windows, name, taken) for name, taken in samples.items()]
        return rows


async def _ticks(step: Callable[[Any], Awaitable[Any]], windows: int, ticks: int) -> list[tuple[float, float]]:
    audio = np.random.default_rng(0).normal(0, 0.1, (windows, 512)).astype(np.float32).tobytes()
    batch = VadBatch(windows, audio, bytes(windows * 320 * 4))
    for _ in range(min(WARM_UP, ticks)):
        await step(batch)
    taken = []
    for _ in range(ticks):
        began, cpu = time.perf_counter(), time.process_time()
        await step(batch)
        taken.append((time.perf_counter() - began, time.process_time() - cpu))
        await asyncio.sleep(0)
    return taken


def row(windows: int, placement: str, taken: list[tuple[float, float]]) -> dict[str, Any]:
    """What `--json` writes of one batch size and placement; `taken`: seconds waited and computed, a tick."""
    waits = spread([wait * 1000 for wait, _ in taken])
    return {
        "windows": windows,
        "placement": placement,
        "ms": round(waits.median_ms, 3),
        "p95_ms": round(waits.p95_ms, 3),
        "cpu_ms": round(statistics.fmean(cpu_s for _, cpu_s in taken) * 1000, 3),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows, and what each costs the host's CPU against the same batch inline."""
    shown = Table("windows a tick", "placement", "ms", "p95 ms", "host cpu ms", "cpu against inline")
    inline = {row["windows"]: row["cpu_ms"] for row in rows if row["placement"] == "inline"}
    for row in rows:
        ratio = row["cpu_ms"] / max(inline[row["windows"]], 1e-6)
        figures = (f"{row[key]:.2f}" for key in ("ms", "p95_ms", "cpu_ms"))
        shown.add_row(str(row["windows"]), row["placement"], *figures, f"{ratio:.1f}x")
    return shown
