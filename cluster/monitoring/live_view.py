"""What `rejoinder top` shows: the state of a system between two readings of its metrics.

Counters and histograms are differences of the two readings, replica by replica. A replica that is new, or that has
started again, counts from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cluster.monitoring.alerts import NETWORK, OWN, SHARE, TURN
from cluster.monitoring.readings import Labels, ReplicaPage, SystemReading
from rejoinder.core.capacity.budgets import Metric, alert
from rejoinder.core.measuring.histogram import Histogram, from_cumulative
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

HOST = "host"

COUNTED: Mapping[str, tuple[str, str]] = {
    "refused handshakes": ("rejoinder_sessions_refused_total", "reason"),
    "hedges": ("rejoinder_hedges_total", "outcome"),
    "circuit breakers": ("rejoinder_breaker_transitions_total", "outcome"),
    "errors": ("rejoinder_errors_total", "fault"),
    "errors by stage": ("rejoinder_errors_total", "stage"),
    "hang-ups": ("rejoinder_hangups_total", "when"),
}
"""Events that the view counts: metric and label, by what they are called."""


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """Percentiles of one duration in milliseconds, None if nothing was measured.

    Attributes:
        name: "turn", "network" or a stage of the turn.
        count: Number of values.
        p50_ms: Median.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        added_ms: Mean time that the stage added to a turn; None if the row is not a stage.
        alert: True if the value of an alert of the latency guide's table 7.1 is exceeded.
    """

    name: str
    count: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    added_ms: float | None = None
    alert: bool = False


@dataclass(frozen=True, slots=True)
class StageLoadRow:
    """State of the replicas of one stage.

    Attributes:
        stage: The stage, or "host".
        running: Replicas that answer.
        wanted: Replicas that Ray Serve wants; None if no host says so.
        in_flight: Requests inside the replicas now.
        utilisation: Share of the slots in use, 0 to 1; None if it is not known.
        requests_per_s: Requests that ended per second.
        failed: Requests that failed.
        queue_p95_ms: 95th percentile of the wait for service in milliseconds; None without requests.
        service_p95_ms: 95th percentile of the service time in milliseconds; None without requests.
        memory_mb: Resident memory of all replicas in MB (10^6 bytes).
        cores: CPU time of all replicas per second.
    """

    stage: str
    running: int
    wanted: int | None
    in_flight: int
    utilisation: float | None
    requests_per_s: float
    failed: int
    queue_p95_ms: float | None
    service_p95_ms: float | None
    memory_mb: float
    cores: float


@dataclass(frozen=True, slots=True)
class SystemFrame:
    """State of a system.

    Attributes:
        seconds: Time between the two readings in seconds.
        calls: Conversations now.
        places: Places of all hosts together.
        free: Free places of all hosts.
        served: Conversations that the stages can serve; None if it is not known.
        limit: What limits `served`; "" if it is not known.
        turns_per_s: Answered turns per second.
        times: The turn, its stages in pipeline order, and the network.
        stages: The hosts, then the stages by name.
        events: Counts of the events of COUNTED that happened, by label value.
        silent: Replicas that did not answer.
    """

    seconds: float
    calls: int
    places: int
    free: int
    served: int | None
    limit: str
    turns_per_s: float
    times: tuple[TurnTimes, ...]
    stages: tuple[StageLoadRow, ...]
    events: Mapping[str, Mapping[str, int]]
    silent: tuple[str, ...]


def frame(before: SystemReading, after: SystemReading) -> SystemFrame:
    """Return the state of a system at the reading `after`, with what happened since the reading `before`."""
    seconds = max(after.at_s - before.at_s, 1e-9)
    hosts = [page for page in after.replicas.values() if page.stage == HOST]
    turns = _histogram(before, after, TURN)
    served, limit = _served(hosts)
    return SystemFrame(
        seconds,
        calls=round(sum(_gauges(hosts, "rejoinder_sessions_live"))),
        places=after.places.get("max_sessions", 0),
        free=after.places.get("free", 0),
        served=served,
        limit=limit,
        turns_per_s=turns.count / seconds,
        times=tuple(_times(before, after, turns)),
        stages=tuple(_stages(before, after, seconds)),
        events={title: _events(before, after, *counted) for title, counted in COUNTED.items()},
        silent=after.silent,
    )


def _times(before: SystemReading, after: SystemReading, turns: Histogram) -> Iterator[TurnTimes]:
    limits = {Metric.END_TO_END: 0.5, Metric.END_TO_END_P95: 0.95, Metric.END_TO_END_P99: 0.99}
    late = any((turns.quantile_s(share) or 0.0) * 1000 > alert(metric).alert_ms for metric, share in limits.items())
    yield _row("turn", turns, late=late)
    for name in (*(stage.value for stage in Stage), UNATTRIBUTED):
        shares = _histogram(before, after, SHARE, stage=name)
        own = shares if name == UNATTRIBUTED else _histogram(before, after, OWN, stage=name)
        limit_ms = alert(_ALERTS[name]).alert_ms if name in _ALERTS else None
        median = own.quantile_s(0.5)
        late = limit_ms is not None and median is not None and median * 1000 > limit_ms
        yield _row(name, own, added_ms=shares.sum_s * 1000 / turns.count if turns.count else None, late=late)
    network = _histogram(before, after, NETWORK)
    late = (network.quantile_s(0.5) or 0.0) * 1000 > alert(Metric.NETWORK_RTT).alert_ms
    yield _row("network", network, late=late)


_ALERTS = {
    Stage.STT.value: Metric.STT,
    Stage.LLM_FIRST_TOKEN.value: Metric.LLM_TTFT,
    Stage.TTS_FIRST_AUDIO.value: Metric.TTS_TTFB,
}


def _row(name: str, times: Histogram, *, added_ms: float | None = None, late: bool) -> TurnTimes:
    p50, p95, p99 = (_ms(times, share) for share in (0.5, 0.95, 0.99))
    return TurnTimes(name, times.count, p50_ms=p50, p95_ms=p95, p99_ms=p99, added_ms=added_ms, alert=late)


def _ms(times: Histogram, share: float) -> float | None:
    seconds = times.quantile_s(share)
    return None if seconds is None else seconds * 1000


def _stages(before: SystemReading, after: SystemReading, seconds: float) -> Iterator[StageLoadRow]:
    hosts = [page for page in after.replicas.values() if page.stage == HOST]
    wanted = _largest(hosts, "rejoinder_replicas_wanted")
    used = _largest(hosts, "rejoinder_stage_utilisation")
    names = {page.stage for page in after.replicas.values()} | set(wanted)
    for name in sorted(names, key=lambda stage: (stage != HOST, stage)):
        pages = [page for page in after.replicas.values() if page.stage == name]
        ends = _events(before, after, "rejoinder_requests_total", "end", stage=name)
        cpu_s = sum(
            values.get("process_cpu_seconds_total", {}).get(frozenset(), 0.0)
            for page, values in _changes(before, after)
            if page.stage == name
        )
        yield StageLoadRow(
            name,
            running=len(pages),
            wanted=round(wanted[name]) if name in wanted else None,
            in_flight=round(sum(_gauges(pages, "rejoinder_requests_in_flight"))),
            utilisation=used.get(name),
            requests_per_s=sum(ends.values()) / seconds,
            failed=ends.get("failed", 0),
            queue_p95_ms=_ms(_histogram(before, after, "rejoinder_queue_seconds", stage=name), 0.95),
            service_p95_ms=_ms(_histogram(before, after, "rejoinder_service_seconds", stage=name), 0.95),
            memory_mb=sum(_gauges(pages, "process_resident_memory_bytes")) / 1e6,
            cores=cpu_s / seconds,
        )


def _served(hosts: Iterable[ReplicaPage]) -> tuple[int | None, str]:
    """Return the smallest number of conversations that a host thinks the stages can serve, and what limits it."""
    known = [
        (number, dict(labels).get("limit", ""))
        for page in hosts
        for labels, number in page.values.get("rejoinder_admission_places", {}).items()
    ]
    if not known:
        return None, ""
    number, limit = min(known)
    return round(number), limit


def _gauges(pages: Iterable[ReplicaPage], name: str) -> Iterator[float]:
    for page in pages:
        yield from page.values.get(name, {}).values()


def _largest(pages: Iterable[ReplicaPage], name: str) -> dict[str, float]:
    """Return the largest value of a gauge by its label `stage`."""
    largest: dict[str, float] = {}
    for page in pages:
        for labels, value in page.values.get(name, {}).items():
            stage = dict(labels).get("stage", "")
            largest[stage] = max(value, largest.get(stage, value))
    return largest


def _changes(
    before: SystemReading, after: SystemReading
) -> Iterator[tuple[ReplicaPage, Mapping[str, Mapping[Labels, float]]]]:
    """Yield each replica with the growth of all its values. A replica that started again grew from zero."""
    for name, page in after.replicas.items():
        earlier = before.replicas.get(name)
        old = earlier.values if earlier else {}
        cpu = "process_cpu_seconds_total"
        if old.get(cpu, {}).get(frozenset(), 0.0) > page.values.get(cpu, {}).get(frozenset(), 0.0):
            old = {}
        yield (
            page,
            {
                metric: {labels: value - old.get(metric, {}).get(labels, 0.0) for labels, value in samples.items()}
                for metric, samples in page.values.items()
            },
        )


def _growth(
    before: SystemReading, after: SystemReading, name: str, only: Mapping[str, str]
) -> Iterator[tuple[dict[str, str], float]]:
    """Yield the labels and the growth of each sample of a metric that has the labels `only`, of every replica."""
    for _, values in _changes(before, after):
        for labels, value in values.get(name, {}).items():
            named = dict(labels)
            if only.items() <= named.items():
                yield named, value


def _histogram(before: SystemReading, after: SystemReading, name: str, **only: str) -> Histogram:
    """Return what a histogram of all replicas counted between the readings, of the samples with the labels `only`."""
    below: dict[float, float] = {}
    for labels, count in _growth(before, after, f"{name}_bucket", only):
        bound = float(labels["le"])
        below[bound] = below.get(bound, 0.0) + count
    return from_cumulative(below, sum(value for _, value in _growth(before, after, f"{name}_sum", only)))


def _events(before: SystemReading, after: SystemReading, name: str, label: str, **only: str) -> dict[str, int]:
    """Return how often a counter grew between the readings, by one of its labels, without those that did not."""
    counts: dict[str, float] = {}
    for labels, count in _growth(before, after, name, only):
        value = labels.get(label, "")
        counts[value] = counts.get(value, 0.0) + count
    return {value: round(count) for value, count in sorted(counts.items()) if count > 0}
