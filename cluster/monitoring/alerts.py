"""The latency guide's alerts (section 7.1) as Prometheus rules, and a Prometheus configuration for the hosts.

Recording rules compute percentiles of all hosts together from histograms. Alerts compare them with the thresholds.
Every threshold is a bucket bound, so the comparison is exact and does not depend on interpolation. A stage's alert uses
the stage's whole duration, not the time that it added to the turn, because the added time omits what overlaps with
other stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from rejoinder.core.capacity.budgets import ALERTS, Alert, Metric
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.waterfall import Stage

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TURN, OWN, SHARE = "rejoinder_turn_seconds", "rejoinder_stage_own_seconds", "rejoinder_stage_seconds"

NOT_MEASURED = {
    Metric.NETWORK_RTT: "hosts are behind a load balancer and measure its round trip, not the caller's; callers measure"
    " their own (`rejoinder load run` reports it by region)"
}
"""Rows of the latency guide's section 7.1 without a rule, and the reason for each. A rule over a series that does not
exist never fires.
"""

_STAGES = {Metric.STT: Stage.STT, Metric.LLM_TTFT: Stage.LLM_FIRST_TOKEN, Metric.TTS_TTFB: Stage.TTS_FIRST_AUDIO}

_RUNBOOKS = {
    Metric.END_TO_END: "Find the stage with the largest share of the turn, and add replicas or a faster engine there.",
    Metric.END_TO_END_P95: "Tail latency: look for one slow replica (request times by replica) before adding any.",
    Metric.END_TO_END_P99: "Tail latency: check hedges sent and won, and whether a replica restarts.",
    Metric.STT: "Add an Stt replica if requests wait in its queue. Otherwise choose a smaller model.",
    Metric.LLM_TTFT: "Check the engine's own queue. Add a replica, or lower conversation.context_turns.",
    Metric.TTS_TTFB: "Add a Tts replica if its slots are taken. Otherwise lower conversation.first_segment_words.",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in Prometheus notation.

    Attributes:
        window: Time over which percentiles are computed.
        hold: Time during which a threshold must be exceeded before an alert fires.
        interval: Time between scrapes and between evaluations.
    """

    window: str = "5m"
    hold: str = "2m"
    interval: str = "15s"


def rules(timing: Timing = Timing()) -> dict[str, Any]:
    """Return the content of a Prometheus rules file.

    It has recording rules for the percentiles of the durations of turns and stages, then an alert for each row of the
    latency guide's section 7.1 that is measured. `timing` sets the window, the delay of alerts and the interval.
    """
    ordered = [_record(TURN, (), name, timing) for name in QUANTILES]
    ordered += [_record(series, ("stage",), name, timing) for series in (OWN, SHARE) for name in QUANTILES]
    ordered += [_alert(alert, timing) for alert in ALERTS if alert.metric not in NOT_MEASURED]
    # Rules of one group are evaluated in order, so an alert uses the percentile of the same evaluation.
    return {"groups": [{"name": "rejoinder", "interval": timing.interval, "rules": ordered}]}


def alert_name(metric: Metric) -> str:
    """Return the alert's name in Prometheus, for example RejoinderEndToEnd."""
    return "Rejoinder" + "".join(word.capitalize() for word in metric.value.split("_"))


def configuration(
    url: str, rules_file: str, timing: Timing = Timing(), *, key_file: str = "", ca_file: str = ""
) -> dict[str, Any]:
    """Return the content of prometheus.yml for a running system. Prometheus gets the replicas' addresses from any host.

    Args:
        url: HTTP address of the system.
        rules_file: Path of the rules file.
        timing: Scrape and evaluation interval.
        key_file: File on Prometheus's machine with an API key of the scope `metrics`. "" if the hosts have no keys.
        ca_file: File on Prometheus's machine with the certificate authority of an https address. "" for the system's.

    Raises:
        ConfigError: `url` is not an http(s) address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not an HTTP address.", "Write for example http://HOST:8000.", field="url")
    targets = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/metrics/targets"
    source: dict[str, Any] = {"url": targets, "refresh_interval": timing.interval}
    if key_file:
        source["authorization"] = {"credentials_file": key_file}
    if ca_file:
        source["tls_config"] = {"ca_file": ca_file}
    return {
        "global": {"scrape_interval": timing.interval, "evaluation_interval": timing.interval},
        "rule_files": [rules_file],
        "scrape_configs": [
            {
                "job_name": "rejoinder",
                # The label `stage` of a stage histogram has priority over the label `stage` of the replica that exports
                # it.
                "honor_labels": True,
                "http_sd_configs": [source],
            }
        ],
    }


def as_yaml(document: dict[str, Any], comment: str = "") -> str:
    """Return `document` as YAML text, keys in their given order. Each line of `comment` is a YAML comment before it."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.safe_dump(document, sort_keys=False, width=120)


def omissions() -> str:
    """Return one line of text for each row of the guide's section 7.1 without a rule, with the reason."""
    return "\n".join(f"No rule for {metric.value}: {why}." for metric, why in NOT_MEASURED.items())


def recorded(series: str, statistic: str) -> str:
    """Return the name of the recorded percentile (p50, p95 or p99) of a histogram: TURN, OWN or SHARE."""
    return f"{series.replace('_', ':', 1)}:{statistic}"


def _record(series: str, labels: tuple[str, ...], statistic: str, timing: Timing) -> dict[str, Any]:
    by = ", ".join(("le", *labels))
    rate = f"sum by ({by}) (rate({series}_bucket[{timing.window}]))"
    return {
        "record": recorded(series, statistic),
        "expr": f"histogram_quantile({QUANTILES[statistic]}, {rate})",
    }


def _alert(alert: Alert, timing: Timing) -> dict[str, Any]:
    stage = _STAGES.get(alert.metric)
    series = recorded(OWN if stage else TURN, alert.statistic)
    selector = f'{{stage="{stage.value}"}}' if stage else ""
    metric = alert.metric.value.removesuffix(f"_{alert.statistic}").replace("_", " ")
    return {
        "alert": alert_name(alert.metric),
        "expr": f"{series}{selector} > {alert.alert_ms / 1000:g}",
        "for": timing.hold,
        "labels": {"severity": "warning" if stage else "critical", "section": alert.section},
        "annotations": {
            "summary": f"{metric} {alert.statistic} is above {alert.alert_ms:g} ms (target {alert.target_ms:g} ms)",
            "description": f"{{{{ $value | humanizeDuration }}}} over the last {timing.window}.",
            "runbook": _RUNBOOKS[alert.metric],
        },
    }
