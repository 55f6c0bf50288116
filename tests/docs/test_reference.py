"""Tests that docs/reference is complete: generated pages are up to date, others name every key, event and command."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.results.result import Counts, FitnessCheck, Latency, Region, RunResult, TimelineSlice, Verdict
from loadtest.results.turn_record import TurnRecord
from loadtest.scenario.scenario import CallerBehavior, Scenario
from rejoinder.cli.main import app

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
WIRE = ROOT / "rejoinder" / "core" / "wire"
# Fields of Scenario that are options of `rejoinder load run` and not keys of its option --set.
NO_SETTING = {"url", "sessions", "for_s", "tier", "api_key", "behavior"}


def _named(page: str) -> set[str]:
    """Return every word or dotted name that stands in backticks on a page of docs/reference."""
    return set(re.findall(r"`([\w.]+)`", (REFERENCE / page).read_text(encoding="utf-8")))


def test_the_generated_pages_are_up_to_date() -> None:
    """The generated pages of docs/reference equal what `python scripts/reference` writes now."""
    command = [sys.executable, "scripts/reference", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun `python scripts/reference`."


def test_every_scenario_key_is_described() -> None:
    """The page scenarios-and-results.md names each key of the option --set."""
    keys = {field.name for field in dataclasses.fields(Scenario)} - NO_SETTING
    keys |= {f"behavior.{field.name}" for field in dataclasses.fields(CallerBehavior)}
    assert keys <= _named("scenarios-and-results.md")


@pytest.mark.parametrize(
    "record",
    [RunResult, Latency, Verdict, FitnessCheck, TimelineSlice, Counts, Region, TurnRecord],
    ids=lambda one: one.__name__,
)
def test_every_result_key_is_described(record: type) -> None:
    """The page scenarios-and-results.md names each key of the JSON that `load run` and `talk` write."""
    keys = {field.name for field in dataclasses.fields(record)}
    assert keys <= _named("scenarios-and-results.md")


def test_every_client_event_is_described() -> None:
    """The page wire-events.md names each client event that the server accepts."""
    source = (WIRE / "client.py").read_text(encoding="utf-8")
    events = set(re.findall(r'case "([\w.]+)"', source))
    assert len(events) > 8
    assert events <= _named("wire-events.md")


def test_every_server_event_is_described() -> None:
    """The page wire-events.md names each event that a session can send, with its complete type."""
    texts = {
        node.value
        for node in ast.walk(ast.parse((WIRE / "server.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    events = {text for text in texts if re.fullmatch(r"(?:\w+\.)+\w+", text) and text.split(".")[0] != "realtime"}
    assert len(events) > 12
    assert events <= _named("wire-events.md")


def test_every_command_has_its_exit_codes() -> None:
    """The page exit-codes.md has every command on the page cli.md, except `rejoinder models list`."""
    page = (REFERENCE / "exit-codes.md").read_text(encoding="utf-8")
    commands = re.findall(r"^#+ `(rejoinder [\w -]+)`$", (REFERENCE / "cli.md").read_text("utf-8"), re.MULTILINE)
    groups = {"rejoinder bench", "rejoinder launch", "rejoinder load", "rejoinder models"}
    assert len(commands) > 15
    missing = [name for name in commands if name not in groups and f"`{name}" not in page]
    assert missing == ["rejoinder models list"]


def test_the_help_names_the_same_commands() -> None:
    """Each command on the generated page cli.md is printed by `rejoinder --help`."""
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, ["--help"]).output
    for name in re.findall(r"^## `rejoinder (\w+)`$", page, re.MULTILINE):
        assert name in printed
