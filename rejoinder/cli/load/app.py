"""`rejoinder load`: load tests of a server: how many concurrent conversations it serves, and at what latency."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from rejoinder.cli.extras import need_load_extra
from rejoinder.cli.load import bandwidth as load_bandwidth
from rejoinder.cli.load import concurrency as load_concurrency
from rejoinder.cli.load import diff as load_diff
from rejoinder.cli.load import history as load_history
from rejoinder.cli.talk import nearest_region
from rejoinder.cli.trust import Ca, trust
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.errors import ConfigError

# At run time each command imports these modules itself: they need the extra `load` and take a second to import.
if TYPE_CHECKING:
    from loadtest.generator.workers import ProgressCallback, RunProgress
    from loadtest.results.result import RunResult, Verdict
    from loadtest.scenario.scenario import Scenario

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.command()(load_bandwidth.bandwidth)
app.command()(load_concurrency.concurrency)
app.command()(load_diff.diff)
app.command()(load_history.history)

API_KEY = "REJOINDER_API_KEY"
"""Environment variable with the server's API key."""
COLOURS = {"PASS": "green", "FAIL": "bold red", "UNDECIDED": "yellow", "INVALID": "bold magenta"}

Url = Annotated[str, typer.Option(help="OpenAI base URL of the server.")]
Sessions = Annotated[int, typer.Option(min=1, help="Number of concurrent calls.")]
For = Annotated[
    str, typer.Option("--for", metavar="TIME", help="Duration of the measurement, for example 60s, 10m or 1h.")
]
TierName = Annotated[Tier, typer.Option(help="Tier of the latency guide that the calls must meet.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE|@FILE",
        help="Further keys of the scenario, for example arrivals=spike. May be repeated.",
    ),
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="File for the result; keys: loadtest/results/result.py.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="File for the report, one self-contained HTML page.")
]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="File for the verdicts as JUnit XML.")]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="File for a summary in Markdown, for a pull request.")
]


@app.callback()
def load() -> None:
    """Load tests of a server: how many concurrent conversations it serves, and at what latency.

    The commands need the extra `load`: run `pip install -e '.[load]'` in the checkout.
    """


@app.command()
def run(
    url: Url = "ws://127.0.0.1:8000/v1",
    sessions: Sessions = 10,
    for_: For = "60s",
    tier: TierName = Tier.GOOD,
    *,
    settings: Settings = None,
    json_file: Json = None,
    html_file: Html = None,
    junit_file: Junit = None,
    markdown_file: Markdown = None,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Call the nearest region that the server lists, then the others.")
    ] = False,
    ca: Ca = None,
) -> None:
    """Make calls to a server and compare its latency with the tier and the latency guide's other limits.

    loadtest/scenario/scenario.py documents every key of --set. The environment variable REJOINDER_API_KEY, if set,
    is sent as the bearer token.

    Exit status: 0 PASS, 1 FAIL, 2 the calls could not be made, 3 INVALID (the load generator was late, starved or
    lossy, so the server is not judged), 4 UNDECIDED (more turns are needed).
    """
    need_load_extra()
    trust(ca)
    from loadtest.generator.run import run as hold
    from loadtest.judging.exports import junit, markdown
    from loadtest.judging.report import html

    scenario = _scenario(url, sessions=sessions, for_=for_, tier=tier, settings=settings)
    need_writable(json_file, "--json")
    pages = (("--html", html_file, html), ("--junit", junit_file, junit), ("--markdown", markdown_file, markdown))
    for option, path, _ in pages:
        need_writable(path, option)
    console = Console(highlight=False)
    if nearest:
        from loadtest.callers.openai_caller import ServerAddress

        address = nearest_region(console, ServerAddress(scenario.url, scenario.api_key))
        scenario = dataclasses.replace(scenario, url=address.url, fallbacks=address.fallbacks)
    with watching(console, scenario) as watch:
        found = hold(scenario, watch)
    show(console, found)
    write_json(json_file, found)
    for option, path, made in pages:
        if path:
            _write(path, made(found), option)
    raise typer.Exit(found.outcome.exit_code)


@app.command()
def search(
    url: Url = "ws://127.0.0.1:8000/v1",
    start: Annotated[int, typer.Option(min=1, help="Number of calls of the first step.")] = 10,
    most: Annotated[int, typer.Option(min=1, help="Largest number of calls to try.")] = 1000,
    for_: For = "60s",
    *,
    tier: TierName = Tier.GOOD,
    settings: Settings = None,
    json_file: Json = None,
    ca: Ca = None,
) -> None:
    """Find the largest number of calls that meets the tier.

    The search doubles the calls until a step fails, then bisects to 5%. After each step it checks that the server
    recovers. The result must pass three times. One generator process makes at most about 750 calls: use --set workers=2
    or more beyond that.

    --json writes holds and breaks (the largest number of calls that passed and the smallest that failed), ending
    (system-limited, generator-limited, ...), steps, baseline_ms and engines.

    Exit status: 0 if some number of calls passed three times, 1 if none did, 2 after an error, 3 if the load
    generator was the limit.
    """
    need_load_extra()
    trust(ca)
    from loadtest.generator.search import CompletedStep, SearchEnd
    from loadtest.generator.search_runner import search as find

    need_writable(json_file, "--json")
    console = Console(highlight=False)

    def print_step(done: CompletedStep) -> None:
        recovery = {None: "", True: ", recovered", False: ", did not recover"}[done.recovered]
        figures = "" if done.p50_ms is None else f"p50 {done.p50_ms:.0f} ms, p95 {done.p95_ms:.0f} ms"
        outcome = f"[{COLOURS[done.outcome.value]}]{done.outcome.value}[/]"
        console.print(f"{done.step.kind.value:8} {done.step.sessions:6} calls  {outcome}  {figures}{recovery}")
        for cause in done.causes:
            console.print(f"         {cause}", style="magenta")

    found = find(_scenario(url, sessions=start, for_=for_, tier=tier, settings=settings), start, most, print_step)
    breaks = "no step failed" if found.breaks is None else f"{found.breaks} fail"
    console.print(f"Holds {found.holds} calls ({breaks}): {found.ending.value}.", style="bold")
    write_json(json_file, found)
    raise typer.Exit(3 if found.ending is SearchEnd.GENERATOR_LIMITED else 0 if found.holds else 1)


def _scenario(url: str, sessions: int, for_: str, tier: Tier, *, settings: list[str] | None) -> Scenario:
    from loadtest.scenario.parsing import scenario, seconds

    key = os.environ.get(API_KEY) or "none"
    fixed: dict[str, Any] = {"url": url, "sessions": sessions, "tier": tier, "api_key": key}
    return scenario(fixed | {"for_s": seconds(for_, "--for")}, settings or [])


@contextmanager
def watching(console: Console, scenario: Scenario) -> Iterator[ProgressCallback]:
    """Yield a function that displays the progress of a load test on the console. The load generator calls it.

    On a terminal it updates a live view; elsewhere it prints a line every ten seconds. The scheduled number of calls
    is printed before the test starts.
    """
    from loadtest.generator.live import view
    from loadtest.scenario.schedule import plan

    frozen = plan(scenario)
    console.print(f"{len(frozen.calls)} calls, schedule {frozen.sha256[:16]}, seed {scenario.seed}", style="dim")
    if not console.is_terminal:
        yield _lines(console)
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def watch(progress: RunProgress) -> None:
            live.update(view(progress, frozen.measure_from_s, frozen.measure_to_s), refresh=True)

        yield watch


def _lines(console: Console) -> ProgressCallback:
    printed = 0

    def watch(progress: RunProgress) -> None:
        nonlocal printed
        if progress.elapsed_s // 10 > printed:
            printed = int(progress.elapsed_s // 10)
            counts = progress.merged.counts
            console.print(f"{progress.elapsed_s:.0f} s: {sum(progress.live.values())} calls, {counts['turns']} turns")

    return watch


# -- results: tables and files -----------------------------------------------------------------------------------------


def show(console: Console, found: RunResult) -> None:
    """Print the result of a load test.

    First the verdict and what is wrong, then latencies, limits, counts and the checks of the generator.
    """
    from loadtest.judging.findings import findings

    console.print(f"{found.outcome.value}  {found.scenario['tier']} tier", style=COLOURS[found.outcome.value])
    for line in found.causes:
        console.print(f"  invalid load generator: {line}", style="magenta")
    for line in found.notes:
        console.print(f"  {line}", style="dim")
    for number, cause in enumerate(findings(found), 1):
        console.print(f"  {number}. [bold]{cause.cause}[/] {cause.evidence}")
    console.print(latency_table(found))
    console.print(verdict_table(found.verdicts))
    counts = found.counts
    console.print(
        f"{counts.sessions_opened} of {counts.sessions_scheduled} calls held, {counts.sessions_refused} refused, "
        f"{counts.sessions_failed} failed, {counts.sessions_dropped} dropped, "
        f"{counts.sessions_resumed} resumed; {counts.turns} turns: "
        f"{counts.answered} answered, {counts.interrupted} interrupted, {counts.failed} failed, "
        f"{counts.unanswered} unanswered, {counts.premature} premature replies in {counts.cut_off} turns; "
        f"{counts.underruns} underruns."
    )
    if found.memory_mb:
        first, last, most = found.memory_mb[0][1], found.memory_mb[-1][1], max(mib for _, mib in found.memory_mb)
        console.print(
            f"  server memory, all replicas: {first:.0f} MiB at the start, {last:.0f} at the end, {most:.0f} at most"
        )
    for check in found.checks:
        style = "dim" if check.ok else "yellow" if check.warning else "bold magenta"
        sign = ">=" if check.at_least else "<="
        console.print(f"  {check.name}: {check.measured:g} ({sign} {check.limit:g} {check.unit})", style=style)


def latency_table(found: RunResult) -> Table:
    """Return a table of counts and percentiles (p50, p90, p95, p99, maximum) in ms.

    It has one row for each stage, for voice-to-voice latency, for the round trip, for the time to stop at a barge-in,
    and for the connection setup. Times that were not measured have no row.
    """
    from loadtest.results.result import VOICE_TO_VOICE
    from loadtest.results.turn_record import WATERFALL

    table = Table("ms", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("count", "p50", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for name in (*WATERFALL, VOICE_TO_VOICE, "rtt", "stop", "setup"):
        if row := found.latencies.get(name):
            cells = (f"{value:.0f}" for value in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms, row.max_ms))
            table.add_row(name, str(row.count), *cells, style="bold" if name == VOICE_TO_VOICE else None)
    return table


def verdict_table(verdicts: tuple[Verdict, ...]) -> Table:
    """Return a table with one row for each limit.

    A row has the limit's name, source, statistic and value, the measured value, the violations as a fraction of the
    turns, and the verdict. If the verdict is UNDECIDED, it states how many more turns are needed.
    """
    table = Table("limit", "source", box=None, padding=(0, 2, 0, 0))
    for heading in ("statistic", "below", "measured", "violations", "verdict"):
        table.add_column(heading, justify="right" if heading != "verdict" else "left")
    for row in verdicts:
        unit = "%" if row.statistic == "share" else "ms"
        sign = ">= " if row.statistic == "share" else ""
        measured = "-" if row.observed_ms is None else f"{row.observed_ms:g} {unit}"
        needed = f" ({row.needed} more turns)" if row.needed else ""
        table.add_row(
            row.name,
            row.source,
            row.statistic,
            f"{sign}{row.limit_ms:g} {unit}",
            measured,
            f"{row.violations}/{row.turns}",
            f"[{COLOURS[row.outcome.value]}]{row.outcome.value}[/]{needed}",
        )
    return table


def write_json(path: Path | None, found: Any) -> None:
    """Write a result, or a list of results, to `path` as JSON. Do nothing if `path` is None.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path:
        _write(path, json.dumps(_plain(found), indent=1) + "\n", "--json")


def _plain(found: Any) -> Any:
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return _plain(dataclasses.asdict(found))
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    return found.value if isinstance(found, Enum) else found


def need_writable(path: Path | None, option: str) -> None:
    """Raise ConfigError, naming `option`, if `path` cannot be written. None is allowed.

    Call this before a measurement, so that its result is not lost.
    """
    if path and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _unwritable(path, "no permission, or no such folder", option)


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error, option) from None


def _unwritable(path: Path, why: object, option: str) -> ConfigError:
    return ConfigError(f"{path} cannot be written ({why}).", "Name another file.", option)
