"""The latency guide's alerts (7.1) as Prometheus rules over what our hosts count, and a configuration that finds them.

Percentiles are recorded once, for all hosts together, from histograms; an alert then compares a recorded value with a
threshold. Since every threshold is a bucket's bound, such a comparison is exact: it never rests on interpolation.
A stage is judged by its own duration, not by its share of the turn, which hides what ran beside another stage.
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
    Metric.NETWORK_RTT: "hosts sit behind a load balancer and see its round trip, not the caller's; callers measure"
    " theirs (`rejoinder load run` reports it by region)"
}
"""Rows of 7.1 without a rule, and why: a rule over a series that does not exist could never fire."""

_STAGES = {Metric.STT: Stage.STT, Metric.LLM_TTFT: Stage.LLM_FIRST_TOKEN, Metric.TTS_TTFB: Stage.TTS_FIRST_AUDIO}

_RUNBOOKS = {
    Metric.END_TO_END: "Open the stage panel: the stage with the largest share of the turn is the one to relieve.",
    Metric.END_TO_END_P95: "A tail: look for one slow replica (request times by replica) before adding any.",
    Metric.END_TO_END_P99: "A tail: check hedges sent and won, and whether a replica restarts.",
    Metric.STT: "Add a Stt replica if requests wait in its queue; else choose a smaller model.",
    Metric.LLM_TTFT: "Check the engine's own queue; add a replica, or lower conversation.context_turns.",
    Metric.TTS_TTFB: "Add a Tts replica if its slots are taken; else shorten conversation.first_segment_words.",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Prometheus durations: percentiles are over `window`, must be bad for `hold`, and are taken every `interval`."""

    window: str = "5m"
    hold: str = "2m"
    interval: str = "15s"


def rules(timing: Timing = Timing()) -> dict[str, Any]:
    """The rules file: percentiles of turns and stages, then an alert for each row of 7.1 that is measured."""
    found = [_record(TURN, (), name, timing) for name in QUANTILES]
    found += [_record(series, ("stage",), name, timing) for series in (OWN, SHARE) for name in QUANTILES]
    found += [_alert(alert, timing) for alert in ALERTS if alert.metric not in NOT_MEASURED]
    # One group: its rules run in this order, so an alert sees the percentile of the same instant.
    return {"groups": [{"name": "rejoinder", "interval": timing.interval, "rules": found}]}


def alert_name(metric: Metric) -> str:
    """As Prometheus knows it."""
    return "Rejoinder" + "".join(word.capitalize() for word in metric.value.split("_"))


def configuration(url: str, rules_file: str, timing: Timing = Timing()) -> dict[str, Any]:
    """prometheus.yml for a running system at `url`: every replica is found, whichever host answers.

    Raises ConfigError for a URL that is not http(s).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not an HTTP address.", "Use one like http://HOST:8000.", field="url")
    found = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/metrics/targets"
    return {
        "global": {"scrape_interval": timing.interval, "evaluation_interval": timing.interval},
        "rule_files": [rules_file],
        "scrape_configs": [
            {
                "job_name": "rejoinder",
                # A stage histogram's own label `stage` must win over that of the replica that counts it.
                "honor_labels": True,
                "http_sd_configs": [{"url": found, "refresh_interval": timing.interval}],
            }
        ],
    }


def as_yaml(document: dict[str, Any], comment: str = "") -> str:
    """YAML in the order given, behind comment lines."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.safe_dump(document, sort_keys=False, width=120)


def omissions() -> str:
    """What 7.1 lists and no rule watches, in words."""
    return "\n".join(f"No rule for {metric.value}: {why}." for metric, why in NOT_MEASURED.items())


def _recorded(series: str, statistic: str) -> str:
    return f"{series.replace('_', ':', 1)}:{statistic}"


def _record(series: str, labels: tuple[str, ...], statistic: str, timing: Timing) -> dict[str, Any]:
    by = ", ".join(("le", *labels))
    rate = f"sum by ({by}) (rate({series}_bucket[{timing.window}]))"
    return {
        "record": _recorded(series, statistic),
        "expr": f"histogram_quantile({QUANTILES[statistic]}, {rate})",
    }


def _alert(alert: Alert, timing: Timing) -> dict[str, Any]:
    stage = _STAGES.get(alert.metric)
    series = _recorded(OWN if stage else TURN, alert.statistic)
    selector = f'{{stage="{stage.value}"}}' if stage else ""
    what = alert.metric.value.removesuffix(f"_{alert.statistic}").replace("_", " ")
    return {
        "alert": alert_name(alert.metric),
        "expr": f"{series}{selector} > {alert.alert_ms / 1000:g}",
        "for": timing.hold,
        "labels": {"severity": "warning" if stage else "critical", "section": alert.section},
        "annotations": {
            "summary": f"{what} {alert.statistic} is above {alert.alert_ms:g} ms (target {alert.target_ms:g} ms)",
            "description": f"{{{{ $value | humanizeDuration }}}} over the last {timing.window}.",
            "runbook": _RUNBOOKS[alert.metric],
        },
    }
