"""Tests of the output, the files and the exit status of `rejoinder load run` and `rejoinder load search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loadtest.generator import run as running
from loadtest.generator import search_runner as searching
from loadtest.generator.search import CompletedStep, SearchEnd, SearchStep, StepKind
from loadtest.generator.search_runner import SearchResult
from loadtest.results.result import RunOutcome, RunResult
from loadtest.scenario.scenario import Scenario
from rejoinder.cli.main import app
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.errors import ConfigError
from tests.loadtest.results.sample_results import result

STEPS = (
    CompletedStep(
        SearchStep(10, 1, StepKind.SEARCH), outcome=RunOutcome.PASS, p50_ms=300.0, p95_ms=500.0, recovered=True
    ),
    CompletedStep(
        SearchStep(20, 2, StepKind.SEARCH),
        outcome=RunOutcome.INVALID,
        p50_ms=300.0,
        p95_ms=500.0,
        recovered=None,
        causes=("missed arrivals 3 calls, limit 0",),
    ),
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["load", *arguments], env={"COLUMNS": "200", "REJOINDER_API_KEY": "secret-1"})


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Scenario]:
    """Replace load runs by a result with verdict PASS. Return the list to which each requested scenario is appended."""
    return fake_runs(monkeypatch, result())


def fake_runs(monkeypatch: pytest.MonkeyPatch, found: RunResult) -> list[Scenario]:
    """Replace load runs by this result; return the list to which each requested scenario is appended."""
    requested: list[Scenario] = []

    def hold(scenario: Scenario, watch: Any) -> RunResult:
        requested.append(scenario)
        return found

    monkeypatch.setattr(running, "run", hold)
    return requested


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(RunOutcome.PASS, 0), (RunOutcome.FAIL, 1), (RunOutcome.INVALID, 3), (RunOutcome.UNDECIDED, 4)],
)
def test_a_run_ends_with_the_status_of_its_verdict(
    monkeypatch: pytest.MonkeyPatch, outcome: RunOutcome, status: int
) -> None:
    """The verdict is printed, and the exit status is 0 for PASS, 1 for FAIL, 3 for INVALID and 4 for UNDECIDED."""
    fake_runs(monkeypatch, result(outcome))
    ended = invoke("run")
    assert ended.exit_code == status
    assert f"{outcome.value}  good tier" in ended.output


def test_the_result_is_printed(held: list[Scenario]) -> None:
    """Latencies, verdicts, counts and the load generator's checks of itself are printed.

    An undecided verdict has the number of turns that are still needed.
    """
    text = invoke("run").output
    for expected in ("llm_first_token", "voice_to_voice", "UNDECIDED (7 more turns)", "0/50", "49 answered"):
        assert expected in text
    assert "CPU run-queue wait: 0.1 (<= 0.02 of the time)" in text


def test_options_and_settings_make_the_scenario(held: list[Scenario]) -> None:
    """Options and --set become fields of the scenario. The API key comes from an environment variable."""
    settings = ("--set", "behavior.barge_in=0.2", "--set", "seed=5")
    invoke("run", "--sessions", "7", "--for", "2m", "--tier", "excellent", *settings)
    (scenario,) = held
    assert (scenario.sessions, scenario.for_s, scenario.tier, scenario.seed) == (7, 120, Tier.EXCELLENT, 5)
    assert scenario.behavior.barge_in == 0.2
    assert scenario.api_key == "secret-1"


def test_the_files_contain_the_result(tmp_path: Path, held: list[Scenario]) -> None:
    """--json writes the fields of loadtest/results/result.py, and --html writes the report."""
    written, page = tmp_path / "out.json", tmp_path / "report.html"
    assert invoke("run", "--json", str(written), "--html", str(page)).exit_code == 0
    document = json.loads(written.read_text(encoding="utf-8"))
    assert document["outcome"] == "PASS"
    assert document["counts"]["answered"] == 49
    assert document["verdicts"][0]["outcome"] == "UNDECIDED"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("time", ["ten", "5 minutes", "-3s", ""])
def test_an_invalid_duration_is_refused(held: list[Scenario], time: str) -> None:
    """An invalid --for is refused before the run, and the error names the option and a valid example."""
    refused = invoke("run", "--for", time).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--for"
    assert "10m" in str(refused)
    assert not held


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, held: list[Scenario], option: str) -> None:
    """If a result file cannot be written, the error names its option before the run starts."""
    refused = invoke("run", option, str(tmp_path / "nowhere" / "out")).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == option
    assert not held


@pytest.mark.parametrize(
    ("ending", "holds", "status"),
    [
        (SearchEnd.SYSTEM_LIMITED, 10, 0),
        (SearchEnd.BOUND_REACHED, 10, 0),
        (SearchEnd.GENERATOR_LIMITED, 10, 3),
        (SearchEnd.NOTHING_PASSES, 0, 1),
    ],
)
def test_a_search_prints_its_steps_and_ends_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: SearchEnd, holds: int, *, status: int
) -> None:
    """Each finished step of a search is printed, an invalid one with its causes, and then the result.

    The result is also written as JSON. The exit status follows from how the search ended.
    """

    def find(scenario: Scenario, start: int, most: int, report: Any) -> SearchResult:
        assert (start, most) == (5, 40)
        for step in STEPS:
            report(step)
        return SearchResult(holds, breaks=None, ending=ending, steps=STEPS, baseline_ms=290.0, engines={})

    monkeypatch.setattr(searching, "search", find)
    written = tmp_path / "found.json"
    ended = invoke("search", "--start", "5", "--most", "40", "--json", str(written))
    assert ended.exit_code == status
    for expected in ("10 calls  PASS  p50 300 ms, p95 500 ms, recovered", "missed arrivals 3 calls", ending.value):
        assert expected in ended.output
    document = json.loads(written.read_text(encoding="utf-8"))
    assert (document["holds"], document["ending"]) == (holds, ending.value)
    assert document["steps"][1]["step"]["kind"] == "search"
