"""Tests of `rejoinder plan` with a day's calls, prices, a page and a site to launch on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from rejoinder.cli.main import app
from rejoinder.core.errors import ConfigError
from tests.cli.test_plan import calibration as calibration  # a fixture

RUNNER = CliRunner()
PRICES = {
    "currency": "EUR",
    "source": "a list",
    "nodes": {
        "dear": {"per_hour": 9.0, "cores": 16, "memory_gb": 64},
        "cheap": {"per_hour": 0.5, "cores": 8, "memory_gb": 32},
        "tiny": {"per_hour": 0.01, "cores": 0.5, "memory_gb": 32},
        "card": {"per_hour": 0.9, "cores": 16, "memory_gb": 64, "gpus": 1, "gpu": "L4"},
    },
}
SITE = {
    "name": "planned",
    "images": {"cpu": "registry.example.com/cpu:1", "gpu": "registry.example.com/gpu:1"},
    "models": {"claim": "models"},
    "secrets": [{"variable": "REJOINDER_API_KEYS", "kubernetes": {"name": "keys", "key": "api"}}],
    "kubernetes": {"monitoring_key": {"name": "keys", "key": "metrics"}},
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with a day's calls, prices and a site."""
    rows = "".join(f"{hour:02}:00,{400 if hour == 12 else 40}\n" for hour in range(24))
    (tmp_path / "day.csv").write_text(f"time,calls\n{rows}")
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))
    return tmp_path


def run(calibration: Path, *options: str) -> Result:
    return RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options], env={"COLUMNS": "200"})


def test_a_day_with_prices_becomes_a_page_and_a_cluster(calibration: Path, files: Path) -> None:
    """One command plans a day's calls, chooses machines, and writes the page, the configuration and a RayService.

    400 calls an hour of 9 minutes are about 60 conversations at 13:00, and 40 are 6 in the night. The cheapest machine
    on which every replica fits is taken.
    """
    options = ["--day", str(files / "day.csv"), "--call-s", "540", "--prices", str(files / "prices.yaml")]
    written = ["--write", str(files / "out"), "--launch", str(files / "site.yaml"), "--html", str(files / "plan.html")]
    result = run(calibration, *options, "--gpus", "llm=1", *written, "--json", str(files / "plan.json"))
    assert result.exit_code == 0, result.output
    document = json.loads((files / "plan.json").read_text())
    target = document["plan"]["target"]
    assert (target["sessions"], target["low_sessions"]) == (60, 6)
    groups = document["plan"]["groups"]
    assert [group["type"]["name"] for group in groups] == ["cheap", "card"]
    per_hour = groups[0]["nodes"] * 0.5 + groups[1]["nodes"] * 0.9
    assert document["cost"]["per_hour"] == pytest.approx(per_hour)
    for part in (
        "runs no spare replicas",
        "Minimum and maximum",
        "13:00",
        "Cost",
        "EUR an hour",
        "p95 at most 600 ms",
        "0 node(s) may die",
    ):
        assert part in result.output
    assert "runs no spare replicas" in result.output
    assert f"{per_hour:.2f} EUR an hour" in (files / "plan.html").read_text()
    args = yaml.safe_load((files / "out" / "ray_config.yaml").read_text())["applications"][0]["args"]
    scaling = {name: args[name]["autoscaling"] for name in ("host", "stt", "llm", "tts", "turn_detector")}
    assert all(one["min_replicas"] <= one["max_replicas"] for one in scaling.values())
    assert scaling["tts"]["min_replicas"] < scaling["tts"]["max_replicas"]
    launch = yaml.safe_load((files / "out" / "launch.yaml").read_text())
    assert sum(group["count"] for group in launch["groups"]) == sum(group["nodes"] for group in groups)
    again = RUNNER.invoke(
        app,
        ["launch", "render", str(files / "out" / "launch.yaml"), "--target", "kuberay", "--out", str(files / "again")],
    )
    assert again.exit_code == 0, again.output
    service = "ray-service.yaml"
    assert (files / "again" / service).read_text() == (files / "out" / "kuberay" / service).read_text()


@pytest.mark.parametrize(
    ("machine", "says"),
    [("16:64", "no machine type '16:64' without GPUs"), ("tiny", "does not fit into a tiny node")],
)
def test_a_machine_that_cannot_be_used_is_refused(calibration: Path, files: Path, machine: str, says: str) -> None:
    """With prices, machine types are named as there. One without a price or too small is refused, with the option."""
    options = ["--sessions", "20", "--prices", str(files / "prices.yaml"), "--cpu-node", machine]
    refused = run(calibration, *options).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--cpu-node"
    assert says in refused.message
