"""Tests of the Grafana dashboards: queries over metrics that exist, units that fit them, and valid PromQL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.monitoring.alerts import rules
from cluster.monitoring.dashboards import WIDTH, Dashboard, Panel, Query, dashboards, grafana
from deployments.serving.metrics import ADMISSION_HELP, HOST_HELP, REPLICA_HELP
from rejoinder.cli.main import app
from rejoinder.core.capacity.budgets import HISTOGRAM_BUCKETS_S

ALL = dashboards()
FOUND = [(panel, query) for dashboard in ALL for panel in dashboard.panels for query in panel.queries]
QUERIES = [pytest.param(*found, id=f"{found[0].title}-{number}") for number, found in enumerate(FOUND)]
DEFINED = {*HOST_HELP, *REPLICA_HELP, *ADMISSION_HELP}
RECORDED = {rule["record"] for rule in rules()["groups"][0]["rules"] if "record" in rule}
FROM_PROMETHEUS = {"ALERTS", "up", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in a query: its words with an underscore, a colon, or a known name."""
    words = set(re.findall(r"[a-zA-Z_][\w:]*", re.sub(r'"[^"]*"|\{\{.*?\}\}', "", expression)))
    return {word for word in words if word.startswith(("rejoinder", "process_")) or word in FROM_PROMETHEUS}


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_a_query_is_over_metrics_that_exist(panel: Panel, query: Query) -> None:
    """Each query names at least one metric, and each of them is defined, recorded by a rule, or Prometheus's own."""
    found = metrics(query.expression)
    assert found
    series = {re.sub(r"(_seconds|_turns)_(bucket|sum|count)$", r"\1", name) for name in found}
    assert series <= DEFINED | RECORDED | FROM_PROMETHEUS


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_the_unit_fits_the_query(panel: Panel, query: Query) -> None:
    """Durations are in seconds, rates of events in events a second, quotients of equal things in shares.

    A percentile of a number of turns is a number.
    """
    expression = query.expression
    quotient = " / " in expression
    if "rejoinder_hangup_turns" in expression:
        assert panel.unit == "short"
    elif "histogram_quantile" in expression or re.search(r":p\d\d", expression) or "_wait_seconds" in expression:
        assert panel.unit == "s"
    elif quotient:
        assert panel.unit == ("s" if "_sum[" in expression else "percentunit")
    elif "process_cpu" in expression:
        assert panel.unit == "short"
    elif "rate(" in expression:
        assert panel.unit == "ops"
    elif "_bytes" in expression:
        assert panel.unit == "bytes"


def test_shares_within_a_limit_use_a_bound_of_the_buckets() -> None:
    """A share of turns below a limit is exact only if the limit is a bound of the histogram's buckets."""
    expressions = " ".join(query.expression for _, query in FOUND)
    bounds = {float(bound) for bound in re.findall(r'le="([\d.]+)"', expressions)}
    assert bounds
    assert bounds <= set(HISTOGRAM_BUCKETS_S)


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard.name)
def test_panels_do_not_overlap(dashboard: Dashboard) -> None:
    """Each panel has its own place on Grafana's grid, and its own id."""
    panels = grafana(dashboard)["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < WIDTH
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_command_writes_every_dashboard(tmp_path: Path) -> None:
    """`rejoinder dashboards --out` writes one JSON file for each dashboard, whose data source is a variable."""
    done = CliRunner().invoke(app, ["dashboards", "--out", str(tmp_path / "new"), "--window", "2m"])
    assert done.exit_code == 0, done.output
    written = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "new").glob("*.json")}
    assert set(written) == {dashboard.name for dashboard in ALL}
    for document in written.values():
        assert document["templating"]["list"][0]["type"] == "datasource"
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in document["panels"])
        assert "[5m]" not in json.dumps(document)


@pytest.mark.parametrize("command", [["alerts"], ["dashboards", "--out"]])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, command: list[str]) -> None:
    """A folder below a file is refused with one sentence and status 2."""
    (tmp_path / "file").write_text("")
    called = [sys.executable, "-m", "rejoinder.cli", *command, "file/x"]
    done = subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "file/x cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.prometheus
def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    """promtool accepts each query as the expression of a rule."""
    listed = [{"record": f"query_{number}", "expr": query.expression} for number, (_, query) in enumerate(FOUND)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": listed}]}))
    command = ["promtool", "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
