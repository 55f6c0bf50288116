"""Live view of a run in the terminal, updated once a second."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.generator.workers import RunProgress
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.results.turn_record import WATERFALL

SPARKS = "▁▂▃▄▅▆▇█"
WIDTH = 48


def view(progress: RunProgress, measure_from_s: float, measure_to_s: float) -> Group:
    """Return the live view as a `rich` renderable: phase, counts, latencies, and failed self-checks.

    Args:
        progress: State of the run.
        measure_from_s: Start of the measured time in seconds after the start of the run.
        measure_to_s: End of the measured time in seconds after the start of the run.
    """
    counts, elapsed = progress.merged.counts, max(0.0, progress.elapsed_s)
    phase = "ramp and warm-up" if elapsed < measure_from_s else "measuring" if elapsed < measure_to_s else "draining"
    head = Text.assemble(
        (f"{phase}  ", "bold"),
        f"{elapsed:5.0f} of {measure_to_s:.0f} s   ",
        f"{sum(progress.live.values())} calls   {counts['turns']} turns   ",
        (f"{counts['failed'] + counts['unanswered']} failed   ", _colour(counts["failed"] + counts["unanswered"])),
        (f"{counts['refused']} refused   {counts['dropped']} dropped", _colour(counts["refused"] + counts["dropped"])),
    )
    bar = ProgressBar(total=measure_to_s, completed=min(elapsed, measure_to_s), width=WIDTH)
    return Group(head, bar, _latencies(progress), _generator(progress))


def _colour(failures: int) -> str:
    return "bold red" if failures else "dim"


def _latencies(progress: RunProgress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("turns", "p50", "p90", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for name in (*WATERFALL, VOICE_TO_VOICE, "rtt", "stop"):
        if name in progress.merged.seconds:
            style = "bold" if name == VOICE_TO_VOICE else ""
            table.add_row(name, *_row(progress.merged.seconds[name]), style=style)
    return table


def _row(histogram: HdrHistogram) -> list[str]:
    points = (f"{histogram.get_value_at_percentile(at) / 1000:.0f}" for at in (50, 90, 95, 99, 100))
    return [str(histogram.get_total_count()), *points]


def _generator(progress: RunProgress) -> Text:
    """Return two lines: a sparkline of p95 voice-to-voice latency over time, and the failed self-checks."""
    recent = [moment.p95_ms for moment in progress.timeline()[-WIDTH:]]
    most = max((value for value in recent if value is not None), default=0)
    line = (
        "".join(" " if value is None else SPARKS[min(7, int(value / most * 7.99))] for value in recent) if most else ""
    )
    failed = [check for check in progress.fitness().checks() if not check.ok]
    status = ", ".join(f"{check.name} {check.measured:g} {check.unit}" for check in failed) or "all self-checks passed"
    style = "dim" if all(check.warning for check in failed) else "bold yellow"
    return Text.assemble(("p95 over time  ", "dim"), line, "\n", (f"generator: {status}", style))
