"""Tests of the history of load runs: their order, and which runs are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from loadtest.judging.history import history, is_result
from rejoinder.cli.main import app
from rejoinder.core.errors import ConfigError
from tests.loadtest.judging.test_comparison import document, latencies


def _run(day: int, values_ms: np.ndarray, outcome: str = "PASS", **scenario: Any) -> dict[str, Any]:
    at = {"started_at": f"2026-11-{day:02d}T10:00:00+00:00", "outcome": outcome}
    return document(values_ms, scenario={"tier": "good", "sessions": 10} | scenario, **at)


def test_runs_are_compared_with_the_run_before() -> None:
    """The order is that of time. A slower run is worse than the one before, and the next is better again."""
    runs = history(
        {"c": _run(3, latencies(3)), "a": _run(1, latencies(1)), "b": _run(2, latencies(2, 700), outcome="FAIL")}
    )
    assert [run.name for run in runs] == ["a", "b", "c"]
    assert [run.before for run in runs] == ["", "a", "b"]
    assert "voice_to_voice p50" in runs[1].worse
    assert "voice_to_voice p50" in runs[2].better
    assert runs[1].outcome == "FAIL"
    assert (runs[0].turns, runs[0].worse, runs[0].better) == (400, (), ())


def test_only_equal_loads_are_compared() -> None:
    """Runs with other numbers of calls, another background, or an INVALID generator are not compared."""
    runs = history(
        {
            "a": _run(1, latencies(1)),
            "noisy": _run(2, latencies(2, 700), background="noise"),
            "large": _run(3, latencies(3, 700), sessions=20),
            "invalid": _run(4, latencies(4, 700), outcome="INVALID"),
            "b": _run(5, latencies(5)),
        }
    )
    assert {run.name: run.before for run in runs} == {"a": "", "noisy": "", "large": "", "invalid": "", "b": "a"}


def test_the_command_lists_the_results_of_a_folder(tmp_path: Path) -> None:
    """Other JSON files are ignored. An empty folder and a broken file are errors that name the folder."""
    empty = CliRunner().invoke(app, ["load", "history", str(tmp_path)])
    assert isinstance(empty.exception, ConfigError)
    (tmp_path / "a.json").write_text(json.dumps(_run(1, latencies(1))), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(_run(2, latencies(2, 700))), encoding="utf-8")
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    found = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["load", "history", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "a.json" in found.output
    assert "worse: voice_to_voice p50" in found.output
    assert "notes.json" not in found.output
    (tmp_path / "c.json").write_text("{", encoding="utf-8")
    broken = CliRunner().invoke(app, ["load", "history", str(tmp_path)])
    assert isinstance(broken.exception, ConfigError)


def test_a_result_is_recognized() -> None:
    """A list, a number and a search's document are not results of runs."""
    assert is_result(_run(1, latencies(1)))
    others: list[object] = [[], 1, {"holds": 3}]
    assert not any(is_result(other) for other in others)
