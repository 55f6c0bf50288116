"""Tests of the output and the exit status of `rejoinder models` with a small store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rejoinder.cli import main

SILERO = "silero-vad"


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main.app, ["models", *arguments])
    return result.exit_code, result.output


def test_a_model_is_listed_pulled_and_verified(tmp_path: Path) -> None:
    """`models` lists a model as absent, pulls it from an installed package, lists it as ready, and verifies it."""
    directory = ("--directory", str(tmp_path))
    assert _row(invoke("list", *directory)[1])[-1] == "absent"
    assert invoke("pull", SILERO, *directory) == (0, f"{SILERO}: fetched from installed package {SILERO}\n")
    assert invoke("pull", SILERO, *directory) == (0, f"{SILERO}: already complete\n")
    assert _row(invoke("list", *directory)[1])[-1] == "ready"
    assert invoke("verify", SILERO, *directory) == (0, f"{SILERO}: verified\n")


def test_verify_exits_2_if_a_file_is_wrong(tmp_path: Path) -> None:
    """`models verify` names a damaged file and exits with status 2."""
    directory = ("--directory", str(tmp_path))
    invoke("pull", SILERO, *directory)
    (tmp_path / SILERO / "silero_vad.onnx").write_bytes(b"damaged")
    status, output = invoke("verify", SILERO, *directory)
    assert status == main.FAILED
    assert f"{SILERO}/silero_vad.onnx: has the wrong size. expected: 2327524 bytes. found: 7 bytes." in output


def test_an_error_is_one_line_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A ModelError is printed as one line with what to do about it, and the exit status is 2."""
    monkeypatch.setattr(sys, "argv", ["rejoinder", "models", "pull", "nothing"])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == main.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "no such model" in lines[0]
    assert "Run `rejoinder models list`" in lines[0]


def _row(listing: str) -> list[str]:
    return next(line for line in listing.splitlines() if SILERO in line).split()
