"""Tests of `rejoinder launch render`: what it writes, prints and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.description.launch_description import PROFILES
from rejoinder.cli.main import app
from rejoinder.core.errors import ConfigError
from tests.cluster.launching.rendering import PODS, machines

RUNNER = CliRunner()


def render(folder: Path, target: str) -> list[str]:
    """Return the arguments that render the description `voice.yaml` of a folder into its folder `out`."""
    return ["launch", "render", str(folder / "voice.yaml"), "--target", target, "--out", str(folder / "out")]


@pytest.mark.parametrize("target", ["kuberay", "ray-up", "bare"])
def test_the_files_of_a_target_are_written(tmp_path: Path, target: str) -> None:
    """Each target's files are written into the folder, and printed with the next step."""
    description = PODS["gpu-cluster"] if target == "kuberay" else machines("gpu-cluster")
    (tmp_path / "voice.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    out = tmp_path / "some" / "folder"
    done = RUNNER.invoke(app, ["launch", "render", str(tmp_path / "voice.yaml"), "--target", target, "--out", str(out)])
    assert done.exit_code == 0, done.output
    files = {str(path) for path in out.rglob("*") if path.is_file()}
    assert files == {line for line in done.stdout.splitlines() if line.startswith(str(out))}
    assert "Next: " in done.stdout


def test_the_example_is_rendered(tmp_path: Path) -> None:
    """The example of the package is a description of machines that both targets for machines accept."""
    example = str(PROFILES.parent / "description" / "example.yaml")
    for target in ("ray-up", "bare"):
        done = RUNNER.invoke(app, ["launch", "render", example, "--target", target, "--out", str(tmp_path / target)])
        assert done.exit_code == 0, done.output


def test_a_refused_description_writes_nothing(tmp_path: Path) -> None:
    """A mistake is one error with the field and the fix, and no file is written."""
    (tmp_path / "voice.yaml").write_text(yaml.safe_dump(PODS["cpu-cluster"]), encoding="utf-8")
    done = RUNNER.invoke(app, render(tmp_path, "bare"))
    assert isinstance(done.exception, ConfigError)
    assert "groups.0.addresses: group head has no machines" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is an error with its path."""
    (tmp_path / "voice.yaml").write_text(yaml.safe_dump(PODS["cpu-cluster"]), encoding="utf-8")
    (tmp_path / "out").write_text("", encoding="utf-8")
    done = RUNNER.invoke(app, render(tmp_path, "kuberay"))
    assert isinstance(done.exception, ConfigError)
    assert "Name another folder" in str(done.exception)


def test_notes_are_printed_apart(tmp_path: Path) -> None:
    """Notes about what may be unintended go to standard error, so that the list of files stays clean."""
    (tmp_path / "voice.yaml").write_text(yaml.safe_dump(PODS["cpu-cluster"]), encoding="utf-8")
    done = RUNNER.invoke(app, render(tmp_path, "kuberay"))
    assert "Note: token is false" in done.stderr
    assert "Note" not in done.stdout
