"""Grafana dashboards over the metrics of hosts and replicas, and over the percentiles that the rules record.

A dashboard is a table of panels, and a panel is one or more PromQL queries with a unit. Every metric in a query is one
that `deployments.serving.metrics` defines or that `cluster.monitoring.alerts` records. A counter that has not been
incremented yet has no series, so a query over a rare event ends in `or vector(0)`: an empty panel then always means
that Prometheus reads nothing.

JSON model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.monitoring.alerts import NETWORK, OWN, QUANTILES, SHARE, TURN, Timing, recorded
from rejoinder.core.capacity.budgets import ALERTS, Metric, Tier, total_limit_ms

SCHEMA = 39
"""Version of Grafana's JSON model that the dashboards have (Grafana 10.1 and newer)."""
WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 24, 12, 8
"""Columns of Grafana's grid, and the size of a panel in its cells."""
DEFAULT = Timing()
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL.
        legend: Name of a series, with `{{label}}` for the value of a label.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: What it shows, and over what.
        unit: Grafana's name of the unit: s, ops (a rate a second), percentunit (0 to 1), short (a count), bytes.
        queries: The series.
        thresholds: Values at which a line is drawn, in the unit, with its color.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    thresholds: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard.

    Attributes:
        name: Name of its file, and its identity in Grafana.
        title: Its title.
        panels: Its panels, in reading order.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


def dashboards(timing: Timing = DEFAULT) -> tuple[Dashboard, ...]:
    """Return all dashboards. `timing.window` is the time over which rates are computed."""
    window = timing.window
    return (
        _overview(window),
        Dashboard("rejoinder-waterfall", "Rejoinder: where the time of a turn goes", _waterfall(window)),
        Dashboard("rejoinder-regions", "Rejoinder: regions", _regions(window)),
        Dashboard("rejoinder-capacity", "Rejoinder: capacity", _capacity(window)),
        Dashboard("rejoinder-reliability", "Rejoinder: reliability", _reliability(window)),
        Dashboard("rejoinder-callers", "Rejoinder: how callers fare", _callers(window)),
    )


def grafana(dashboard: Dashboard, timing: Timing = DEFAULT) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON model. Its data source is a variable that the user chooses."""
    variable = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["rejoinder"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": timing.interval,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [_panel(panel, number) for number, panel in enumerate(dashboard.panels)],
    }


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    columns = WIDTH // PANEL_WIDTH
    steps = [{"value": None, "color": "green"}, *({"value": at, "color": color} for at, color in panel.thresholds)]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {
            "x": number % columns * PANEL_WIDTH,
            "y": number // columns * PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "h": PANEL_HEIGHT,
        },
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if panel.thresholds else "off"}},
            },
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query.expression,
                "legendFormat": query.legend,
                "datasource": SOURCE,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


# -- the dashboards ----------------------------------------------------------------------------------------------------


def _overview(window: str) -> Dashboard:
    tiers = tuple((total_limit_ms(tier) / 1000, color) for tier, color in zip(Tier, _TIER_COLORS, strict=True))
    alerts = tuple((row.alert_ms / 1000, "red") for row in ALERTS if row.metric is Metric.END_TO_END_P95)
    shares = tuple(Query(_within(total_limit_ms(tier) / 1000, window), tier.value) for tier in Tier)
    return Dashboard(
        "rejoinder-overview",
        "Rejoinder: overview",
        (
            Panel("Voice to voice, median, and the limits of the tiers", "s", (_percentile(TURN, "p50"),), tiers),
            Panel("Voice to voice, p95 and p99", "s", (_percentile(TURN, "p95"), _percentile(TURN, "p99")), alerts),
            Panel("Share of turns within each tier", "percentunit", shares),
            _graph("Turns a second", "ops", f"sum({_rate(f'{TURN}_count', window)})", "turns"),
            _graph("Calls now", "short", "sum(rejoinder_sessions_live)", "calls"),
            _graph("Alerts firing", "short", 'sum(ALERTS{alertstate="firing"}) or vector(0)', "firing"),
        ),
    )


def _waterfall(window: str) -> tuple[Panel, ...]:
    turns = f"sum({_rate(f'{TURN}_count', window)})"
    mean = f"sum by (stage) ({_rate(f'{SHARE}_sum', window)}) / on () group_left () {turns}"
    return (
        _graph("Mean time of a turn by stage (the stages add up to it)", "s", mean, "{{stage}}"),
        *(_graph(f"Time that each stage added, {name}", "s", recorded(SHARE, name), "{{stage}}") for name in QUANTILES),
        *(_graph(f"Each stage's own time, {name}", "s", recorded(OWN, name), "{{stage}}") for name in ("p50", "p95")),
    )


def _regions(window: str) -> tuple[Panel, ...]:
    refused = _events("rejoinder_sessions_refused_total", "region", window)
    limit = tuple((row.alert_ms / 1000, "red") for row in ALERTS if row.metric is Metric.NETWORK_RTT)
    round_trips = tuple(Query(recorded(NETWORK, name), f"{name} {{{{region}}}}") for name in ("p50", "p95"))
    by_transport = _quantile("p50", NETWORK, window, "transport")
    return (
        _graph("Voice to voice by region, p50", "s", _quantile("p50", TURN, window, "region"), "{{region}}"),
        _graph("Voice to voice by region, p95", "s", _quantile("p95", TURN, window, "region"), "{{region}}"),
        Panel("Round trip to the callers by region", "s", round_trips, limit),
        _graph("Round trip to the callers by transport, p50", "s", by_transport, "{{transport}}"),
        _graph("Calls now by region", "short", "sum by (region) (rejoinder_sessions_live)", "{{region}}"),
        _graph("Refused handshakes a second by region", "ops", refused, "{{region}}"),
    )


def _capacity(window: str) -> tuple[Panel, ...]:
    calls = Query("max(rejoinder_admission_calls)", "calls")
    places = Query("min by (limit) (rejoinder_admission_places)", "places ({{limit}})")
    queue, cpu = "rejoinder_queue_seconds", _rate("process_cpu_seconds_total", window)
    return (
        Panel("Calls, and the calls that the stages can serve", "short", (calls, places)),
        _by_stage("Slots in use", "percentunit", "max by (stage) (rejoinder_stage_utilisation)"),
        _by_stage("Wait for a slot, p90", "s", "max by (stage) (rejoinder_stage_wait_seconds)"),
        _by_stage("Wait in the replicas, p95", "s", _quantile("p95", queue, window, "stage")),
        _by_stage("Requests inside the replicas", "short", "sum by (stage) (rejoinder_requests_in_flight)"),
        _by_stage("Replicas that answer", "short", "count by (stage) (up == 1)"),
        _by_stage("Replicas wanted", "short", "max by (stage) (rejoinder_replicas_wanted)"),
        _by_stage("Resident memory", "bytes", "sum by (stage) (process_resident_memory_bytes)"),
        _by_stage("CPU, in cores", "short", f"sum by (stage) ({cpu})"),
    )


def _reliability(window: str) -> tuple[Panel, ...]:
    counted = (
        ("Hedges a second", "rejoinder_hedges_total", "outcome"),
        ("Circuit breakers a second", "rejoinder_breaker_transitions_total", "outcome"),
        ("Errors a second by fault", "rejoinder_errors_total", "fault"),
        ("Errors a second by stage", "rejoinder_errors_total", "stage"),
        ("Refused handshakes a second", "rejoinder_sessions_refused_total", "reason"),
        ("Journal of the conversations, events a second", "rejoinder_session_journal_total", "outcome"),
        ("Requests that ended in the replicas, a second", "rejoinder_requests_total", "end"),
    )
    return (
        *(_graph(title, "ops", _events(metric, label, window), f"{{{{{label}}}}}") for title, metric, label in counted),
        _graph("Time before a hedge", "s", "max(rejoinder_hedge_delay_seconds)", "delay"),
    )


def _callers(window: str) -> tuple[Panel, ...]:
    stop = "rejoinder_interruption_stop_seconds"
    stops, turns = (f"sum({_rate(f'{name}_count', window)})" for name in (stop, TURN))
    stopped, length = (f"{_quantile('p50', name, window)} or vector(0)" for name in (stop, "rejoinder_session_seconds"))
    dismissed = _events("rejoinder_dismissed_speech_total", "reason", window)
    measures = _events("rejoinder_degradation_steps_total", "measure", window)
    fillers = f"sum({_rate('rejoinder_filler_seconds_count', window)}) or vector(0)"
    hangups, repeated = "rejoinder_hangups_total", f"sum({_rate('rejoinder_repeated_turns_total', window)})"
    soon = f'sum({_rate(f"""{hangups}{{when=~"during_reply|within_5s"}}""", window)})'
    until = f"{_quantile('p50', 'rejoinder_hangup_turns', window)} or vector(0)"
    return (
        _graph("Interrupted replies per turn", "percentunit", f"({stops} / ({turns} > 0)) or vector(0)", "replies"),
        _graph("Time until an interrupted reply is silent, median", "s", stopped, "median"),
        _graph("Sounds over a reply that were no turn, a second", "ops", dismissed, "{{reason}}"),
        _graph("Length of the calls that ended, median", "s", length, "median"),
        _graph(
            "Share of hang-ups during a reply or within 5 s of it",
            "percentunit",
            f"({soon} / (sum({_rate(hangups, window)}) > 0)) or vector(0)",
            "hang-ups",
        ),
        _graph("Hang-ups a second", "ops", _events(hangups, "when", window), "{{when}}"),
        _graph("Turns until the caller hangs up, median", "short", until, "turns"),
        _graph(
            "Share of turns that repeat the turn before",
            "percentunit",
            f"({repeated} / ({turns} > 0)) or vector(0)",
            "turns",
        ),
        _graph("Fillers a second", "ops", fillers, "fillers"),
        _graph("Measures against slow stages, a second", "ops", measures, "{{measure}}"),
    )


# -- queries -----------------------------------------------------------------------------------------------------------

_TIER_COLORS = ("green", "yellow", "red")


def _graph(title: str, unit: str, expression: str, legend: str) -> Panel:
    """Return a panel with one query."""
    return Panel(title, unit, (Query(expression, legend),))


def _by_stage(title: str, unit: str, expression: str) -> Panel:
    return _graph(f"{title}, by stage", unit, expression, "{{stage}}")


def _rate(counter: str, window: str) -> str:
    return f"rate({counter}[{window}])"


def _events(counter: str, label: str, window: str) -> str:
    """Return the query for the events a second of a counter, by one of its labels."""
    return f"sum by ({label}) ({_rate(counter, window)}) or vector(0)"


def _percentile(series: str, statistic: str) -> Query:
    """Return the query for a percentile that a rule records."""
    return Query(recorded(series, statistic), statistic)


def _quantile(statistic: str, histogram: str, window: str, *labels: str) -> str:
    """Return the query for a percentile of a histogram, by labels."""
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({QUANTILES[statistic]}, sum by ({by}) ({_rate(f'{histogram}_bucket', window)}))"


def _within(limit_s: float, window: str) -> str:
    """Return the query for the share of turns below a limit, which is a bound of the histogram's buckets."""
    below = f'rate({TURN}_bucket{{le="{limit_s}"}}[{window}])'
    return f"sum({below}) / sum({_rate(f'{TURN}_count', window)})"
