"""Tests of the metrics: counts, labels, buckets, and how a request ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from deployments.serving.autoscaling import ARRIVALS_PER_S, BEGAN, ENDED, LATE, SERVICE_S
from deployments.serving.metrics import (
    HOST_HELP,
    REPLICA_HELP,
    ConversationMetrics,
    MetricsPort,
    ReplicaMetrics,
    WantedReplicas,
)
from deployments.serving.replica import Replica
from rejoinder.core.capacity.budgets import HISTOGRAM_BUCKETS_S
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.waterfall import UNATTRIBUTED
from rejoinder.core.reply.degradation import DegradationMeasure
from rejoinder.core.reply.satisfaction import HangUp
from rejoinder.core.resilience.admission import AdmissionRefusal
from rejoinder.core.settings.settings import StageSettings
from rejoinder.core.turns.barge_in import SpeechKind
from tests.system.harness.served import metric


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


def test_a_turn_and_its_stages_sum() -> None:
    """After one turn, the sums of the stage histograms and of the unattributed time add up to the turn's histogram."""
    registry = CollectorRegistry()
    metrics = ConversationMetrics(registry)
    metrics.turn(0.5, {"stt": 0.2, "llm_first_token": 0.1}, raw_s={"stt": 0.35}, engines={})
    metrics.turn(0.3, {"stt": 0.3}, raw_s={"stt": 0.3}, engines={})
    assert _value(registry, "rejoinder_turn_seconds_count") == 2
    total = sum(
        _value(registry, "rejoinder_stage_seconds_sum", stage=stage)
        for stage in ("stt", "llm_first_token", UNATTRIBUTED)
    )
    assert total == pytest.approx(_value(registry, "rejoinder_turn_seconds_sum"))
    assert _value(registry, "rejoinder_stage_own_seconds_sum", stage="stt") == pytest.approx(0.65)


def test_every_event_is_counted() -> None:
    """Each event of a host, such as a session, a hedge or an error, is counted once, under its own label."""
    registry = CollectorRegistry()
    metrics = ConversationMetrics(registry)
    metrics.session_opened()
    metrics.session_opened()
    metrics.session_closed(3.0)
    metrics.refused("full")
    metrics.hedge("sent")
    metrics.hedge("won")
    metrics.interrupted(0.12)
    metrics.error("backend", "llm")
    metrics.cache("hit_exact")
    metrics.filler(1.4)
    metrics.dismissed_speech("no_words")
    metrics.degradation("filler")
    metrics.repeated_turn()
    metrics.round_trip(0.08, "webrtc")
    metrics.hung_up("within_5s", 3)
    assert _value(registry, "rejoinder_sessions_live") == 1
    assert _value(registry, "rejoinder_session_seconds_sum") == 3.0
    assert _value(registry, "rejoinder_sessions_refused_total", reason="full") == 1
    assert _value(registry, "rejoinder_hedges_total", outcome="sent") == 1
    assert _value(registry, "rejoinder_hedges_total", outcome="won") == 1
    assert _value(registry, "rejoinder_hedges_total", outcome="wasted") == 0
    assert _value(registry, "rejoinder_interruption_stop_seconds_bucket", le="0.15") == 1
    assert _value(registry, "rejoinder_interruption_stop_seconds_bucket", le="0.1") == 0
    assert _value(registry, "rejoinder_errors_total", fault="backend", stage="llm") == 1
    assert _value(registry, "rejoinder_answer_cache_total", outcome="hit_exact") == 1
    assert _value(registry, "rejoinder_filler_seconds_sum") == 1.4
    assert _value(registry, "rejoinder_dismissed_speech_total", reason="no_words") == 1
    assert _value(registry, "rejoinder_degradation_steps_total", measure="filler") == 1
    assert _value(registry, "rejoinder_repeated_turns_total") == 1
    assert _value(registry, "rejoinder_network_rtt_seconds_bucket", transport="webrtc", le="0.1") == 1
    assert _value(registry, "rejoinder_network_rtt_seconds_bucket", transport="webrtc", le="0.05") == 0
    assert _value(registry, "rejoinder_hangups_total", when="within_5s") == 1
    assert _value(registry, "rejoinder_hangup_turns_sum") == 3


def test_the_help_texts_explain_the_labels() -> None:
    """The HELP texts of refusals, degradation, dismissed speech and hang-ups name every value of the label.

    Each HELP text begins with a capital letter and ends with a full stop.
    """
    for name, values in (
        ("rejoinder_sessions_refused_total", AdmissionRefusal),
        ("rejoinder_degradation_steps_total", DegradationMeasure),
        ("rejoinder_dismissed_speech_total", set(SpeechKind) - {SpeechKind.ADDRESSED}),
        ("rejoinder_hangups_total", HangUp),
    ):
        assert all(value.value in HOST_HELP[name] for value in values), name
    assert all(text.endswith(".") and text[0].isupper() for text in (HOST_HELP | REPLICA_HELP).values())


def test_every_metric_has_a_help_text() -> None:
    """The tables of HELP texts for replica and host contain exactly the metrics that replica and host export."""
    for table, create in ((HOST_HELP, ConversationMetrics), (REPLICA_HELP, partial(ReplicaMetrics, stage="stt"))):
        registry = CollectorRegistry()
        create(registry)
        assert {family.name: family.documentation for family in registry.collect()} == {
            name.removesuffix("_total"): text for name, text in table.items()
        }


def test_every_limit_is_a_bucket() -> None:
    """Every limit of the latency guide is a bucket bound, so the share of turns within it is exact."""
    registry = CollectorRegistry()
    ConversationMetrics(registry).turn(1.0, {}, raw_s={}, engines={})
    for bucket in HISTOGRAM_BUCKETS_S:
        found = registry.get_sample_value("rejoinder_turn_seconds_bucket", {"le": str(float(bucket))})
        assert found == float(bucket >= 1.0)


def test_two_replicas_of_one_process_do_not_mix() -> None:
    """Two replicas in one process have separate registries: a request of one is not counted for the other."""
    one, other = CollectorRegistry(), CollectorRegistry()
    ReplicaMetrics(one, "stt").ended(0.1, "done", None)
    ReplicaMetrics(other, "stt")
    assert _value(one, "rejoinder_requests_total", stage="stt", end="done") == 1
    assert _value(other, "rejoinder_requests_total", stage="stt", end="done") == 0


def test_a_port_serves_its_registry() -> None:
    """The HTTP page of a metrics port has the metrics of a replica and of its process."""
    port = MetricsPort("127.0.0.1")
    ReplicaMetrics(port.registry, "tts").in_flight.inc()
    assert httpx2.get(f"http://{port.target}/metrics", timeout=5).status_code == 200
    assert metric(port.target, "rejoinder_requests_in_flight", stage="tts") == 1
    assert metric(port.target, "process_resident_memory_bytes") > 0


def test_the_wanted_replicas_are_asked_for_in_the_background() -> None:
    """A scrape gets the newest answer and never waits. Serve is asked again after ten seconds, and may fail."""
    now, asked = [100.0], [0]

    def ask() -> dict[str, int]:
        asked[0] += 1
        if asked[0] == 2:
            raise BackendError("the controller does not answer.")
        return {"llm": asked[0]}

    registry = CollectorRegistry()
    wanted = WantedReplicas(ask, lambda: now[0])
    registry.register(wanted)

    def scraped(at_s: float) -> float:
        now[0] = at_s
        found = _value(registry, "rejoinder_replicas_wanted", stage="llm")
        wanted.settle()
        return found

    assert [scraped(at_s) for at_s in (100, 105, 111, 122, 123)] == [0, 1, 1, 1, 3]
    assert asked == [3]


async def _ended(replica: Replica) -> dict[str, float]:
    ends = ("done", "cancelled", "failed")
    target = replica.description.target
    return {end: metric(target, "rejoinder_requests_total", end=end) for end in ends} | {
        "in flight": metric(target, "rejoinder_requests_in_flight")
    }


async def test_a_request_has_one_end() -> None:
    """A done, a cancelled and a failed request are each counted once, and afterwards no request is in flight."""
    replica = Replica("llm", "fake", StageSettings())
    async with replica.request():
        assert (await _ended(replica))["in flight"] == 1
    with pytest.raises(ValueError, match="broken"):
        async with replica.request():
            raise ValueError("broken")
    with pytest.raises(asyncio.CancelledError):
        async with replica.request():
            raise asyncio.CancelledError
    assert await _ended(replica) == {"done": 1, "cancelled": 1, "failed": 1, "in flight": 0}


async def test_closing_after_the_answer_counts_as_done() -> None:
    """A stream that is closed after its last item counts as done.

    A stream that is closed earlier counts as cancelled.
    """
    replica = Replica("llm", "fake", StageSettings())

    async def stream() -> AsyncIterator[int]:
        async with replica.request() as request:
            yield 1
            request.answered()
            yield 2

    early, late = stream(), stream()
    await anext(early)
    await early.aclose()  # type: ignore[attr-defined]
    await anext(late)
    await anext(late)
    await late.aclose()  # type: ignore[attr-defined]
    assert await _ended(replica) == {"done": 1, "cancelled": 1, "failed": 0, "in flight": 0}


async def test_an_injected_delay_is_part_of_every_request() -> None:
    """With the test setting `inject_delay_ms: 50`, a request's service begins at least 50 ms after its arrival."""
    loop = asyncio.get_running_loop()
    replica = Replica("llm", "fake", StageSettings(inject_delay_ms=50))
    began = loop.time()
    async with replica.request():
        assert loop.time() - began >= 0.05


async def test_a_waiting_time_is_signalled_when_service_begins() -> None:
    """The autoscaling signals count a late request as soon as its service begins, and its service time at its end.

    A request is late if it waited longer than `autoscaling.queue_delay_ms`, 50 ms by default.
    """
    replica = Replica("tts", "fake", StageSettings())
    assert set(replica.signals().values()) == {0.0}
    async with replica.request() as request:
        request.waited(0.7)
        signals = replica.signals()
        assert (signals[ARRIVALS_PER_S], signals[BEGAN], signals[LATE], signals[ENDED]) == (1, 1, 1, 0)
    async with replica.request() as request:
        request.waited(0.04)
        await asyncio.sleep(0.06)
    signals = replica.signals()
    assert (signals[BEGAN], signals[LATE], signals[ENDED]) == (2, 1, 2)
    assert 0.01 < signals[SERVICE_S] < 0.06


async def test_a_request_that_left_the_queue_has_no_service_time() -> None:
    """A request that is cancelled before its service began does not lower the mean service time of the signals."""
    replica = Replica("stt", "fake", StageSettings())
    with pytest.raises(asyncio.CancelledError):
        async with replica.request():
            raise asyncio.CancelledError
    assert (replica.signals()[ARRIVALS_PER_S], replica.signals()[ENDED]) == (1, 0)
