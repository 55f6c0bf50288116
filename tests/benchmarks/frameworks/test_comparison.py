"""The table: which rows are compared with which, what is kept between runs, and the ratios."""

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
    read_diary,
    save_rows,
    summarize,
    write_diary,
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


def test_ours_is_held_against_each_rivals_best_form() -> None:
    """Headless against headless: silence alone against LiveKit's, Smart Turn against Pipecat's."""
    rows = [row("ours-headless", 160), row("ours-smart-turn", 90), row("ours-all-in", 100)]
    rows += [row("livekit", 36), row("livekit-processes", 12), row("pipecat", 10), row("pipecat-processes", 15)]
    found = {ratio.rival: ratio for ratio in ratios(rows)}
    assert found["livekit"].ratio == pytest.approx(160 / 36)
    assert found["livekit"].verdict == "PASS"
    assert found["pipecat-processes"].ratio == pytest.approx(6.0)
    assert found["pipecat-processes"].verdict == "PASS"


def test_no_ratio_without_both_sides() -> None:
    """A row that was not measured, or not validly, is compared with nothing."""
    assert ratios([row("ours-headless", 160)]) == []
    assert ratios([row("livekit", 36)]) == []
    assert ratios([row("ours-headless", None), row("livekit", 36)]) == []


def test_a_bar_is_met_or_not() -> None:
    """A rival has no bar, and what the harness could not tell is no verdict on anybody."""
    verdicts = [row("a", 150, 150).verdict, row("a", 149, 150).verdict, row("a", 9).verdict, row("a", None, 9).verdict]
    assert verdicts == ["PASS", "FAIL", "", "INVALID"]


def test_finished_rows_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    """What a file holds comes back as it was, in the table's order."""
    file = tmp_path / "rows.json"
    probes = [probe(8, ProbeOutcome.PASS), probe(16, ProbeOutcome.FAIL)]
    livekit = named(("livekit",))[0]
    rows = {"livekit": summarize(livekit, 8, probes, 12.0), "ours-headless": row("ours-headless", 160, 150)}
    save_rows(file, in_order(rows))
    loaded = load_rows(file)
    assert loaded == rows
    assert [r.name for r in in_order(loaded)] == ["ours-headless", "livekit"]


def test_a_diary_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """The runs of a broken-off search, outcome and all; no diary is no runs."""
    probes = [probe(8, ProbeOutcome.PASS), probe(16, ProbeOutcome.INVALID)]
    write_diary(tmp_path / "d" / "x.json", probes)
    assert read_diary(tmp_path / "d" / "x.json") == probes
    assert read_diary(tmp_path / "none.json") == []


async def test_compare_skips_what_is_known(tmp_path: Path) -> None:
    """With every wanted row finished, nothing is started."""
    said: list[str] = []
    known = {"livekit": row("livekit", 36)}
    assert await compare(named(("livekit",)), known, tmp_path / "rows.json", said.append) == [known["livekit"]]
    assert len(said) == 1


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    """`--only` names rows."""
    assert [c.name for c in named(())] == [c.name for c in CONTESTANTS]
    with pytest.raises(ConfigError, match="pipecat-processes"):
        named(("livecat",))


def test_marginal_memory_is_between_the_smallest_and_the_largest_run() -> None:
    """What one more session takes, whatever the process itself needs."""
    small, large = probe(10, ProbeOutcome.PASS), probe(110, ProbeOutcome.PASS)
    assert marginal_mb([small, large]) == 0.0
    assert marginal_mb([small]) is None
    assert marginal_mb([]) is None


def test_a_stream_must_be_one_turn_a_cycle() -> None:
    """The last cycle's end counts; a phrase that the contender's rules split, or do not hear, is refused."""
    edge = last_edge("x", [(1900.0, 2000.0), (9910.0, 10010.0), (17910.0, 18010.0)])
    assert (edge.work_ms, edge.commit_ms) == (1910.0, 2010.0)
    with pytest.raises(BackendError, match="2 turns in 3 cycles"):
        last_edge("x", [(1900.0, 2000.0), (9910.0, 10010.0)])
    with pytest.raises(BackendError, match="4 turns"):
        last_edge("x", [(1900.0, 2000.0), (2500.0, 2600.0), (9910.0, 10010.0), (17910.0, 18010.0)])
