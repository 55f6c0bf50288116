"""Tests that `--help` of every command works without extras, and that no text installs an unpublished package."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from rejoinder.cli.main import app

ROOT = Path(__file__).parents[2]
PRODUCT = ("rejoinder", "actors", "deployments", "cluster", "loadtest", "benchmarks")

# The modules of all extras. WITHOUT_EXTRAS sets them to None in sys.modules, so that importing them fails as if they
# were not installed.
EXTRAS = {"aiortc", "hdrh", "matplotlib", "picows", "piper", "pylibsrtp", "scipy", "simpy", "vllm"}
WITHOUT_EXTRAS = f"""
import json, sys
sys.modules.update(dict.fromkeys({sorted(EXTRAS | {"webrtc_noise_gain"})!r}))
from typer.testing import CliRunner
from rejoinder.cli.main import app
found = {{}}
for command in json.load(sys.stdin):
    result = CliRunner().invoke(app, command)
    found[" ".join(command)] = [result.exit_code, str(result.exception or ""), result.output]
print(json.dumps(found))
"""


def commands() -> list[list[str]]:
    """Return the words of every group and command after `rejoinder`, for example ["load", "run"]; [] for the root."""

    def below(command: object, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, [*path, name])

    return list(below(typer.main.get_command(app), []))


def run_without_extras(arguments: list[list[str]]) -> dict[str, tuple[int, str, str]]:
    """Run each command line in a process without the extras.

    Return (exit status, exception, output) by the words of the command line, joined with spaces.
    """
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        input=json.dumps(arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {command: tuple(result) for command, result in json.loads(done.stdout.splitlines()[-1]).items()}


def test_the_walk_finds_nested_commands() -> None:
    """`commands` finds the root, groups and the commands in groups, so that the tests of all commands miss none."""
    assert {"", "serve", "load", "load run", "bench drafts"} <= {" ".join(path) for path in commands()}


def test_every_help_works_without_the_extras() -> None:
    """Without the extras, `--help` works for every group and command."""
    found = run_without_extras([[*path, "--help"] for path in commands()])
    assert {command: error for command, (status, error, _) in found.items() if status} == {}
    assert all("Usage:" in output for _, _, output in found.values())


def test_a_command_that_needs_an_extra_names_the_remedy() -> None:
    """Without the extra `load`, a load test is refused, and the error names what is missing and how to install it."""
    ((status, error, _),) = run_without_extras([["load", "run"]]).values()
    assert status
    assert "packages are missing: hdrh, matplotlib, picows, pylibsrtp, scipy, simpy." in error
    assert "pip install -e '.[load]'" in error


@pytest.mark.parametrize("path", [path for path in commands() if path], ids=" ".join)
def test_every_command_says_what_it_does(path: list[str]) -> None:
    """Each command has a summary line, and each of its options and arguments has a help text."""
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]  # a group
    assert command.help
    assert [option.name for option in command.params if not getattr(option, "help", None)] == []


def test_no_text_tells_users_to_install_an_unpublished_package() -> None:
    """No text in the product contains `pip install rejoinder`, because it is not on a package index.

    Extras are installed from the checkout with `pip install -e '.[EXTRA]'`.
    """
    unpublished = re.compile(r"pip install\s+(-\S+\s+)*[\"']?rejoinder")
    texts = [
        (str(path.relative_to(ROOT)), node.value)
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(path, text) for path, text in texts if unpublished.search(text)] == []
