"""Metrics of the replicas of a running system, read before and after a run.

The difference between the two readings belongs to the run. The server lists its replicas at `/metrics/targets`, each
with its own port. A replica that started or ended between the readings is left out of the difference and named, because
its counts do not cover the whole run.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.histogram import Histogram, from_cumulative

TIMEOUT_S = 5.0
"""Timeout of a request in seconds."""

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """Counts of one replica since its start, read at one time.

    Attributes:
        stage: Stage of the replica.
        queue: Histogram of the times that requests waited for service.
        service: Histogram of the service times of requests.
        ends: Number of requests, by how they ended (label `end` of the metric).
        cpu_s: CPU time of the process in seconds.
        memory_mb: Resident memory of the process in MB (10^6 bytes).
        drafts: Number of speculative replies, by their outcome. Empty unless the replica is a host.
    """

    stage: str
    queue: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    ends: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    drafts: Mapping[str, float] = field(default_factory=dict)

    def since(self, earlier: ReplicaCounts) -> ReplicaCounts:
        """Return the differences from an earlier reading of the same replica, with the memory of this reading."""
        ends = {end: count - earlier.ends.get(end, 0.0) for end, count in self.ends.items()}
        return ReplicaCounts(
            self.stage,
            queue=self.queue - earlier.queue,
            service=self.service - earlier.service,
            ends=ends,
            cpu_s=self.cpu_s - earlier.cpu_s,
            memory_mb=self.memory_mb,
            drafts={outcome: count - earlier.drafts.get(outcome, 0.0) for outcome, count in self.drafts.items()},
        )


Reading = Mapping[str, ReplicaCounts]
"""Counts of all replicas, by the name of the replica."""


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Counts of all replicas of a stage during a run.

    Attributes:
        stage: The stage.
        replicas: Number of replicas.
        queue: Histogram of the times that requests waited for service.
        service: Histogram of the service times of requests.
        requests: Number of requests that ended.
        cpu_s: CPU time of all replicas in seconds.
        memory_mb: Resident memory of the largest replica in MB (10^6 bytes).
        ends: Number of requests, by how they ended.
        drafts: Number of speculative replies, by their outcome.
    """

    stage: str
    replicas: int
    queue: Histogram
    service: Histogram
    requests: float
    cpu_s: float
    memory_mb: float
    ends: Mapping[str, float]
    drafts: Mapping[str, float]


def read(url: str, api_key: str = "") -> Reading:
    """Return the current counts of every replica that the server lists, by the name of the replica.

    Args:
        url: HTTP address of the server.
        api_key: API key of the server, which needs the scope `metrics`; "" for none.

    Raises:
        BackendError: The server or a replica does not answer.
    """
    targets = json.loads(_get(f"{url.rstrip('/')}/metrics/targets", api_key))
    return {
        target["labels"]["replica"]: parse(_get(f"http://{target['targets'][0]}/metrics"), target["labels"]["stage"])
        for target in targets
    }


def parse(text: str, stage: str) -> ReplicaCounts:
    """Return the counts of one replica of `stage` from its metrics page, `text`, in Prometheus format."""
    families = {family.name: family for family in text_string_to_metric_families(text)}

    def single(name: str) -> float:
        samples = families[name].samples if name in families else []
        return float(samples[0].value) if samples else 0.0

    def labelled(name: str, label: str) -> dict[str, float]:
        samples = families[name].samples if name in families else []
        return {s.labels[label]: s.value for s in samples if s.name.endswith("_total")}

    return ReplicaCounts(
        stage,
        queue=_histogram(families.get("rejoinder_queue_seconds")),
        service=_histogram(families.get("rejoinder_service_seconds")),
        ends=labelled("rejoinder_requests", "end"),
        cpu_s=single("process_cpu_seconds"),
        memory_mb=single("process_resident_memory_bytes") / MEGABYTE,
        drafts=labelled("rejoinder_drafts", "outcome"),
    )


def difference(before: Reading, after: Reading) -> tuple[dict[str, StageCounts], list[str]]:
    """Return the counts between two readings.

    Returns:
        (counts by stage, names of the replicas that are in only one reading). The counts leave these replicas out.
    """
    both = [replica for replica in after if replica in before]
    changed = sorted(set(before) ^ set(after))
    stages: dict[str, list[ReplicaCounts]] = {}
    for replica in both:
        counts = after[replica].since(before[replica])
        stages.setdefault(counts.stage, []).append(counts)
    return {stage: _stage_counts(stage, replicas) for stage, replicas in stages.items()}, changed


def _stage_counts(stage: str, replicas: list[ReplicaCounts]) -> StageCounts:
    return StageCounts(
        stage,
        len(replicas),
        queue=sum((replica.queue for replica in replicas), Histogram()),
        service=sum((replica.service for replica in replicas), Histogram()),
        requests=sum(sum(replica.ends.values()) for replica in replicas),
        cpu_s=sum(replica.cpu_s for replica in replicas),
        memory_mb=max(replica.memory_mb for replica in replicas),
        ends=_summed(replica.ends for replica in replicas),
        drafts=_summed(replica.drafts for replica in replicas),
    )


def _summed(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0.0) + count
    return total


def _histogram(family: object) -> Histogram:
    samples = getattr(family, "samples", [])
    cumulative = {
        float(sample.labels["le"]): int(sample.value) for sample in samples if sample.name.endswith("_bucket")
    }
    return from_cumulative(cumulative, sum(sample.value for sample in samples if sample.name.endswith("_sum")))


def _get(url: str, api_key: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{url}: {error}.", "Check that the server runs and that this machine can reach its replicas."
        ) from error
