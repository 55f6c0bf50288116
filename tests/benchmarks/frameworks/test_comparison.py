"""Tests of the frameworks' comparison: ratios between rows, verdicts, and the files that save rows and runs.

A row is the result of one framework in one configuration. Its knee is the largest number of sessions that passes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.frameworks.comparison import (
    FrameworkRow,
    compare,
    in_order,
    load_rows,
    marginal_mb,
    ratios,
    read_probes,
    save_rows,
    summarize,
    write_probes,
)
from benchmarks.frameworks.contestants import CONTESTANTS, named
from benchmarks.frameworks.timing import ProbeOutcome
from benchmarks.frameworks.trial import last_edge
from rejoinder.core.errors import BackendError, ConfigError
from tests.benchmarks.frameworks.test_knee import probe


def row(name: str, sessions: int | None, bar: int = 0) -> FrameworkRow:
    return FrameworkRow(
        name,
        title=name,
        sessions=sessions,
        bar=bar,
        p50_ms=1.0,
        p95_ms=2.0,
        cpu=0.5,
        memory_mb=1.5,
        took_s=10.0,
        probes=(),
    )


def test_ours_is_compared_with_each_rivals_best_form() -> None:
    """The row of LiveKit with the largest knee is compared with Rejoinder's row without a turn detector.

    The row of Pipecat with the largest knee is compared with Rejoinder's row with Smart Turn.
    """
    rows = [row("ours-headless", 160), row("ours-smart-turn", 90), row("ours-all-in", 100)]
    rows += [row("livekit", 36), row("livekit-processes", 12), row("pipecat", 10), row("pipecat-processes", 15)]
    found = {ratio.rival: ratio for ratio in ratios(rows)}
    assert found["livekit"].ratio == pytest.approx(160 / 36)
    assert found["livekit"].verdict == "PASS"
    assert found["pipecat-processes"].ratio == pytest.approx(6.0)
    assert found["pipecat-processes"].verdict == "PASS"


def test_no_ratio_without_both_sides() -> None:
    """If Rejoinder's row or a competing framework's row is missing, or has no knee, their ratio is not computed."""
    assert ratios([row("ours-headless", 160)]) == []
    assert ratios([row("livekit", 36)]) == []
    assert ratios([row("ours-headless", None), row("livekit", 36)]) == []


def test_the_verdict_compares_the_knee_with_the_requirement() -> None:
    """A row passes if its knee is at least the required number of sessions, and fails otherwise.

    A row without a requirement has no verdict, and a row without a knee is INVALID.
    """
    verdicts = [row("a", 150, 150).verdict, row("a", 149, 150).verdict, row("a", 9).verdict, row("a", None, 9).verdict]
    assert verdicts == ["PASS", "FAIL", "", "INVALID"]


def test_finished_rows_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    """Saved rows load as equal rows, and `in_order` puts Rejoinder's rows before those of other frameworks."""
    file = tmp_path / "rows.json"
    probes = [probe(8, ProbeOutcome.PASS), probe(16, ProbeOutcome.FAIL)]
    livekit = named(("livekit",))[0]
    rows = {"livekit": summarize(livekit, 8, probes, 12.0), "ours-headless": row("ours-headless", 160, 150)}
    save_rows(file, in_order(rows))
    loaded = load_rows(file)
    assert loaded == rows
    assert [r.name for r in in_order(loaded)] == ["ours-headless", "livekit"]


def test_runs_of_a_search_are_saved(tmp_path: Path) -> None:
    """The saved runs of a search load as equal runs. A missing file gives no runs."""
    probes = [probe(8, ProbeOutcome.PASS), probe(16, ProbeOutcome.INVALID)]
    write_probes(tmp_path / "d" / "x.json", probes)
    assert read_probes(tmp_path / "d" / "x.json") == probes
    assert read_probes(tmp_path / "none.json") == []


async def test_compare_skips_finished_rows(tmp_path: Path) -> None:
    """A finished row is reported once and not measured again."""
    lines: list[str] = []
    finished = {"livekit": row("livekit", 36)}
    assert await compare(named(("livekit",)), finished, tmp_path / "rows.json", lines.append) == [finished["livekit"]]
    assert len(lines) == 1


def test_an_unknown_name_is_refused() -> None:
    """An unknown framework name raises ConfigError with the valid names. Without a name, all are selected."""
    assert [c.name for c in named(())] == [c.name for c in CONTESTANTS]
    with pytest.raises(ConfigError, match="pipecat-processes"):
        named(("livecat",))


def test_marginal_memory_is_between_the_smallest_and_the_largest_run() -> None:
    """Memory per session is 0 MB if a run of 110 sessions uses as much memory as one of 10.

    With fewer than two runs it is None.
    """
    small, large = probe(10, ProbeOutcome.PASS), probe(110, ProbeOutcome.PASS)
    assert marginal_mb([small, large]) == 0.0
    assert marginal_mb([small]) is None
    assert marginal_mb([]) is None


def test_a_stream_must_have_one_turn_per_cycle() -> None:
    """`last_edge` returns the end of turn in the last of three cycles of a stream, in ms from the start of the cycle.

    If a framework finds more or fewer turns than cycles, BackendError is raised.
    """
    edge = last_edge("x", [(1900.0, 2000.0), (9910.0, 10010.0), (17910.0, 18010.0)])
    assert (edge.work_ms, edge.commit_ms) == (1910.0, 2010.0)
    with pytest.raises(BackendError, match="2 turns in 3 cycles"):
        last_edge("x", [(1900.0, 2000.0), (9910.0, 10010.0)])
    with pytest.raises(BackendError, match="4 turns"):
        last_edge("x", [(1900.0, 2000.0), (2500.0, 2600.0), (9910.0, 10010.0), (17910.0, 18010.0)])
