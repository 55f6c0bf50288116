"""Tables of `rejoinder bench turn-taking` for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from loadtest.benches.turn_taking import (
    INTERRUPTS_BAR,
    PUBLISHED,
    SELECTIVITY_BAR,
    YIELD_BAR_S,
    EventOutcome,
    StageTimes,
    TurnTaking,
    grouped,
    pause_group,
    stage_times,
)
from loadtest.results.intervals import Percentile, Share


def tables(outcomes: Sequence[EventOutcome], total: TurnTaking) -> list[Table]:
    """Return the tables to print: ours beside published figures, figures by kind, voice and pause, latency by stage.

    `total` has the figures of all outcomes.
    """
    kinds = grouped(outcomes, lambda each: each.kind)
    voices = grouped(outcomes, lambda each: each.voice or "(noise)")
    pauses = {name: found for name, found in grouped(outcomes, pause_group).items() if name}
    return [
        comparison(total),
        turn_table("turns by kind", kinds),
        turn_table("turns by longest pause", pauses),
        turn_table("turns by voice", voices),
        sound_table("sounds by kind", kinds),
        sound_table("sounds by voice", voices),
        stage_table("turns without an inserted pause", stage_times(outcomes, pausing=False)),
        stage_table("turns with inserted pauses", stage_times(outcomes, pausing=True)),
    ]


def comparison(total: TurnTaking) -> Table:
    """Return the table of this system's figures (`total`), the bars, and published figures of other systems."""
    table = Table("system", "interrupts", "yield p50", "yield p95", "selectivity", "response p50", "p95")
    table.add_row(
        "this system",
        share_text(total.interrupts),
        seconds_text(total.yield_p50_s),
        seconds_text(total.yield_p95_s),
        share_text(total.selectivity),
        seconds_text(total.latency_p50_s),
        seconds_text(total.latency_p95_s),
    )
    table.add_row("bar", f"<= {INTERRUPTS_BAR:.0%}", "", f"<= {YIELD_BAR_S:g} s", f">= {SELECTIVITY_BAR:.0%}", "", "")
    for panel in PUBLISHED:
        ignores = "" if panel.ignores_backchannels is None else f"{panel.ignores_backchannels:.0%} (backchannels)"
        interrupts = "" if panel.interrupts is None else f"{panel.interrupts:.0%}"
        yields = "" if panel.yield_s is None else f"{panel.yield_s:g} s"
        table.add_row(f"{panel.name} (published)", interrupts, yields, "", ignores, "", "")
    return table


def turn_table(title: str, groups: dict[str, TurnTaking]) -> Table:
    """Return a table about the caller's turns, with a line per group: interruptions, answers and response latency."""
    table = Table(title, "interrupted, pauses <= 1 s", "interrupted, all", "answered", "response p50", "p95")
    for name, found in groups.items():
        if found.answered.total or found.interrupts_all.total:
            shares = (found.interrupts, found.interrupts_all, found.answered)
            times = (found.latency_p50_s, found.latency_p95_s)
            table.add_row(name, *map(share_text, shares), *map(seconds_text, times))
    return table


def sound_table(title: str, groups: dict[str, TurnTaking]) -> Table:
    """Return a table about sounds over a reply or while nobody speaks to the agent, with a line per group.

    The columns are the share of replies that stopped, how fast they stopped, the share of replies that went on, and the
    share of sounds that were answered.
    """
    table = Table(title, "yields", "yield p50", "yield p95", "reply goes on", "answered while idle")
    for name, found in groups.items():
        if found.yields.total or found.selectivity.total or found.background_answered.total:
            table.add_row(
                name,
                share_text(found.yields),
                seconds_text(found.yield_p50_s),
                seconds_text(found.yield_p95_s),
                share_text(found.selectivity),
                share_text(found.background_answered),
            )
    return table


def stage_table(title: str, times: StageTimes) -> Table:
    """Return a table of the median and 95th percentile of each stage of the answered turns, in milliseconds."""
    table = Table(f"{title} ({times.turns})", "p50 ms", "p95 ms")
    for name, (p50, p95) in times.stages_ms.items():
        table.add_row(name, f"{p50:.0f}", f"{p95:.0f}")
    return table


def share_text(share: Share) -> str:
    """Return a share as text: percentage, its 95% interval, and the number of counted events; "" without events."""
    if not share.total:
        return ""
    return f"{share.share:.0%} [{share.low:.0%}, {share.high:.0%}] n={share.total}"


def seconds_text(value: Percentile) -> str:
    """Return a percentile in seconds as text, with its 95% interval; "" if there were no values."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]" if value.count else ""
