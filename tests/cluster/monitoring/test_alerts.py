"""Tests of the alert rules: they are valid for Prometheus, and each alert fires only above its threshold."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.monitoring.alerts import (
    NETWORK,
    OWN,
    TURN,
    Timing,
    alert_name,
    as_yaml,
    configuration,
    rules,
)
from rejoinder.cli.main import app
from rejoinder.core.capacity.budgets import ALERTS, HISTOGRAM_BUCKETS_S, Alert, Metric
from rejoinder.core.errors import ConfigError

ALERTMANAGER = Path(__file__).parents[3] / "examples" / "monitoring" / "alertmanager.yml"
promtool = pytest.mark.prometheus
STAGES = {Metric.STT: "stt", Metric.LLM_TTFT: "llm_first_token", Metric.TTS_TTFB: "tts_first_audio"}
ALONE = {*STAGES, Metric.NETWORK_RTT}
# Number of turns in a hundred that may be slow without the percentile exceeding the threshold.
TOLERATED = {"p50": 50, "p95": 5, "p99": 1}
SCRAPES = 60


def _run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _histogram(name: str, labels: str, values_s: dict[float, int]) -> Iterator[dict[str, str]]:
    """Yield promtool's input series of the latency histogram `name`, one series per bucket.

    `labels` are its labels as `label="value",`, or empty. Every scrape adds `values_s`: the number of turns for each
    duration in seconds.
    """
    for bound in (*HISTOGRAM_BUCKETS_S, float("inf")):
        count = sum(turns for seconds, turns in values_s.items() if seconds <= bound)
        le = "+Inf" if bound == float("inf") else f"{bound}"
        yield {"series": f'{name}_bucket{{{labels}le="{le}"}}', "values": f"0+{count}x{SCRAPES}"}


def _expected(alert: Alert, values_s: dict[float, int]) -> list[str]:
    """Return the names of the alerts that fire, among those on the metrics that are measured together with `alert`.

    `values_s` is the number of turns for each duration in seconds. An alert fires if more turns than TOLERATED are
    above its limit.
    """
    same = [alert] if alert.metric in ALONE else [other for other in ALERTS if other.metric not in ALONE]
    above = {
        other: sum(turns for seconds, turns in values_s.items() if seconds > other.alert_ms / 1000) for other in same
    }
    return [alert_name(other.metric) for other in same if above[other] > TOLERATED[other.statistic]]


def _case(alert: Alert, values_s: dict[float, int]) -> dict[str, Any]:
    """Return a promtool test of the metric of `alert`. `values_s` is the number of turns for each duration in seconds.

    The test passes if exactly the alerts of `_expected` fire after ten minutes.
    """
    stage = STAGES.get(alert.metric)
    network = alert.metric is Metric.NETWORK_RTT
    labels = f'stage="{stage}",' if stage else 'region="fra",' if network else ""
    firing = _expected(alert, values_s)
    return {
        "interval": "15s",
        "input_series": list(_histogram(OWN if stage else NETWORK if network else TURN, labels, values_s)),
        "promql_expr_test": [
            {
                "expr": 'sum by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "10m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
            }
        ],
    }


@promtool
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.metric.value)
def test_an_alert_fires_above_its_threshold_and_not_at_it(alert: Alert, tmp_path: Path) -> None:
    """An alert fires if one turn in a hundred more than tolerated is just above its limit.

    It does not fire if all turns are at the limit, or if one turn less than tolerated is above it.
    """
    limit, tolerated = alert.alert_ms / 1000, TOLERATED[alert.statistic]
    above, fast = limit + 0.001, 0.01
    exceeding = {fast: 100 - tolerated - 1, above: tolerated + 1}
    at_the_limit = {limit: 100}
    within = {fast: 100 - tolerated + 1, above: tolerated - 1}
    assert [alert_name(alert.metric) in _expected(alert, case) for case in (exceeding, at_the_limit, within)] == [
        True,
        False,
        False,
    ]
    cases = [_case(alert, values_s) for values_s in (exceeding, at_the_limit, within)]
    (tmp_path / "rules.yml").write_text(as_yaml(rules()), encoding="utf-8")
    unit = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases}
    (tmp_path / "unit.yml").write_text(yaml.safe_dump(unit), encoding="utf-8")
    _run("promtool", "test", "rules", "unit.yml", folder=tmp_path)


@promtool
def test_an_alert_waits_and_no_turns_are_no_alert(tmp_path: Path) -> None:
    """An alert fires only after its threshold was exceeded for the time `for`. Without turns no alert fires."""
    slow = list(_histogram(TURN, "", {5.0: 10}))
    quiet = list(_histogram(TURN, "", {}))
    expression = 'count(ALERTS{alertstate="%s"}) or vector(0)'

    def at(series: list[dict[str, str]], time: str, state: str, count: int) -> dict[str, Any]:
        expected = {"expr": expression % state, "eval_time": time, "exp_samples": [{"labels": "{}", "value": count}]}
        return {"interval": "15s", "input_series": series, "promql_expr_test": [expected]}

    cases = [
        at(slow, "1m", "firing", 0),
        at(slow, "1m", "pending", 3),
        at(slow, "5m", "firing", 3),
        at(quiet, "10m", "firing", 0),
        at(quiet, "10m", "pending", 0),
    ]
    (tmp_path / "rules.yml").write_text(as_yaml(rules()), encoding="utf-8")
    unit = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases}
    (tmp_path / "unit.yml").write_text(yaml.safe_dump(unit), encoding="utf-8")
    _run("promtool", "test", "rules", "unit.yml", folder=tmp_path)


@promtool
def test_a_distant_region_does_not_hide_behind_a_near_one(tmp_path: Path) -> None:
    """The network's alert fires for the region whose round trips are long, although most callers are elsewhere."""
    near, far = _histogram(NETWORK, 'region="fra",', {0.02: 1000}), _histogram(NETWORK, 'region="syd",', {0.3: 10})
    expected = [{"labels": '{region="syd"}', "value": 1}]
    case = {
        "interval": "15s",
        "input_series": [*near, *far],
        "promql_expr_test": [
            {
                "expr": 'sum by (region) (ALERTS{alertname="RejoinderNetworkRtt",alertstate="firing"})',
                "eval_time": "10m",
                "exp_samples": expected,
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(as_yaml(rules()), encoding="utf-8")
    unit = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [case]}
    (tmp_path / "unit.yml").write_text(yaml.safe_dump(unit), encoding="utf-8")
    _run("promtool", "test", "rules", "unit.yml", folder=tmp_path)


@promtool
def test_the_written_files_are_valid(tmp_path: Path) -> None:
    """promtool accepts the rules and the configuration that `alerts` writes with the user's --window and --for."""
    arguments = ["alerts", str(tmp_path), "--url", "https://voice.example/", "--window", "10m", "--for", "1m"]
    arguments += ["--alertmanager", "alerts.example:9093"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "19 rules found" in _run("promtool", "check", "rules", "rules.yml", folder=tmp_path)
    _run("promtool", "check", "config", "prometheus.yml", folder=tmp_path)
    document = yaml.safe_load((tmp_path / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = document["scrape_configs"]
    (manager,) = document["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alerts.example:9093"]}]
    assert job["http_sd_configs"][0]["url"] == "https://voice.example/metrics/targets"
    assert "[10m]" in (tmp_path / "rules.yml").read_text(encoding="utf-8")


def test_prometheus_gets_a_key_and_the_certificate_authority(tmp_path: Path) -> None:
    """With --key-file and --ca, Prometheus sends the key in the file for the list of targets, and trusts the CA."""
    arguments = ["alerts", str(tmp_path), "--url", "https://voice.example", "--key-file", "/run/key", "--ca", "/ca.pem"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (job,) = yaml.safe_load((tmp_path / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    (source,) = job["http_sd_configs"]
    assert source["authorization"] == {"credentials_file": "/run/key"}
    assert source["tls_config"] == {"ca_file": "/ca.pem"}


def test_every_row_of_the_guide_has_a_rule() -> None:
    """All seven rows of the latency guide's section 7.1 have an alert.

    Each alert has a threshold, a hold time, a severity and a runbook.
    """
    found = [rule for rule in rules()["groups"][0]["rules"] if "alert" in rule]
    assert {rule["alert"] for rule in found} == {alert_name(alert.metric) for alert in ALERTS}
    assert len(found) == 7
    for rule, alert in zip(found, ALERTS, strict=True):
        assert rule["expr"].endswith(f"> {alert.alert_ms / 1000:g}")
        assert rule["expr"].split(" ")[0].split("{")[0].endswith(f":{alert.statistic}")
        assert (rule["for"], rule["labels"]["section"]) == (Timing().hold, "7.1")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["runbook"].endswith(".")


def test_the_rules_are_printed_without_a_folder() -> None:
    """Without a folder, `alerts` prints the rules, and says what wrote them."""
    result = CliRunner().invoke(app, ["alerts"])
    assert yaml.safe_load(result.output) == rules()
    assert result.output.startswith("# Written by")


def test_the_example_for_alertmanager_fits_the_rules() -> None:
    """Each severity of the rules has a receiver, and the alerts that the example names exist."""
    document = yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))
    found = [rule for rule in rules()["groups"][0]["rules"] if "alert" in rule]
    routed = {matcher for route in document["route"]["routes"] for matcher in route["matchers"]}
    severities = {rule["labels"]["severity"] for rule in found}
    assert routed == {'severity="critical"'}
    assert severities == {"critical", "warning"}
    receivers = {receiver["name"] for receiver in document["receivers"]}
    assert receivers == {document["route"]["receiver"], *(route["receiver"] for route in document["route"]["routes"])}
    matchers = str(document["inhibit_rules"])
    assert set(re.findall(r"Rejoinder\w+", matchers)) <= {rule["alert"] for rule in found}


@pytest.mark.prometheus
def test_amtool_accepts_the_example_for_alertmanager() -> None:
    """Alertmanager's own check finds no error in the example, and a critical alert reaches whoever is on call."""
    _run("amtool", "check-config", str(ALERTMANAGER), folder=ALERTMANAGER.parent)
    file = f"--config.file={ALERTMANAGER}"
    for severity, receiver in (("critical", "on-call"), ("warning", "tickets")):
        found = _run("amtool", "config", "routes", "test", file, f"severity={severity}", folder=ALERTMANAGER.parent)
        assert found.strip() == receiver


@pytest.mark.parametrize("url", ["voice.example", "ws://voice.example", "http://"])
def test_an_address_that_is_not_http_is_refused(url: str) -> None:
    """An address that is not http(s) raises ConfigError, because Prometheus cannot use it."""
    with pytest.raises(ConfigError, match="not an HTTP address"):
        configuration(url, "rules.yml")
