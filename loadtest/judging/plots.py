"""Charts of the HTML report, as SVG text to embed in the page."""

from __future__ import annotations

import io
import math
import re

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.results.result import VOICE_TO_VOICE, RunResult
from loadtest.results.turn_record import WATERFALL

COLOURS = ("#4c78a8", "#72b7b2", "#54a24b", "#eeca3b", "#f58518", "#e45756", "#b279a2", "#9d755d")
WIDE = (9.2, 3.2)
_NINES = (0, 50, 90, 95, 99, 99.9)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return a figure as SVG with selectable text. Equal figures give equal output."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rejoinder", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), count=1, flags=re.DOTALL)


def _place(percentile: float) -> float:
    """Return the position of a percentile on the horizontal axis of `percentile_curves`.

    The axis is logarithmic in the share above the percentile, so p90, p99 and p99.9 are equally far apart.
    """
    return -math.log10(max(1 - percentile / 100, 0.0005))


def percentile_curves(result: RunResult) -> str:
    """Return an SVG chart of latency by percentile: a bold line for the whole turn and a line for each stage."""
    figure, axes = _figure()
    for colour, name in zip((*COLOURS, "black"), (*WATERFALL, VOICE_TO_VOICE), strict=True):
        if row := result.latencies.get(name):
            places = [_place(percentile) for percentile, _ in row.curve]
            width = 2.5 if name == VOICE_TO_VOICE else 1.2
            axes.plot(places, [ms for _, ms in row.curve], label=name.replace("_", " "), color=colour, lw=width)
    axes.set_xticks([_place(nine) for nine in _NINES], [f"p{nine:g}" for nine in _NINES])
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.legend(ncols=3, fontsize="small", frameon=False)
    return _svg(figure)


def waterfall(result: RunResult) -> str:
    """Return an SVG waterfall chart with one bar for each stage: median and 95th percentile.

    A bar begins where the medians of the earlier stages end.
    """
    figure, axes = _figure()
    begin = 0.0
    names = [name for name in WATERFALL if name in result.latencies]
    for index, name in enumerate(names):
        row = result.latencies[name]
        colour = COLOURS[WATERFALL.index(name)]
        axes.barh(index, row.p50_ms, left=begin, color=colour, height=0.6)
        axes.barh(
            index, max(0.0, row.p95_ms - row.p50_ms), left=begin + row.p50_ms, color=colour, alpha=0.3, height=0.6
        )
        axes.text(begin + row.p95_ms, index, f"  {row.p50_ms:.0f} (p95 {row.p95_ms:.0f})", va="center", fontsize=8)
        begin += row.p50_ms
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("ms after the end of the caller's speech (solid: median, pale: up to the 95th percentile)")
    return _svg(figure)


def timeline(result: RunResult) -> str:
    """Return an SVG chart over the time of the run: open calls, voice-to-voice latency, and failed or refused calls."""
    figure, axes = _figure()
    moments = result.timeline
    times = [moment.at_s for moment in moments]
    for name, colour, values in (
        ("p95", COLOURS[4], [moment.p95_ms for moment in moments]),
        ("p50", COLOURS[0], [moment.p50_ms for moment in moments]),
    ):
        gaps = [math.nan if value is None else value for value in values]
        axes.plot(times, gaps, color=colour, lw=1.6, marker=".", label=name)
    bad = [moment for moment in moments if moment.failed or moment.refused]
    axes.scatter(
        [moment.at_s for moment in bad], [0] * len(bad), color="#d62728", marker="x", label="failed or refused"
    )
    axes.set_ylabel("voice to voice (ms)")
    axes.set_xlabel("seconds after the start")
    axes.set_ylim(bottom=0)
    calls = axes.twinx()
    calls.fill_between(times, [moment.sessions for moment in moments], color="grey", alpha=0.15, step="post")
    calls.set_ylabel("open calls")
    calls.set_ylim(bottom=0)
    axes.legend(fontsize="small", frameon=False, loc="lower left")
    return _svg(figure)
