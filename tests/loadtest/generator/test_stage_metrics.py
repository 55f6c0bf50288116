"""Tests of reading the replicas' metrics from real Prometheus text and of the differences between two readings."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from deployments.serving.metrics import ConversationMetrics, ReplicaMetrics
from loadtest.generator.stage_metrics import ReplicaCounts, difference, parse, read
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.histogram import Histogram


class Replica:
    """Stand-in for a replica that exposes its real metrics as Prometheus text."""

    def __init__(self, stage: str) -> None:
        self._registry = CollectorRegistry()
        self._metrics = ReplicaMetrics(self._registry, stage)
        self._stage = stage

    def serve(self, queue_s: float, service_s: float, times: int = 1) -> None:
        for _ in range(times):
            self._metrics.ended(queue_s + service_s, "done", queue_s)

    def cancel(self) -> None:
        self._metrics.ended(0.1, "cancelled", None)

    def counts(self) -> ReplicaCounts:
        return parse(generate_latest(self._registry).decode(), self._stage)


class Host:
    """Stand-in for a host that exposes its real metrics as Prometheus text."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._metrics = ConversationMetrics(self._registry)

    def draft(self, *outcomes: str) -> None:
        for outcome in outcomes:
            self._metrics.draft(outcome)

    def counts(self) -> ReplicaCounts:
        return parse(generate_latest(self._registry).decode(), "host")


def test_the_metrics_of_a_replica_are_parsed() -> None:
    """`parse` reads a replica's metrics from its Prometheus text.

    The result has count and mean of the times in queue and in service, and the number of requests by how they ended.
    """
    replica = Replica("stt")
    replica.serve(0.02, 0.3, times=3)
    replica.cancel()
    counts = replica.counts()
    assert (counts.service.count, counts.queue.count) == (3, 3)
    assert counts.service.mean_s == pytest.approx(0.3)
    assert counts.queue.mean_s == pytest.approx(0.02)
    assert counts.ends == {"done": 3, "cancelled": 1}
    occupied = [bound for bound, count in zip(counts.service.bounds_s, counts.service.counts, strict=True) if count]
    assert len(occupied) == 1
    assert 0.3 <= occupied[0] < 0.3 * 1.126


def test_only_the_run_counts() -> None:
    """`difference` excludes requests from before the first reading, and sums the replicas of a stage."""
    one, two = Replica("stt"), Replica("stt")
    one.serve(0, 1.0, times=5)
    before = {"a": one.counts(), "b": two.counts()}
    one.serve(0.1, 0.5, times=2)
    two.serve(0.1, 0.7, times=2)
    two.cancel()
    stages, changed = difference(before, {"a": one.counts(), "b": two.counts()})
    stt = stages["stt"]
    assert (stt.replicas, stt.service.count, stt.requests, changed) == (2, 4, 5, [])
    assert stt.service.mean_s == pytest.approx(0.6)


def test_a_replica_that_started_or_ended_is_named() -> None:
    """Replicas that are in only one of two readings are named and left out of the difference."""
    old, new, kept = Replica("llm"), Replica("llm"), Replica("llm")
    before = {"old": old.counts(), "kept": kept.counts()}
    new.serve(0, 1)
    kept.serve(0, 2)
    stages, changed = difference(before, {"new": new.counts(), "kept": kept.counts()})
    assert changed == ["new", "old"]
    assert (stages["llm"].replicas, stages["llm"].service.count) == (1, 1)


def test_the_drafts_and_ends_of_a_run_are_summed_over_replicas() -> None:
    """The difference of two readings sums requests by how they ended, and drafts by outcome, over the replicas."""
    one, two, stage = Host(), Host(), Replica("tts")
    one.draft("begun", "discarded", "discarded_ready")
    before = {"a": one.counts(), "b": two.counts(), "c": stage.counts()}
    one.draft("begun", "kept")
    two.draft("begun", "discarded")
    stage.serve(0, 0.1)
    stage.cancel()
    stages, _ = difference(before, {"a": one.counts(), "b": two.counts(), "c": stage.counts()})
    assert stages["host"].drafts == {"begun": 2, "kept": 1, "discarded": 1, "discarded_ready": 0}
    assert stages["tts"].ends == {"done": 1, "cancelled": 1}


def test_an_empty_histogram_has_no_mean() -> None:
    """The mean of an empty histogram raises ValueError."""
    with pytest.raises(ValueError, match="empty"):
        Histogram().mean_s  # noqa: B018


def test_an_unreachable_server_is_named() -> None:
    """If no server answers at an address, reading its metrics raises BackendError with this address."""
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        read("http://127.0.0.1:9")
