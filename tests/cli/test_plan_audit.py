"""Tests of whole plans for the faults that an audit found: one pool of hosts, and nodes that may die.

The other faults have their tests elsewhere: wrong engines, a GPU for an engine that has none in the calibration, and
files that name no engine (`test_plan.py`), missing frames (`test_footprint.py`), a stage that was not exercised
(`test_side_stages.py`), and the loopback interface and address (`test_failure_domains.py`, `test_plan_launch.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rejoinder.cli.main import app
from rejoinder.core.capacity.erlang import blocking, blocking_in_reach
from tests.cli.test_plan import calibration as calibration  # a fixture

RUNNER = CliRunner()
SPARE = 2


@pytest.fixture
def made(calibration: Path, tmp_path: Path) -> dict[str, Any]:
    """Return a plan of many small hosts on small nodes, two of which may die."""
    options = ["--sessions", "60", "--per-host", "5", "--spare", str(SPARE), "--cpu-node", "4:16"]
    files = ["--calibration", str(calibration), "--json", str(tmp_path / "plan.json")]
    result = RUNNER.invoke(app, ["plan", *options, *files])
    assert result.exit_code == 0, result.output
    return dict(json.loads((tmp_path / "plan.json").read_text())["plan"])


def test_a_plan_survives_its_spare_nodes_and_counts_hosts_apart(made: dict[str, Any]) -> None:
    """While two nodes are missing, every component has the replicas that it needs, and few enough calls are refused.

    The refusals are those of callers who reach eight of the hosts. One pool of the same places would refuse fewer.
    """
    (group,) = made["groups"]
    assert group["spare"] == SPARE < group["nodes"]
    for name, component in made["components"].items():
        lost = SPARE * group["most_per_node"][name]
        assert group["replicas"][name] - lost >= component["sized"]["needed"] >= 1
        assert group["replicas"][name] <= group["nodes"] * group["most_per_node"][name]
    hosts = made["components"]["host"]["sized"]
    left = hosts["needed"]
    assert left > 8
    assert made["refused"][1] == pytest.approx(blocking_in_reach(60, left, 5, 8))
    assert made["refused"][0] < made["refused"][1] <= 0.005
    assert blocking(60, left * 5) < made["refused"][1] / 2
