"""`rejoinder bench`: commands that measure a default setting and its alternatives, or check a claim, in one run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rejoinder.cli.extras import need_load_extra

# Each command below imports its measurement inside its function. Ray and the load generator take seconds to import, and
# the load generator needs the extra `load`.

FAILED = 1
"""Exit status if a result is outside its bound."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def bench() -> None:
    """Measurements that decide a default, each compared with its alternative in the same run.

    Some commands need the extra `load`: run `pip install -e '.[load]'` in the checkout.
    """


@app.command()
def vad(
    ticks: Annotated[int, typer.Option(min=20, help="Number of ticks of each row.")] = 300,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for the rows: windows, placement, ms, p95_ms, cpu_ms."),
    ] = None,
) -> None:
    """Measure where voice activity detection should run: inside the host, or in a separate deployment.

    A tick is one batch with one window of each session. `ms` is the median wait for the result, `host cpu ms` the CPU
    time of the host process alone.

    Exit status: 0, or 2 after an error.
    """
    from rejoinder.cli.bench import vad as bench_vad

    rows = bench_vad.measure(ticks)
    Console().print(bench_vad.table(rows))
    Console().print(
        f"{os.cpu_count()} cores. The CPU time of the deployment's own process is not included.", style="dim"
    )
    _write_json(json_file, rows)


@app.command()
def capacity(
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the calibration, the predictions and the repeats.")
    ],
    rows: Annotated[str, typer.Option(help="Names of rows, with commas. Default: all rows.")] = "",
    repeats: Annotated[int, typer.Option(min=0, help="Measurements of each row. 0 only predicts.")] = 3,
    for_s: Annotated[float, typer.Option("--for", min=10, help="Duration of each run in seconds.")] = 30.0,
    *,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for the rows: predictions, repeats and their errors."),
    ] = None,
) -> None:
    """Check the capacity plan on this machine: calibrate, predict each row, then measure it.

    A row is one configuration of the system.

    The folder keeps every finished step, and a run that was stopped continues there.

    Exit status: 0 if every row's error is within its bound, 1 if not, 2 after an error.
    """
    need_load_extra()
    from rejoinder.cli.bench import admission as bench_admission
    from rejoinder.cli.bench import capacity as bench_capacity

    found = bench_capacity.validate(folder, rows, repeats, for_s)
    if not repeats:
        return
    if found.rows:
        Console().print(bench_capacity.table(found.rows))
    if found.admission:
        Console().print(bench_admission.summary(found.admission))
    _write_json(json_file, found.documents())
    _exit_unless(found.holds)


@app.command()
def latency(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the turns of each row.")],
    rows: Annotated[str, typer.Option(help="Names of rows, with commas. Default: all rows.")] = "",
    turns: Annotated[int, typer.Option(min=5, help="Number of turns of each row.")] = 30,
    turns_all_on: Annotated[int, typer.Option(min=10, help="Number of turns with every technique on.")] = 100,
    *,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="File for the rows: technique, spread, stages, and cost_ms with its interval.",
        ),
    ] = None,
) -> None:
    """Measure what each latency technique saves: voice-to-voice latency without it, compared with all techniques on.

    Every model is real. The folder keeps every finished conversation, and a run that was stopped continues there.

    Exit status: 0, or 2 after an error.
    """
    need_load_extra()
    from rejoinder.cli.bench import latency as bench_latency

    found = bench_latency.ablate(folder, names=rows, turns=turns, turns_all_on=turns_all_on, console=Console())
    Console().print(bench_latency.table(found))
    for stage, engine in bench_latency.engines(folder).items():
        Console().print(f"{stage}: {engine}", style="dim")
    _write_json(json_file, [bench_latency.document(row) for row in found])


@app.command()
def hedging(
    cases: Annotated[str, typer.Option(help="Names of cases, with commas. Default: all cases.")] = "",
    requests: Annotated[int, typer.Option(min=200, help="Number of requests of each arm.")] = 5000,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File for the cases: off, on, p99_fall, holds.")
    ] = None,
) -> None:
    """Compare the time to first token of language model requests with and without hedging.

    The cases are replicas that stall, service times with a log-normal tail, and a saturated stage. Each case has a run
    with hedging and one without, on the same arrival schedule. The replicas are real, their engine is emulated.

    Exit status: 0 if every case is within its limits, 1 if not, 2 after an error.
    """
    from rejoinder.cli.bench import hedging as bench_hedging

    found = bench_hedging.compare(cases, requests, Console())
    Console().print(bench_hedging.table(found))
    _write_json(json_file, [bench_hedging.document(case) for case in found])
    _exit_unless(all(case.holds for case in found))


@app.command()
def cache(
    entries: Annotated[int, typer.Option(min=1, max=100_000, help="Number of answers in the cache.")] = 2000,
    lookups: Annotated[int, typer.Option(min=20, help="Number of lookups of each kind.")] = 300,
    answers: Annotated[int, typer.Option(min=5, help="Number of first tokens of the language model.")] = 30,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="File for rows (what, count, ms, p95_ms, most_ms, found) and engines."
        ),
    ] = None,
) -> None:
    """Compare the latency of the answer cache with the time to first token of the language model.

    The lookups are of stored questions, of their paraphrases, and of questions that are not stored. Each call goes
    through a Serve handle, like the calls of a host.

    Exit status: 0 if every hit is found and takes at most 50 ms at the 95th percentile, 1 if not, 2 after an error.
    """
    from rejoinder.cli.bench import cache as bench_cache

    found = bench_cache.measure(entries, lookups, answers)
    Console().print(bench_cache.table(found))
    for stage, engine in found.engines.items():
        Console().print(f"{stage}: {engine}", style="dim")
    _write_json(json_file, {"rows": [row.document() for row in found.rows], "engines": found.engines})
    _exit_unless(found.holds)


@app.command()
def answers(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A value of llm.model. Repeat it to compare models. Default: that of the file."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The ray_config.yaml whose settings apply. Default: the default settings.")
    ] = None,
    bar: Annotated[float, typer.Option(min=0, max=1, help="Share of right answers that the first model needs.")] = 0.75,
    development: Annotated[
        bool, typer.Option("--development", help="Ask the development set, on which prompts may be tuned.")
    ] = False,
    *,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine. Default: the file's.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for shares, latencies and every answer of each model."),
    ] = None,
) -> None:
    """Ask 100 spoken-style questions in ten categories, judge each answer by a rule, and measure the latency.

    The model runs in this process, with the instructions and limits of a call.

    Exit status: 0 if the first model's share of right answers reaches the bar and no answer is in a wrong language,
    1 if not, 2 after an error.
    """
    need_load_extra()
    from cluster.config_file import read_config
    from loadtest.benches.answers.questions import DEVELOPMENT_SET, TEST_SET, read_questions
    from rejoinder.cli.bench import answers as bench_answers
    from rejoinder.core.settings.settings import parse_settings

    settings = read_config(config).application.args
    questions = read_questions(DEVELOPMENT_SET if development else TEST_SET)
    found = []
    for model in models or [settings.llm.model]:
        llm = {"model": model, "threads": threads or settings.llm.threads}
        changed = settings.model_dump() | {"llm": settings.llm.model_dump() | llm}
        found.append(bench_answers.measure(parse_settings(changed), questions))
    for model_answers in found:
        Console().print(bench_answers.failures_table(model_answers))
    Console().print(bench_answers.share_table(found))
    _write_json(json_file, [model_answers.document() for model_answers in found])
    _exit_unless(found[0].holds(bar))


@app.command()
def tools(
    config: Annotated[
        Path | None, typer.Option(help="The ray_config.yaml whose settings apply. Default: the default settings.")
    ] = None,
    bar: Annotated[float, typer.Option(min=0, max=1, help="Share of right calls that is needed.")] = 0.8,
    development: Annotated[
        bool, typer.Option("--development", help="Send the development set, on which prompts may be tuned.")
    ] = False,
    spoken: Annotated[
        bool, typer.Option("--spoken", help="Speak each request with the voice, and transcribe it.")
    ] = False,
    *,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File for the shares and every answer.")
    ] = None,
) -> None:
    """Send 50 requests that need one of three tools, and ten sentences that need none, to the language model.

    The model runs in this process. A call is right if it is the only one, calls the right tool, and its arguments fit
    the tool's JSON schema.

    Exit status: 0 if the share of right calls reaches the bar, 1 if not, 2 after an error.
    """
    need_load_extra()
    from cluster.config_file import read_config
    from loadtest.benches.tools.requests import DEVELOPMENT_SET, TEST_SET, read_requests
    from rejoinder.cli.bench import tools as bench_tools

    requests = read_requests(DEVELOPMENT_SET if development else TEST_SET)
    found = bench_tools.measure(read_config(config).application.args, requests, spoken=spoken)
    Console().print(bench_tools.faults_table(found))
    Console().print(bench_tools.table(found))
    _write_json(json_file, found.document())
    _exit_unless(found.share >= bar)


@app.command("barge-in")
def barge_in(
    count: Annotated[int, typer.Option(min=5, max=1000, help="Number of interruptions.")] = 50,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="File for the spreads, and for the times and texts of each interruption."
        ),
    ] = None,
) -> None:
    """Measure how fast a reply stops when the caller speaks: real speech, real voice activity, emulated replies.

    The time is from the first frame of the caller's speech to the last sample of the reply that is played. The
    client flushes its buffer on speech_started.

    Exit status: 0 if the 95th percentile is at most 150 ms and every history contains only words that were played,
    1 if not, 2 after an error.
    """
    need_load_extra()
    from rejoinder.cli.bench import barge_in as bench_barge_in

    found = bench_barge_in.measure(count)
    Console().print(bench_barge_in.table(found))
    Console().print(bench_barge_in.verdict(found))
    _write_json(json_file, bench_barge_in.document(found))
    _exit_unless(found.holds)


@app.command()
def drafts(
    callers: Annotated[int, typer.Option(min=1, max=500, help="Number of concurrent calls.")] = 50,
    turns: Annotated[int, typer.Option(min=1, max=200, help="Number of turns of each call.")] = 20,
    hesitating: Annotated[float, typer.Option(min=0.1, max=1, help="Share of turns with a pause inside.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Seed of the phrases, the pauses and the thinking times.")] = 1,
    *,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for counts, drafts by outcome, and every leak."),
    ] = None,
) -> None:
    """Check that no discarded speculative reply (draft) is audible, with callers who pause inside their turns.

    The engines are emulated. Every word and every 10 ms of sound of a reply encode the transcript that it answers.

    Exit status: 0 if every turn was answered, every audible reply answers its turn and enough drafts were discarded
    to prove it, 1 if not, 2 after an error.
    """
    need_load_extra()
    from rejoinder.cli.bench import drafts as bench_drafts

    found = bench_drafts.measure(callers, turns, hesitating, seed)
    Console().print(bench_drafts.table(found))
    for line in bench_drafts.remarks(found):
        Console().print(line)
    _write_json(json_file, bench_drafts.document(found))
    _exit_unless(found.holds)


@app.command("turn-taking")
def turn_taking(
    split: Annotated[str, typer.Option(help="development, held-out, or all.")] = "held-out",
    eagerness: Annotated[str, typer.Option(help="Eagerness of semantic_vad: low, medium, high or auto.")] = "auto",
    only: Annotated[str, typer.Option(help="Play only events whose id or kind starts with one of these words.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="About 60 events, in real time.")] = False,
    *,
    clock: Annotated[
        str,
        typer.Option(help="What the clock follows while an engine computes: real time, or cpu time on a busy machine."),
    ] = "real",
    outcomes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that keeps the outcome of each event. A later run continues it."),
    ] = None,
    most: Annotated[int, typer.Option(min=0, help="Play at most this many new events. 0: all.")] = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="File for the figures, and for the outcome of each event."),
    ] = None,
) -> None:
    """Measure turn-taking: interruptions, yield latency, selectivity and response latency, with the real engines.

    The corpus is made on demand from Debian packages and the model store (docs/results/turn-taking.md). Events whose
    voice is not installed are left out. While nothing computes, the clock jumps instead of waiting.

    Exit status: 0 if interruptions are at most 5%, the yield latency at most 0.3 s (p95) and selectivity at least 90%,
    1 if not, 2 after an error.
    """
    from rejoinder.cli.bench import turn_taking as bench_turn_taking

    options = bench_turn_taking.BenchOptions(
        split, eagerness=eagerness, only=only, quick=quick, pace=clock, outcomes=outcomes, most=most
    )
    holds, document = bench_turn_taking.run(options, Console(width=140))
    _write_json(json_file, document)
    _exit_unless(holds)


def _write_json(path: Path | None, document: Any) -> None:
    if path:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _exit_unless(holds: bool) -> None:
    if not holds:
        raise typer.Exit(FAILED)
