"""Tests of `rejoinder doctor`: its table, its exit status, and the environment variables for `ray start`."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
import typer

from cluster.doctor.finding import Finding, Grade
from cluster.environment import REQUIRED, advised
from rejoinder.cli.doctor import doctor, table
from tests.cli.printing import printed_rows


def test_a_finding_is_printed_literally() -> None:
    """A row has the check, the grade, what was found and the fix. Square brackets are not read as markup."""
    finding = Finding("package piper", Grade.FAIL, "not installed", "Run `pip install -e '.[piper]'`.")
    assert printed_rows(table([finding])) == [["package piper", "fail", finding.found, finding.fix]]


def test_a_failed_check_is_exit_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """doctor reports that the configured port is in use, and exits with status 1."""
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "ray_config.yaml"
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        config.write_text(f"http_options: {{host: 127.0.0.1, port: {port}}}", encoding="utf-8")
        with pytest.raises(typer.Exit) as caught:
            doctor(config)
    assert caught.value.exit_code == 1
    assert f"127.0.0.1:{port} is in use" in capsys.readouterr().out


def test_the_environment_can_be_sourced(capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor --environment` prints a command `export NAME=value` for each required and advised variable.

    A shell reads each line as two words, also if the value contains a space.
    """
    doctor(environment=True)
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert commands == [["export", f"{name}={value}"] for name, value in (REQUIRED | advised()).items()]
    assert any(" " in value for value in advised().values())
