"""The latency guide's alerts (section 7.1) as Prometheus rules, and a Prometheus configuration for the hosts.

Recording rules compute percentiles of all hosts together from histograms. Alerts compare them with the thresholds.
Every threshold is a bucket bound, so the comparison is exact and does not depend on interpolation. A stage's alert uses
the stage's whole duration, not the time that it added to the turn, because the added time omits what overlaps with
other stages. The network's alert uses the round trips that the hosts measure, in each region for itself.
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
NETWORK = "rejoinder_network_rtt_seconds"

_STAGES = {Metric.STT: Stage.STT, Metric.LLM_TTFT: Stage.LLM_FIRST_TOKEN, Metric.TTS_TTFB: Stage.TTS_FIRST_AUDIO}

_RUNBOOKS = {
    Metric.END_TO_END: "Find the stage with the largest share of the turn, and add replicas or a faster engine there.",
    Metric.END_TO_END_P95: "Tail latency: look for one slow replica (request times by replica) before adding any.",
    Metric.END_TO_END_P99: "Tail latency: check hedges sent and won, and whether a replica restarts.",
    Metric.STT: "Add an Stt replica if requests wait in its queue. Otherwise choose a smaller model.",
    Metric.LLM_TTFT: "Check the engine's own queue. Add a replica, or lower conversation.context_turns.",
    Metric.NETWORK_RTT: "Compare the regions and the transports. Serve the callers from a nearer region.",
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

    It has recording rules for the percentiles of turns, stages and the network, then an alert for each row of the
    latency guide's section 7.1. `timing` sets the window, the delay of alerts and the interval.
    """
    ordered = [_record(TURN, (), name, timing) for name in QUANTILES]
    ordered += [_record(series, ("stage",), name, timing) for series in (OWN, SHARE) for name in QUANTILES]
    # A distant region must not hide behind a near one, so its round trips are not added to those of the others.
    ordered += [_record(NETWORK, ("region",), name, timing) for name in QUANTILES]
    ordered += [_alert(alert, timing) for alert in ALERTS]
    # Rules of one group are evaluated in order, so an alert uses the percentile of the same evaluation.
    return {"groups": [{"name": "rejoinder", "interval": timing.interval, "rules": ordered}]}


def alert_name(metric: Metric) -> str:
    """Return the alert's name in Prometheus, for example RejoinderEndToEnd."""
    return "Rejoinder" + "".join(word.capitalize() for word in metric.value.split("_"))


def configuration(
    url: str,
    rules_file: str,
    timing: Timing = Timing(),
    *,
    key_file: str = "",
    ca_file: str = "",
    alertmanager: str = "",
) -> dict[str, Any]:
    """Return the content of prometheus.yml for a running system. Prometheus gets the replicas' addresses from any host.

    Args:
        url: HTTP address of the system.
        rules_file: Path of the rules file.
        timing: Scrape and evaluation interval.
        key_file: File on Prometheus's machine with an API key of the scope `metrics`. "" if the hosts have no keys.
        ca_file: File on Prometheus's machine with the certificate authority of an https address. "" for the system's.
        alertmanager: Address of the Alertmanager that gets the alerts, as "host:port". "" for none.

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
    alerting = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return {
        "global": {"scrape_interval": timing.interval, "evaluation_interval": timing.interval},
        "rule_files": [rules_file],
        **({"alerting": alerting} if alertmanager else {}),
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


def recorded(series: str, statistic: str) -> str:
    """Return the name of the recorded percentile (p50, p95 or p99) of a histogram: TURN, OWN, SHARE or NETWORK."""
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
    one_part = stage is not None or alert.metric is Metric.NETWORK_RTT
    series = recorded(OWN if stage else NETWORK if one_part else TURN, alert.statistic)
    selector = f'{{stage="{stage.value}"}}' if stage else ""
    metric = alert.metric.value.removesuffix(f"_{alert.statistic}").replace("_", " ")
    return {
        "alert": alert_name(alert.metric),
        "expr": f"{series}{selector} > {alert.alert_ms / 1000:g}",
        "for": timing.hold,
        "labels": {"severity": "warning" if one_part else "critical", "section": alert.section},
        "annotations": {
            "summary": f"{metric} {alert.statistic} is above {alert.alert_ms:g} ms (target {alert.target_ms:g} ms)",
            "description": f"{{{{ $value | humanizeDuration }}}} over the last {timing.window}.",
            "runbook": _RUNBOOKS[alert.metric],
        },
    }
